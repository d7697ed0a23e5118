"""Calling hours: known moments, and a clock on the wall that is looked at minute by minute."""

from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.limits.calling_hours import CallingHours
from consumer.messages.local_time import DAYS, EVERY_DAY, read_days, read_hours

MINUTE = timedelta(minutes=1)


def calling_hours(hours: str, days: str = "", zone: str = "UTC") -> CallingHours:
    return CallingHours(
        read_hours(hours) if hours else None, read_days(days) if days else None, zone
    )


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


BERLIN = calling_hours("09:00-21:00", zone="Europe/Berlin")
WORKDAYS = calling_hours("09:00-17:00", "mon-fri")
NIGHT = calling_hours("22:00-06:00", "fri")
FRIDAY = "2026-11-27"

OPENINGS: dict[str, tuple[CallingHours, str, str | None, str]] = {
    "within": (BERLIN, "2026-11-27T20:59:59.9+01:00", None, "2026-11-27T20:59:59.9+01:00"),
    "at the opening": (BERLIN, "2026-11-27T09:00+01:00", None, "2026-11-27T09:00+01:00"),
    "before": (BERLIN, "2026-11-27T03:12:07+01:00", None, "2026-11-27T09:00+01:00"),
    "at the closing": (BERLIN, "2026-11-27T21:00+01:00", None, "2026-11-28T09:00+01:00"),
    "in another zone": (BERLIN, "2026-11-27T20:00Z", "America/New_York", "2026-11-27T20:00Z"),
    "in a zone of 45 minutes": (BERLIN, "2026-11-27T00:00Z", "Asia/Kathmandu", "2026-11-27T03:15Z"),
    "Friday evening": (WORKDAYS, "2026-11-27T17:00Z", None, "2026-11-30T09:00Z"),
    "Sunday at noon": (WORKDAYS, "2026-11-29T12:00Z", None, "2026-11-30T09:00Z"),
    "a night begun on a Friday": (NIGHT, "2026-11-28T05:59Z", None, "2026-11-28T05:59Z"),
    "the morning after it": (NIGHT, "2026-11-28T06:00Z", None, "2026-12-04T22:00Z"),
    "a night begun on a Thursday": (NIGHT, "2026-11-27T05:59Z", None, "2026-11-27T22:00Z"),
    "until midnight": (calling_hours("20:00-24:00"), f"{FRIDAY}T23:59Z", None, f"{FRIDAY}T23:59Z"),
    "from midnight": (
        calling_hours("00:00-06:00", "sat"),
        "2026-11-27T12:00Z",
        None,
        "2026-11-28T00:00Z",
    ),
    "all day, by the local day": (
        calling_hours("", "mon"),
        "2026-11-27T12:00Z",
        "Pacific/Kiritimati",
        "2026-11-29T10:00Z",
    ),
    # The clocks of Berlin go from 02:00 to 03:00 on 29 March 2026, back on 25 October.
    "an opening that is skipped": (
        calling_hours("02:30-06:00"),
        "2026-03-29T00:00+01:00",
        "Europe/Berlin",
        "2026-03-29T03:00+02:00",
    ),
    "hours that are skipped": (
        calling_hours("02:10-02:50"),
        "2026-03-29T00:00+01:00",
        "Europe/Berlin",
        "2026-03-30T02:10+02:00",
    ),
    "hours that are skipped, and days to wait for": (
        calling_hours("02:10-02:50", "sun"),
        "2026-03-29T00:00+01:00",
        "Europe/Berlin",
        "2026-04-05T02:10+02:00",
    ),
    "an opening that comes twice, the first time": (
        calling_hours("02:30-06:00"),
        "2026-10-25T02:00+02:00",
        "Europe/Berlin",
        "2026-10-25T02:30+02:00",
    ),
    "an opening that comes twice, the second time": (
        calling_hours("02:30-06:00"),
        "2026-10-25T02:00+01:00",
        "Europe/Berlin",
        "2026-10-25T02:30+01:00",
    ),
    "a closing that comes twice, in between": (
        calling_hours("00:00-02:30"),
        "2026-10-25T02:40+02:00",
        "Europe/Berlin",
        "2026-10-25T02:00+01:00",
    ),
    "a closing that comes twice, behind both": (
        calling_hours("00:00-02:30"),
        "2026-10-25T02:30+01:00",
        "Europe/Berlin",
        "2026-10-26T00:00+01:00",
    ),
    "a midnight that is skipped": (  # Beirut goes from 00:00 to 01:00 on 29 March 2026
        calling_hours("", "sun"),
        "2026-03-28T12:00+02:00",
        "Asia/Beirut",
        "2026-03-29T01:00+03:00",
    ),
    "half an hour that is skipped": (  # Lord Howe goes from 02:00 to 02:30 on 4 October 2026
        calling_hours("02:15-03:00"),
        "2026-10-04T01:00+10:30",
        "Australia/Lord_Howe",
        "2026-10-04T02:30+11:00",
    ),
    "a Friday that is skipped": (  # Samoa had no 30 December 2011
        calling_hours("09:00-17:00", "fri"),
        "2011-12-29T12:00-10:00",
        "Pacific/Apia",
        "2012-01-06T09:00+14:00",
    ),
    "when Python's dates end": (BERLIN, "9999-12-31T23:00Z", None, "9999-12-31T23:00Z"),
}


@pytest.mark.parametrize(("rules", "now", "zone", "opens"), OPENINGS.values(), ids=OPENINGS)
def test_a_call_waits_for_the_hours(
    rules: CallingHours, now: str, zone: str | None, opens: str
) -> None:
    assert rules.opens_at(moment(now), zone) == moment(opens)


@pytest.mark.parametrize("now", [0.0, 1.7e9 + 0.123456, 2**31 - 3600.1, 1e12])
def test_without_hours_and_days_a_call_never_waits(now: float) -> None:
    assert CallingHours().opens_at(now, "Asia/Kolkata") == now


ZONES = """Africa/Cairo Africa/Casablanca Africa/Lagos America/Anchorage America/Asuncion
America/Bogota America/Caracas America/Chicago America/Halifax America/Havana America/Los_Angeles
America/New_York America/Nuuk America/Santiago America/Sao_Paulo America/Scoresbysund
America/St_Johns Antarctica/Troll Asia/Beirut Asia/Gaza Asia/Jerusalem Asia/Kathmandu Asia/Kolkata
Asia/Pyongyang Asia/Shanghai Asia/Tehran Asia/Yangon Atlantic/Azores Australia/Adelaide
Australia/Eucla Australia/Lord_Howe Australia/Sydney Europe/Berlin Europe/Dublin Europe/Istanbul
Europe/Moscow Pacific/Apia Pacific/Auckland Pacific/Chatham Pacific/Easter Pacific/Kiritimati
Pacific/Norfolk""".split()  # noqa: SIM905  # as a list it would fill a page
YEARS = (2010, 2030)


@cache
def changes(zone: str) -> list[datetime]:
    """Return hours within which the zone's clock is set, found by looking at each hour."""
    rules, hour = ZoneInfo(zone), timedelta(hours=1)
    start = datetime(YEARS[0], 1, 1, tzinfo=UTC)
    days = [start + timedelta(days=n) for n in range((YEARS[1] - YEARS[0]) * 365)]
    found = [day for day in days if _offset(day, rules) != _offset(day + timedelta(days=1), rules)]
    return [
        day + n * hour
        for day in found
        for n in range(24)
        if _offset(day + n * hour, rules) != _offset(day + (n + 1) * hour, rules)
    ]


def _offset(at: datetime, rules: ZoneInfo) -> timedelta | None:
    return at.astimezone(rules).utcoffset()


def by_the_wall(hours: tuple[int, int], days: frozenset[int], zone: str, now: datetime) -> datetime:
    """Look at the clock on the wall each minute, until it shows a calling time."""
    opens, closes = hours
    while True:
        local = now.astimezone(ZoneInfo(zone))
        minute, today = local.hour * 60 + local.minute, local.weekday()
        if opens < closes:
            allowed = opens <= minute < closes and today in days
        else:
            yesterday = (today - 1) % 7
            allowed = (minute >= opens and today in days) or (minute < closes and yesterday in days)
        if allowed:
            return now
        now += MINUTE


@st.composite
def situations(draw: st.DrawFn) -> tuple[tuple[int, int], frozenset[int], str, datetime]:
    """Hours near a moment of a zone, mostly around a change of its clock, or of any kind."""
    zone = draw(st.sampled_from(ZONES))
    set_at = changes(zone)
    first, last = datetime(YEARS[0], 1, 1, tzinfo=UTC), datetime(YEARS[1], 1, 1, tzinfo=UTC)
    near = st.sampled_from(set_at) if set_at else st.nothing()
    now = draw(near | st.datetimes(first.replace(tzinfo=None), last.replace(tzinfo=None)))
    now = now.replace(tzinfo=UTC, second=0, microsecond=0) + draw(st.integers(-300, 300)) * MINUTE
    local = now.astimezone(ZoneInfo(zone))
    here = local.hour * 60 + local.minute
    times = st.integers(0, 1439) | st.integers(-200, 200).map(lambda n: (here + n) % 1440)
    opens, closes = draw(st.tuples(times, times).filter(lambda pair: pair[0] != pair[1]))
    few = st.just(EVERY_DAY) | st.frozensets(st.integers(0, 6), min_size=1)
    return (opens, closes), draw(few), zone, now


@given(situations())
@settings(max_examples=120)
def test_it_is_what_the_clock_on_the_wall_says(
    situation: tuple[tuple[int, int], frozenset[int], str, datetime],
) -> None:
    (opens, closes), days, zone, now = situation
    hours = "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (opens, closes))
    rules = CallingHours(read_hours(hours), read_days(",".join(DAYS[day] for day in days)))

    opened = rules.opens_at(now.timestamp(), zone)

    assert datetime.fromtimestamp(opened, UTC) == by_the_wall((opens, closes), days, zone, now)


def test_the_zones_tried_have_clocks_that_are_set_in_many_ways() -> None:
    assert len(ZONES) > 40
    assert sum(bool(changes(zone)) for zone in ZONES) > 25
    assert {day.date() for day in changes("Pacific/Apia")} >= {date(2011, 12, 30)}

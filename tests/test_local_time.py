"""Local time as people write it."""

from zoneinfo import ZoneInfo

import pytest
from pydantic_core import PydanticCustomError

from consumer.messages.local_time import (
    DAY_S,
    Hours,
    known_time_zone,
    read_days,
    read_hours,
    time_zones,
)

HOURS: dict[str, tuple[str, Hours]] = {
    "a working day": ("09:00-17:30", Hours(9 * 3600, 17 * 3600 + 1800)),
    "over midnight": ("22:00-06:00", Hours(22 * 3600, 30 * 3600)),
    "until midnight": ("20:00-00:00", Hours(20 * 3600, DAY_S)),
    "until midnight, in other words": ("20:00-24:00", Hours(20 * 3600, DAY_S)),
    "from midnight": ("00:00-06:00", Hours(0, 6 * 3600)),
    "all day": ("00:00-24:00", Hours()),
}


@pytest.mark.parametrize(("text", "hours"), HOURS.values(), ids=HOURS)
def test_hours_are_read(text: str, hours: Hours) -> None:
    assert read_hours(text) == hours


DAYS: dict[str, tuple[str, set[int]]] = {
    "one": ("wed", {2}),
    "some": ("mon,wed,sat", {0, 2, 5}),
    "a span": ("mon-fri", {0, 1, 2, 3, 4}),
    "a span into the next week": ("sat-mon", {5, 6, 0}),
    "a span of one day": ("tue-tue", {1}),
    "a whole week": ("wed-tue", set(range(7))),
    "days and spans": ("mon, Wed , SAT - sun", {0, 2, 5, 6}),
    "the same day twice": ("mon-wed,tue", {0, 1, 2}),
}


@pytest.mark.parametrize(("text", "days"), DAYS.values(), ids=DAYS)
def test_days_are_read(text: str, days: set[int]) -> None:
    assert read_days(text) == days


def test_all_days_may_be_named_one_by_one() -> None:
    assert read_days("mon,tue,wed,thu,fri,sat,sun") == set(range(7))


NO_SPAN = ("hours", "is no span of hours: write it as 09:00-21:00")
EMPTY_SPAN = ("hours", "ends when it begins: leave it empty for any time, or write 00:00-24:00")
DAYS_HINT = "is no day: write days out of mon,tue,wed,thu,fri,sat,sun, or spans as mon-fri"
WRONG: dict[str, tuple[str, str]] = {
    "9 to 5": NO_SPAN,
    "09:00-25:00": NO_SPAN,
    "09:00-09:00": EMPTY_SPAN,
}
NO_DAYS = {
    "monday": DAYS_HINT,
    "mon-tue-wed": DAYS_HINT,
    "": DAYS_HINT,
    "mon,someday": f"entry 2 of 2 {DAYS_HINT}",
    "x,mon,tue": f"entry 1 of 3 {DAYS_HINT}",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_span_of_hours_is_refused(text: str) -> None:
    with pytest.raises(PydanticCustomError) as raised:
        read_hours(text)
    assert (raised.value.type, raised.value.message()) == WRONG[text]


@pytest.mark.parametrize("text", NO_DAYS)
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(PydanticCustomError) as raised:
        read_days(text)
    assert (raised.value.type, raised.value.message()) == ("days", NO_DAYS[text])


@pytest.mark.parametrize("name", ["UTC", "Europe/Kyiv", "Europe/Kiev", "America/Argentina/Ushuaia"])
def test_a_zone_is_known_by_its_newest_name_and_by_older_ones(name: str) -> None:
    assert known_time_zone(name) == name


def test_every_zone_that_is_known_has_its_rules() -> None:
    assert len(time_zones()) > 500
    assert {ZoneInfo(name).key for name in time_zones()} == time_zones()


@pytest.mark.parametrize("name", ["", "utc", "Berlin", "localtime", "posixrules", "../UTC", "\0"])
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(PydanticCustomError, match="is no time zone") as raised:
        known_time_zone(name)
    assert raised.value.type == "time_zone"

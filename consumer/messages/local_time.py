"""Local time as people write it: the hours of a day, the days of a week, time zones. Pure."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from pydantic_core import PydanticCustomError

MINUTE_S = 60
HOUR_S = 60 * MINUTE_S
DAY_S = 24 * HOUR_S
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EVERY_DAY = frozenset(range(len(DAYS)))
"""Days count from Monday, which is 0."""

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d) ?- ?(?:([01]\d|2[0-3]):([0-5]\d)|24:00)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Hours:
    """A span of local time, which belongs to the day on which it begins.

    Attributes:
        opens_s: Seconds after midnight.
        closes_s: Seconds after the same midnight: more than a day's, if it ends on the next day.
    """

    opens_s: int = 0
    closes_s: int = DAY_S


def read_hours(text: str) -> Hours:
    """Read what is written as 09:00-21:00, or 22:00-06:00 for a span over midnight.

    Raises:
        PydanticCustomError: It is something else.
    """
    found = _HOURS.fullmatch(text)
    if found is None:
        raise PydanticCustomError("hours", "is no span of hours: write it as 09:00-21:00")
    opens_s, closes_s = _seconds(found[1], found[2]), _seconds(found[3] or "24", found[4] or "0")
    if opens_s == closes_s:
        text = "ends when it begins: leave it empty for any time, or write 00:00-24:00"
        raise PydanticCustomError("hours", text)
    return Hours(opens_s, closes_s if closes_s > opens_s else closes_s + DAY_S)


def _seconds(hours: str, minutes: str) -> int:
    return int(hours) * HOUR_S + int(minutes) * MINUTE_S


def read_days(text: str) -> frozenset[int]:
    """Read what is written as mon-fri or mon,wed,sat-sun; sat-mon goes on into the next week.

    Raises:
        PydanticCustomError: It is something else.
    """
    entries = text.lower().replace(" ", "").split(",")
    found: set[int] = set()
    for number, entry in enumerate(entries, 1):
        names = entry.split("-")
        if len(names) > 2 or not set(names) <= set(DAYS):  # noqa: PLR2004  # a span has two ends
            which = f"entry {number} of {len(entries)} " if len(entries) > 1 else ""
            hint = f"write days out of {','.join(DAYS)}, or spans as mon-fri"
            raise PydanticCustomError("days", f"{which}is no day: {hint}")
        first, last = DAYS.index(names[0]), DAYS.index(names[-1])
        found |= {(first + n) % len(DAYS) for n in range((last - first) % len(DAYS) + 1)}
    return frozenset(found)


def known_time_zone(name: str) -> str:
    """Return *name*, if it is that of a time zone.

    The names are those of the `tzdata` package, so that every worker knows the same ones.

    Raises:
        PydanticCustomError: It is none.
    """
    if name not in time_zones():
        text = "is no time zone: write an IANA name with its capitals, as Europe/Berlin"
        raise PydanticCustomError("time_zone", text)
    return name


@cache
def time_zones() -> frozenset[str]:
    """Return the names of all time zones.

    Source: https://tzdata.readthedocs.io/
    """
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="ascii").split())

"""When people may be phoned: hours and days, by the clock on their wall. Pure."""

from bisect import bisect_left
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from zoneinfo import ZoneInfo

from consumer.messages.local_time import DAY_S, DAYS, EVERY_DAY, Hours

_THURSDAY = 3
"""The day of the week on which the epoch began."""
_LAST_S = 253_370_764_800
"""The beginning of the year 9999: Python's dates end soon after."""


@dataclass(frozen=True, slots=True)
class CallingHours:
    """Hours, and days on which they begin.

    A call is allowed whenever the local clock shows a time within them. So an hour that the clock
    skips is no calling time, and an hour that it shows twice is, or is not, both times.

    Attributes:
        hours: Of each day; None for the whole day.
        days: Counting from Monday, which is 0; None for every day; never empty.
        zone: The IANA name of the time zone for those who name none.
    """

    hours: Hours | None = None
    days: frozenset[int] | None = None
    zone: str = "UTC"

    def opens_at(self, now: float, zone: str | None) -> float:
        """Return the earliest moment from *now* on at which a call is allowed.

        Args:
            now: Seconds since the epoch, as is what is returned.
            zone: The IANA name of the time zone of the person called, if it is known.
        """
        rules = _rules_of(zone or self.zone)
        since = now
        while since < _LAST_S:
            offset_s = _offset_s(since, rules)
            until = _changes_at(since, rules)
            opening = max(since, self._opening(since + offset_s) - offset_s)
            if opening < until:
                return opening
            since = until
        return now

    def _opening(self, local: float) -> float:
        """Return when the hours begin that *local* is within or, if it is outside, the next ones.

        Both count in seconds since the epoch, as if the zone were UTC and its clock never changed.
        """
        hours = self.hours or Hours()
        days = self.days or EVERY_DAY
        day = local // DAY_S - 1  # yesterday's hours may reach into today
        while (day + _THURSDAY) % len(DAYS) not in days or day * DAY_S + hours.closes_s <= local:
            day += 1
        return day * DAY_S + hours.opens_s


@cache
def _rules_of(zone: str) -> ZoneInfo:
    """Return the rules of a zone: the system's, else those of `tzdata`."""
    return ZoneInfo(zone)


def _offset_s(moment: float, zone: ZoneInfo) -> float:
    offset = datetime.fromtimestamp(moment, zone).utcoffset()
    return offset.total_seconds() if offset else 0.0


def _changes_at(moment: float, zone: ZoneInfo) -> float:
    """Return when the zone's offset next changes, but at most a day after *moment*.

    No zone has changed its offset twice within a day since 1970.
    """
    offset_s, begin = _offset_s(moment, zone), int(moment)
    if _offset_s(begin + DAY_S, zone) == offset_s:
        return begin + DAY_S
    day = range(begin, begin + DAY_S)
    return begin + bisect_left(day, 1, key=lambda at: _offset_s(at, zone) != offset_s)

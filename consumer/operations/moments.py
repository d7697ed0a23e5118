"""Moments as a person writes them: so long ago, a day, or a time with offset. Pure."""

import re
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta

from consumer.messages import read_moment

UNITS = {"d": "days", "h": "hours", "m": "minutes"}
MOMENTS = (
    "write 7d, 12h or 30m (so long ago), a day as 2026-01-31, "
    "or a time with offset, as 2026-01-31T09:00:00Z"
)


def moment_of(text: str) -> datetime | None:
    """Return the moment that *text* names, if it names one."""
    with suppress(ValueError, OverflowError):  # no such day, or before there were any
        return read_moment(text) or _ago(text) or _day(text)
    return None


def _ago(text: str) -> datetime | None:
    found = re.fullmatch(r"([0-9]{1,9})([dhm])", text)
    return datetime.now(UTC) - timedelta(**{UNITS[found[2]]: int(found[1])}) if found else None


def _day(text: str) -> datetime | None:
    """Return when a day begins where this runs."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return None
    return datetime.combine(date.fromisoformat(text), time.min).astimezone(UTC)

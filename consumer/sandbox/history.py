"""``voximplant.statistic.get``: the calls that have ended, filtered, sorted and paged."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

PAGE = 50
COST_PER_S = 0.0005


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call ends; without a name, as most do.

    Attributes:
        talks: Whether somebody listens, so that it lasts as long as the switch says.
        rings_s: For how long the phone rings before.
        listed: Whether the history ever shows it.
    """

    name: str = ""
    code: str = "200"
    reason: str = "Success call"
    talks: bool = True
    rings_s: float = 0.0
    listed: bool = True


ANSWERED = Ending()
ENDINGS = (
    Ending("busy", "486", "Busy", talks=False),
    Ending("no answer", "304", "Missed call", talks=False, rings_s=30),
    Ending("declined", "603", "Decline", talks=False, rings_s=5),
    Ending("declined by the network", "603-S", "Call cancelled", talks=False),
    Ending("unreachable", "480", "Temporarily unavailable", talks=False),
    Ending("no such number", "404", "Invalid number", talks=False),
    Ending("no money", "402", "Insufficient funds", talks=False),
    Ending("never in the history", listed=False),
    Ending("in the history after three minutes", rings_s=180),
)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was placed; *id* counts from 1, times are in Unix seconds.

    Attributes:
        dated_at: *placed_at* by the clock of the portal's telephony, which dates the history.
        ended_at: From when on the history shows it; None for never.
        duration_s: For how long somebody listens.
    """

    id: int
    call_id: str
    from_line: str
    to_number: str
    text: str
    voice: str
    placed_at: float
    dated_at: float
    ended_at: float | None
    duration_s: float
    code: str
    reason: str

    @property
    def listed_number(self) -> str:
        """The number as the statistics have it: with a plus on ``reg`` lines only."""
        digits = re.sub(r"[^0-9]", "", self.to_number)
        return f"+{digits}" if self.from_line.startswith("reg") else digits


@dataclass(frozen=True, slots=True)
class Calendar:
    """How a portal reads and writes dates."""

    zone: tzinfo
    filter_shift_s: float

    def iso(self, unix: float) -> str:
        return datetime.fromtimestamp(int(unix), self.zone).isoformat()

    def read(self, text: str) -> int | None:
        """Read a date of a filter, in Unix seconds; None if it is none."""
        try:
            date = datetime.fromisoformat(text)
        except ValueError:
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=self.zone)
        return int(date.timestamp() + self.filter_shift_s)


Comparable = int | str | None

_READ: dict[str, Callable[[Call], Comparable]] = {
    "ID": lambda call: call.id,
    "CALL_ID": lambda call: call.call_id,
    "CALL_CATEGORY": lambda _: "external",
    "PORTAL_NUMBER": lambda call: call.from_line,
    "PHONE_NUMBER": lambda call: call.listed_number,
    "CALL_TYPE": lambda _: 5,
    "CALL_DURATION": lambda call: int(call.duration_s),
    "CALL_START_DATE": lambda call: int(call.dated_at),
    "COST": lambda call: f"{COST_PER_S * call.duration_s:.4f}",
    "COST_CURRENCY": lambda _: "USD",
    "CALL_FAILED_CODE": lambda call: call.code,
    "CALL_FAILED_REASON": lambda call: call.reason,
    "TRANSCRIPT_PENDING": lambda _: "N",
}
_NULLS = (
    *("EXTERNAL_CALL_ID", "PORTAL_USER_ID", "CALL_LOG", "CALL_RECORD_URL", "CALL_VOTE"),
    *("CRM_ENTITY_TYPE", "CRM_ENTITY_ID", "CRM_ACTIVITY_ID", "REST_APP_ID", "REST_APP_NAME"),
    *("TRANSCRIPT_ID", "SESSION_ID", "REDIAL_ATTEMPT", "COMMENT", "RECORD_DURATION"),
)
FIELDS: dict[str, Callable[[Call], Comparable]] = _READ | dict.fromkeys(_NULLS, lambda _: None)
_TELLING = ("CALL_ID", "PHONE_NUMBER")
"""Few calls have the same: the others need not be looked at for the rest of a filter."""
_NUMERIC = {"ID", "CALL_TYPE", "CALL_DURATION"}

_Test = Callable[[Comparable, Sequence[Comparable]], bool]


def _in(have: Comparable, wanted: Sequence[Comparable]) -> bool:
    return have in wanted


def _like(have: Comparable, wanted: Sequence[Comparable]) -> bool:
    return have is not None and any(str(part) in str(have) for part in wanted)


def _from(have: Comparable, wanted: Sequence[Comparable]) -> bool:
    low = wanted[0] if wanted else None
    match have, low:
        case (int(), int()) | (str(), str()):
            return have >= low  # type: ignore[operator] # two of a kind
        case _:
            return False


def _up_to(have: Comparable, wanted: Sequence[Comparable]) -> bool:
    return _from(wanted[0] if wanted else None, [have])


def _between(have: Comparable, wanted: Sequence[Comparable]) -> bool:
    return _from(have, wanted) and _up_to(have, wanted[1:])


def _not(test: _Test) -> _Test:
    return lambda have, wanted: not test(have, wanted)


def _over(test: _Test) -> _Test:
    return lambda have, wanted: test(have, wanted) and have not in wanted


OPERATORS: dict[str, _Test] = {
    "": _in,
    "=": _in,
    "!": _not(_in),
    "!=": _not(_in),
    "%": _like,
    "?": _like,
    "!%": _not(_like),
    ">=": _from,
    "<=": _up_to,
    ">": _over(_from),
    "<": _over(_up_to),
    "><": _between,
    "!><": _not(_between),
}


def statistic(
    calls: Sequence[Call], params: Mapping[str, object], calendar: Calendar
) -> dict[str, object]:
    """Answer with a page of *calls*, and ``total`` and ``next`` beside it."""
    asked = params.get("FILTER")
    found = list(calls)
    for meets in _conditions(asked if isinstance(asked, Mapping) else {}, calendar):
        found = [call for call in found if meets(call)]
    found = _sorted(found, params)
    start = _whole(params.get("start"))
    counted = start >= 0
    start = max(0, start)
    page: dict[str, object] = {"result": [_row(c, calendar) for c in found[start : start + PAGE]]}
    if counted:
        page["total"] = len(found)
    if counted and start + PAGE < len(found):
        page["next"] = start + PAGE
    return page


def _conditions(asked: Mapping[str, object], calendar: Calendar) -> list[Callable[[Call], bool]]:
    """Read a filter. Like a portal, drop in silence what cannot be understood."""
    telling_first = sorted(map(str, asked), key=lambda key: not key.endswith(_TELLING))
    conditions = (_condition(key, asked[key], calendar) for key in telling_first)
    return [condition for condition in conditions if condition is not None]


def _condition(key: str, value: object, calendar: Calendar) -> Callable[[Call], bool] | None:
    name = key.lstrip("!><=%?")
    operator = key[: len(key) - len(name)]
    test, read = OPERATORS.get(operator), FIELDS.get(name)
    if test is None or read is None:
        return None
    values = value if isinstance(value, list) else [value]
    wanted = [_wanted(name, each, calendar) for each in values]
    if name == "CALL_START_DATE" and None in wanted:
        return None
    return lambda call: test(read(call), wanted)


def _wanted(name: str, value: object, calendar: Calendar) -> Comparable:
    if value in (None, "", False):
        return None
    if name == "CALL_START_DATE":
        return calendar.read(str(value))
    return _whole(value) if name in _NUMERIC else str(value)


def _whole(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 0


def _sorted(found: list[Call], params: Mapping[str, object]) -> list[Call]:
    asked = params.get("SORT")
    name = asked if isinstance(asked, str) and asked in FIELDS and asked != "CALL_TYPE" else "ID"
    read = FIELDS[name]
    descending = params.get("ORDER") == "DESC"  # only that is understood, not "desc"
    if name == "ID":  # which grows
        return found[::-1] if descending else found

    def place(call: Call) -> tuple[bool, int, str]:
        have = read(call)
        return have is not None, have if isinstance(have, int) else 0, str(have)

    return sorted(found, key=place, reverse=descending)


def _row(call: Call, calendar: Calendar) -> dict[str, str | None]:
    values = {name: read(call) for name, read in FIELDS.items()}
    row = {name: None if value is None else str(value) for name, value in values.items()}
    return {**row, "CALL_START_DATE": calendar.iso(call.dated_at), "RECORD_FILE_ID": None}

"""Bitrix24's call history: how to ask it, and what its answer shows. Pure.

Source: https://apidocs.bitrix24.com/api-reference/telephony/voximplant/voximplant-statistic-get.html
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from consumer.bitrix24.call_endings import read_ending
from consumer.bitrix24.lookup import is_transient
from consumer.bitrix24.responses import error_of
from consumer.findings import LookUpFailed, NoHistory
from consumer.messages.endings import Ending

INFOCALL = "5"
PAGE_ROWS = 50
MOST_DIGITS = 18
"""Of a row's id: more no database takes as a number."""
LONGEST_CALL_S = 3600.0
FILTER_MARGIN_S = 86_400.0
"""The portal shifts a filter's dates by its user's time zone, whatever offset they have."""
NUMBER_TAIL = 10
"""How many last digits of a number are compared: the portal writes the rest in several ways."""


@dataclass(frozen=True, slots=True)
class Row:
    """One call of the history; times in seconds since the epoch, by the portal's clock.

    Attributes:
        call_id: Empty where the portal shows none.
    """

    call_id: str
    call_type: str
    line: str
    digits: str = field(repr=False)
    started_at: float


@dataclass(frozen=True, slots=True)
class Page:
    """What one answer shows.

    Attributes:
        rows: The automatic calls.
        next_start: Where the next page starts, if there is one.
        endings: How calls ended, by their ids; of odd rows too.
        odd: How many rows cannot be read that may be automatic calls.
        last_id: The highest id of all rows; 0 if there is none.
        full: Whether there may be more.
    """

    rows: tuple[Row, ...]
    next_start: int | None
    endings: Mapping[str, Ending] = field(default_factory=dict)
    odd: int = 0
    last_id: int = 0
    full: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls are looked for: one number, one line, started since a moment."""

    line: str
    number: str = field(repr=False)
    since: float

    def parameters(self) -> dict[str, Any]:
        """Return the method's parameters."""
        since = datetime.fromtimestamp(self.since - FILTER_MARGIN_S, UTC)
        return {
            "FILTER": {
                "CALL_TYPE": INFOCALL,
                ">=CALL_START_DATE": since.isoformat(timespec="seconds"),
                "%PHONE_NUMBER": _tail(self.number),
                "PORTAL_NUMBER": self.line,
            },
            "SORT": "ID",
            "ORDER": "DESC",
        }

    def matches(self, row: Row) -> bool:
        """Tell whether *row* is wanted: the portal drops a filter that it does not understand."""
        return (
            row.call_type == INFOCALL
            and row.line.lstrip("+") == self.line.lstrip("+")
            and _tail(row.digits) == _tail(self.number)
            and self.since <= row.started_at
        )

    def lies_before(self, rows: Sequence[Row]) -> bool:
        """Tell whether a page is so old that no later one can hold what is wanted."""
        if not rows or rows[0].started_at < rows[-1].started_at:  # not sorted as it was asked to
            return False
        return max(row.started_at for row in rows) < self.since - LONGEST_CALL_S


def by_call_ids(call_ids: Sequence[str]) -> dict[str, Any]:
    """Return the parameters that ask for known calls, a page at most."""
    return {"FILTER": {"CALL_ID": call_ids[0] if len(call_ids) == 1 else list(call_ids)}}


def after(row_id: int | None) -> dict[str, Any]:
    """Return the parameters that ask for the rows after one, or for the latest if it is None.

    The portal does not count the rows: nobody needs to know. It may take a 0 in a filter for
    nothing at all.
    """
    if row_id is None:
        return {"FILTER": {"CALL_TYPE": INFOCALL}, "SORT": "ID", "ORDER": "DESC", "start": -1}
    return {
        "FILTER": {"CALL_TYPE": INFOCALL, ">=ID": row_id + 1},
        "SORT": "ID",
        "ORDER": "ASC",
        "start": -1,
    }


def _tail(number: str) -> str:
    return re.sub(r"\D", "", number)[-NUMBER_TAIL:]


def read_page(status: int, body: bytes) -> Page | NoHistory | LookUpFailed:
    """Read one answer of `voximplant.statistic.get`.

    A refusal and an answer that makes no sense mean that the history cannot be read. A busy or
    broken portal decides nothing. Whether odd rows matter is the caller's to say.
    """
    if status in {408, 429} or status >= 500 or is_transient(error_of(body)[0]):  # noqa: PLR2004
        return LookUpFailed()
    try:
        answer = json.loads(body)
        sent = answer["result"]
        if status != 200 or answer.get("error") or not isinstance(sent, list):  # noqa: PLR2004
            return NoHistory()
        following = answer.get("next")
        return _page(sent, int(following) if following else None)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return NoHistory()


def _page(sent: Sequence[object], next_start: int | None) -> Page:
    known = [row for row in sent if isinstance(row, dict) and "CALL_TYPE" in row]
    # An odd row of another kind is no reason to believe nothing.
    infocalls = [row for row in known if str(row["CALL_TYPE"]) == INFOCALL]
    rows = tuple(_readable(infocalls))
    # Of two rows about one call the first one that was written counts.
    latest_first = sorted(known, key=_row_id, reverse=True)
    return Page(
        rows=rows,
        next_start=next_start,
        endings={call_id: read_ending(row) for row in latest_first if (call_id := _call_id(row))},
        odd=len(sent) - len(known) + len(infocalls) - len(rows),
        last_id=_row_id(latest_first[0]) if latest_first else 0,
        full=len(sent) >= PAGE_ROWS,
    )


def _readable(infocalls: Sequence[dict[str, Any]]) -> Iterator[Row]:
    for row in infocalls:
        with suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError):
            yield _read_row(row)


def _call_id(row: dict[str, Any]) -> str:
    """Return the id of a row's call, empty if there is none that a ledger could know."""
    call_id = row.get("CALL_ID")
    return call_id if isinstance(call_id, str) and call_id.isprintable() else ""


def _row_id(row: dict[str, Any]) -> int:
    sent = str(row.get("ID"))
    return int(sent) if sent.isascii() and sent.isdecimal() and len(sent) <= MOST_DIGITS else 0


def _read_row(row: dict[str, Any]) -> Row:
    call_id = str(row["CALL_ID"] or "")
    call_id.encode()  # half of a surrogate pair: no database takes it
    return Row(
        call_id=call_id,
        call_type=str(row["CALL_TYPE"]),
        line=str(row["PORTAL_NUMBER"]),
        digits=re.sub(r"\D", "", str(row["PHONE_NUMBER"])),
        started_at=datetime.fromisoformat(row["CALL_START_DATE"]).timestamp(),
    )

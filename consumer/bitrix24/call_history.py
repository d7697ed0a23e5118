"""Bitrix24's call history: how to ask it for one call, and what its answer shows. Pure.

Source: https://apidocs.bitrix24.com/api-reference/telephony/voximplant/voximplant-statistic-get.html
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from consumer.bitrix24.lookup import is_transient
from consumer.bitrix24.responses import error_of
from consumer.findings import LookUpFailed, NoHistory

INFOCALL = "5"
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
    """Rows, and where the next page starts if there is one."""

    rows: tuple[Row, ...]
    next_start: int | None


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


def by_call_id(call_id: str) -> dict[str, Any]:
    """Return the parameters that ask for one known call."""
    return {"FILTER": {"CALL_ID": call_id}}


def _tail(number: str) -> str:
    return re.sub(r"\D", "", number)[-NUMBER_TAIL:]


def read_page(status: int, body: bytes) -> Page | NoHistory | LookUpFailed:
    """Read one answer of `voximplant.statistic.get`.

    A refusal and an answer that makes no sense mean that the history cannot be read. A busy or
    broken portal decides nothing.
    """
    if status in {408, 429} or status >= 500 or is_transient(error_of(body)[0]):  # noqa: PLR2004
        return LookUpFailed()
    try:
        answer = json.loads(body)
        sent = answer["result"]
        if status != 200 or answer.get("error") or not isinstance(sent, list):  # noqa: PLR2004
            return NoHistory()
        # An odd row of another kind is no reason to believe nothing.
        infocalls = [row for row in sent if str(row["CALL_TYPE"]) == INFOCALL]
        rows = tuple(_read_row(row) for row in infocalls)
        following = answer.get("next")
        return Page(rows, int(following) if following else None)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return NoHistory()


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

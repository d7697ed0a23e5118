"""How a call ended, by the code that the call history has for it: `KNOWN_ENDINGS`. Pure.

Source: the field CALL_FAILED_CODE of
https://apidocs.bitrix24.com/api-reference/telephony/voximplant/voximplant-statistic-get.html,
but for 500 and 402-B24, which Bitrix24's kernel writes too. They are SIP's status codes
(https://www.rfc-editor.org/rfc/rfc3261#section-21), 304 apart, which means a missed call here.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from consumer.messages.endings import CallOutcome, Ending

LONG_NUMBER = re.compile(r"\+?\d[\d\s().-]{5,}\d")
SHOWN_DESCRIPTION = 200
SHOWN_CODE = 32


@dataclass(frozen=True, slots=True)
class KnownEnding:
    """One code of the history, in the vendor's words, and what it means for who wants the call."""

    code: str
    description: str
    outcome: CallOutcome


KNOWN_ENDINGS = (
    KnownEnding("200", "successful call", "answered"),
    KnownEnding("304", "missed call", "no_answer"),
    KnownEnding("486", "busy", "busy"),
    KnownEnding("603", "declined", "declined"),
    KnownEnding("603-S", "call cancelled", "declined"),
    KnownEnding("404", "invalid number", "unreachable"),
    KnownEnding("480", "temporarily unavailable", "unreachable"),
    KnownEnding("484", "direction is unavailable", "unreachable"),
    KnownEnding("503", "direction is unavailable", "unreachable"),
    KnownEnding("402", "insufficient funds", "failed"),
    KnownEnding("402-B24", "insufficient funds", "failed"),
    KnownEnding("403", "forbidden", "failed"),
    KnownEnding("423", "blocked", "failed"),
    KnownEnding("500", "error of the telephony", "failed"),
    KnownEnding("OTHER", "not defined", "failed"),
)
_BY_CODE = {known.code: known for known in KNOWN_ENDINGS}


def read_ending(row: Mapping[str, Any]) -> Ending:
    """Say how the call of a history row ended, whatever the types of its fields are."""
    code = _text(row.get("CALL_FAILED_CODE")).upper()[:SHOWN_CODE]
    known = _BY_CODE.get(code)
    words = LONG_NUMBER.sub("***", _text(row.get("CALL_FAILED_REASON")))[:SHOWN_DESCRIPTION]
    if known is None:  # a row without any code tells nothing
        known = KnownEnding(code, words, "failed" if code else "unknown")
    return Ending(
        outcome=known.outcome,
        code=code,
        description=known.description,
        duration_s=_number(row.get("CALL_DURATION")) or 0.0,
        cost=_number(row.get("COST")),
        cost_currency=_text(row.get("COST_CURRENCY"))[:SHOWN_CODE] or None,
    )


def _text(value: object) -> str:
    """Return what a database takes as text; nothing for what is neither text nor number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    printable = "".join(c for c in str(value) if c.isprintable())
    return printable.encode(errors="ignore").decode().strip()


def _number(value: object) -> float | None:
    try:
        number = float(_text(value))
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None

"""The phone numbers that decide what the sandbox answers: `NUMBERS`, under their E.164 form."""

from __future__ import annotations

from dataclasses import dataclass

from consumer.sandbox.answers import (
    ANSWERS,
    OWN,
    PLACED,
    SYSTEM,
    TIMEOUT_PAGE,
    TRANSIENT,
    UGLY,
    Answer,
)
from consumer.sandbox.history import ANSWERED, ENDINGS, Ending
from consumer.sandbox.replies import Error, Page


@dataclass(frozen=True, slots=True)
class Number:
    """A number that decides the answer, the first *times* it is called (None: always).

    Attributes:
        ends: How its calls end.
    """

    number: str
    meaning: str
    answer: Answer
    times: int | None = None
    ends: Ending = ANSWERED

    @property
    def name(self) -> str:
        """Name the answer and, where calls do not end as most do, how they end."""
        return self.answer.name + (f", {self.ends.name}" if self.ends.name else "")


def meaning_of(answer: Answer) -> str:
    """Say in one phrase what comes back and whether a phone rings."""
    match answer.reply:
        case _ if answer.name in _PHRASES:
            what = _PHRASES[answer.name]
        case Error(status, code, description, observed):
            other = f" (observed: {observed})" if observed else ""
            what = f"{status}{other} {code}: {description}"
        case Page(status, content):
            what = f"{status} {'HTML page' if content else 'without a body'}"
        case _:
            what = answer.name
    placed = f"the call is {'placed' if answer.places else 'not placed'}"
    return placed if what == "placed" else f"{what}; {placed}"


_PHRASES = {
    "placed": "placed",
    "reset": "connection reset",
    "reset, placed": "connection reset",
    "silence": "silence for hold_s seconds, then a connection reset",
    "silence, placed": "silence for hold_s seconds, then a connection reset",
    "truncated JSON, placed": "200 with half a JSON text",
    "cut answer, placed": "200 that ends before its Content-Length",
    "no CALL_ID, placed": "200 RESULT true, CALL_ID null",
    "RESULT false": "200 RESULT false",
    "redirect": "302 to another host",
    "bare 429": "429 without a body, Retry-After: 7",
}


def _row(last: int, answer: Answer, times: int | None = None) -> Number:
    meaning = meaning_of(answer)
    if times is not None:
        meaning = f"first {times}: {meaning}; later: the call is placed"
    return Number(f"+1202555{last:04}", meaning, answer, times)


def _ends(last: int, ends: Ending) -> Number:
    meaning = f"{ends.name}; {meaning_of(PLACED)}"
    return Number(f"+1202555{last:04}", meaning, PLACED, None, ends)


_ROWS = (
    *(_row(100 + n, PLACED) for n in range(10)),
    *(_row(110 + n, TRANSIENT, n) for n in range(1, 10)),
    *(_row(120 + n, answer) for n, answer in enumerate(OWN)),
    *(_row(130 + n, answer) for n, answer in enumerate(SYSTEM)),
    *(_row(160 + n, answer) for n, answer in enumerate(UGLY)),
    _row(180, ANSWERS["reset"], 1),
    _row(181, ANSWERS["reset, placed"], 1),
    _row(182, TRANSIENT),
    _row(183, TIMEOUT_PAGE),
    *(_ends(184 + n, ends) for n, ends in enumerate(ENDINGS)),
)
NUMBERS: dict[str, Number] = {row.number: row for row in _ROWS}

"""A number by itself, and how a call ended, in words."""

from __future__ import annotations

import pytest

from consumer.messages import Defaults, Invalid, read_number
from consumer.messages.endings import CallOutcome, in_words

ENDINGS: dict[str, tuple[CallOutcome, float | None]] = {
    "answered, 12 s": ("answered", 12.0),
    "answered": ("answered", None),
    "no answer": ("no_answer", 0.0),
    "not in the call history": ("unknown", 3.0),
}


@pytest.mark.parametrize("words", ENDINGS)
def test_how_a_call_ended_is_said_in_words(words: str) -> None:
    assert in_words(*ENDINGS[words]) == words


NUMBERS: dict[str, tuple[object, str | None, str]] = {
    "good": (" +1 (202) 555-0110", None, "+12025550110"),
    "national": ("030 123456", "DE", "+4930123456"),
    "no number": (7, None, "is not a string"),
    "too long": ("+" + "1" * 50, None, "is too long"),
    "too short": ("+1202", None, "is not a possible phone number: check its length"),
    "letters": (
        "+1202x",
        None,
        "has characters that are not allowed: U+0078 at character 6",
    ),
}


@pytest.mark.parametrize(("text", "region", "read"), NUMBERS.values(), ids=NUMBERS)
def test_a_number_is_read_as_in_a_request(text: object, region: str | None, read: str) -> None:
    found = read_number(text, Defaults(region=region))

    expected = read if read.startswith("+") else Invalid("invalid_field", read)
    assert found == expected

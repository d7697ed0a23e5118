"""How a call ended: the table of codes, and rows with whatever types."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.bitrix24.call_endings import KNOWN_ENDINGS, KnownEnding, read_ending

OUTCOMES = {
    "200": "answered",
    "304": "no_answer",
    "486": "busy",
    "603": "declined",
    "603-S": "declined",
    "404": "unreachable",
    "480": "unreachable",
    "484": "unreachable",
    "503": "unreachable",
    "402": "failed",
    "402-B24": "failed",
    "403": "failed",
    "423": "failed",
    "500": "failed",
    "OTHER": "failed",
}


def test_the_table_has_every_documented_code() -> None:
    assert {known.code: known.outcome for known in KNOWN_ENDINGS} == OUTCOMES


@pytest.mark.parametrize("known", KNOWN_ENDINGS, ids=lambda known: known.code)
def test_a_known_code_is_told_in_the_words_of_the_table(known: KnownEnding) -> None:
    ending = read_ending(
        {"CALL_FAILED_CODE": known.code.lower(), "CALL_FAILED_REASON": "+12025550100"}
    )

    assert (ending.outcome, ending.code) == (known.outcome, known.code)
    assert ending.description == known.description


def test_an_unknown_code_is_a_failure_in_the_words_of_the_portal_without_numbers() -> None:
    row = {"CALL_FAILED_CODE": "487", "CALL_FAILED_REASON": "No answer of +1 (202) 555-0100 now"}

    ending = read_ending(row)

    assert (ending.outcome, ending.code) == ("failed", "487")
    assert ending.description == "No answer of *** now"


@pytest.mark.parametrize("code", [None, "", [], True])
def test_a_row_without_a_code_tells_nothing(code: object) -> None:
    assert read_ending({"CALL_FAILED_CODE": code, "CALL_DURATION": "9"}).outcome == "unknown"


NUMBERS: dict[str, tuple[object, float | None]] = {
    "as the portal writes it": ("95", 95.0),
    "a number": (12, 12.0),
    "a fraction": ("0.0450", 0.045),
    "nothing": (None, None),
    "blank": ("", None),
    "words": ("long", None),
    "below zero": ("-3", None),
    "without end": ("1e999", None),
    "no number": ("nan", None),
    "true": (True, None),
    "a list": ([1], None),
}


@pytest.mark.parametrize(("sent", "read"), NUMBERS.values(), ids=NUMBERS)
def test_a_duration_and_a_cost_are_read_in_any_type(sent: object, read: float | None) -> None:
    ending = read_ending({"CALL_FAILED_CODE": 200, "CALL_DURATION": sent, "COST": sent})

    assert (ending.outcome, ending.duration_s, ending.cost) == ("answered", read or 0.0, read)


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none())
FIELDS = ["CALL_FAILED_CODE", "CALL_FAILED_REASON", "CALL_DURATION", "COST", "COST_CURRENCY"]


@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING))
def test_no_row_is_too_odd(row: dict[str, Any]) -> None:
    assert read_ending(row).duration_s >= 0

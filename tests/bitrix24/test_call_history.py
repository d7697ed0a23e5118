"""The call history: how it is asked for one call, and what its answers show."""

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.bitrix24.call_history import (
    LONGEST_CALL_S,
    Page,
    Row,
    Wanted,
    by_call_ids,
    read_page,
)
from consumer.findings import LookUpFailed, NoHistory

CALL_ID = "infocall.4aa8f8e35bb6ece352fec0537b58ac42.1773740701"
NOON = 1773748800.0
"""2026-03-17 12:00 UTC."""
WANTED = Wanted("reg151083", "+19991234567", NOON - 60)

SENT = {
    "ID": "7",
    "CALL_ID": CALL_ID,
    "CALL_TYPE": "5",
    "PORTAL_NUMBER": "reg151083",
    "PORTAL_USER_ID": None,
    "PHONE_NUMBER": "+19991234567",
    "CALL_DURATION": "95",
    "CALL_START_DATE": "2026-03-17T13:00:00+01:00",
    "CALL_FAILED_CODE": "200",
    "COST": None,
}
READ = Row(CALL_ID, "5", "reg151083", "19991234567", NOON)


def page_of(*rows: object, **beside: object) -> Page:
    """Read a good answer of *rows*."""
    page = read_page(200, answer(*rows, **beside))
    assert isinstance(page, Page)
    return page


def answer(*rows: object, **beside: object) -> bytes:
    return json.dumps({"result": list(rows), "total": len(rows)} | beside).encode()


def row(
    line: str = "reg151083",
    digits: str = "19991234567",
    started_at: float = NOON,
    call_type: str = "5",
) -> Row:
    return Row(CALL_ID, call_type, line, digits, started_at)


# --- what is asked


def test_the_history_is_asked_for_automatic_calls_to_one_number_on_one_line() -> None:
    assert WANTED.parameters() == {
        "FILTER": {
            "CALL_TYPE": "5",
            ">=CALL_START_DATE": "2026-03-16T11:59:00+00:00",
            "%PHONE_NUMBER": "9991234567",
            "PORTAL_NUMBER": "reg151083",
        },
        "SORT": "ID",
        "ORDER": "DESC",
    }


def test_a_short_number_is_asked_for_whole() -> None:
    wanted = Wanted("reg1", "+49 (0)301-2", 0.0)

    assert wanted.parameters()["FILTER"]["%PHONE_NUMBER"] == "4903012"


def test_a_known_call_is_asked_for_by_its_id() -> None:
    assert by_call_ids([CALL_ID]) == {"FILTER": {"CALL_ID": CALL_ID}}


# --- which rows are wanted

MATCHES: dict[str, tuple[Row, bool]] = {
    "the same in all": (row(), True),
    "a number with another prefix": (row(digits="89991234567"), True),
    "a number without any prefix": (row(digits="9991234567"), True),
    "a number with a plus": (row(digits="+1 (999) 123-45-67"), True),
    "another number": (row(digits="19991234568"), False),
    "a number that only ends alike": (row(digits="1234567"), False),
    "no number": (row(digits=""), False),
    "another line": (row(line="reg151084"), False),
    "a line that begins alike": (row(line="reg1510830"), False),
    "a call by hand": (row(call_type="1"), False),
    "a callback": (row(call_type="4"), False),
    "the first moment": (row(started_at=NOON - 60), True),
    "just before it": (row(started_at=NOON - 60.5), False),
}


@pytest.mark.parametrize(("seen", "matches"), MATCHES.values(), ids=MATCHES)
def test_a_row_is_compared_here_since_the_portal_drops_filters(seen: Row, *, matches: bool) -> None:
    assert WANTED.matches(seen) is matches


LINES: dict[str, tuple[str, str]] = {
    "a plus in the history": ("74950000000", "+74950000000"),
    "a plus in the request": ("+74950000000", "74950000000"),
    "no plus": ("sip7", "sip7"),
}


@pytest.mark.parametrize(("asked", "shown"), LINES.values(), ids=LINES)
def test_a_rented_number_is_the_same_line_with_and_without_a_plus(asked: str, shown: str) -> None:
    wanted = Wanted(asked, "+19991234567", NOON)

    assert wanted.matches(row(line=shown))


PAGES: dict[str, tuple[list[Row], bool]] = {
    "no rows": ([], False),
    "all within": ([row()], False),
    "a call may have lasted long": ([row(started_at=NOON - 60 - LONGEST_CALL_S)], False),
    "all too old": ([row(started_at=NOON - 61 - LONGEST_CALL_S)], True),
    "the oldest come first": ([row(started_at=0.0), row(started_at=1.0)], False),
    "one of them not": ([row(started_at=0.0), row(), row(started_at=1.0)], False),
}


@pytest.mark.parametrize(("rows", "before"), PAGES.values(), ids=PAGES)
def test_no_further_page_is_read_when_calls_are_too_old(rows: list[Row], *, before: bool) -> None:
    assert WANTED.lies_before(rows) is before


# --- what is answered

ROWS: dict[str, tuple[dict[str, Any], Row]] = {
    "as documented": ({}, READ),
    "numbers for strings": ({"CALL_TYPE": 5, "PHONE_NUMBER": 19991234567}, READ),
    "a number in groups": ({"PHONE_NUMBER": "+1 (999) 123-45-67"}, READ),
    "UTC": ({"CALL_START_DATE": "2026-03-17T12:00:00Z"}, READ),
    "an offset of half an hour": ({"CALL_START_DATE": "2026-03-17T17:30:00+05:30"}, READ),
    "a line of digits": ({"PORTAL_NUMBER": 74950000000}, row(line="74950000000")),
    "no number": ({"PHONE_NUMBER": None}, row(digits="")),
}


@pytest.mark.parametrize(("changes", "read"), ROWS.values(), ids=ROWS)
def test_a_row_is_read_however_the_portal_writes_it(changes: dict[str, Any], read: Row) -> None:
    page = page_of(SENT | changes)

    assert (page.rows, page.odd) == ((read,), 0)


FOLLOWING: dict[str, tuple[dict[str, object], int | None]] = {
    "none": ({}, None),
    "a second page": ({"next": 50}, 50),
    "in letters": ({"next": "100"}, 100),
    "null": ({"next": None}, None),
    "zero would never end": ({"next": 0}, None),
}


@pytest.mark.parametrize(("beside", "next_start"), FOLLOWING.values(), ids=FOLLOWING)
def test_a_page_says_where_the_next_one_starts(
    beside: dict[str, object], next_start: int | None
) -> None:
    page = page_of(SENT, SENT, **beside)

    assert (page.rows, page.next_start) == ((READ, READ), next_start)


def test_an_empty_history_is_a_page_without_rows() -> None:
    assert read_page(200, b'{"result":[],"total":0}') == Page((), None)


def test_an_error_of_zero_is_none() -> None:
    assert page_of(SENT, error=0).rows == (READ,)


REFUSALS: dict[str, tuple[int, bytes]] = {
    "no right": (403, b'{"error":"ACCESS_DENIED","error_description":"Access denied!"}'),
    "no scope": (401, b'{"error":"insufficient_scope","error_description":""}'),
    "no method": (404, b'{"error":"ERROR_METHOD_NOT_FOUND","error_description":"Not found!"}'),
    "a mock that knows only calls": (404, b"Not Found"),
    "bad request": (400, b"{}"),
    "moved": (302, b""),
    "error on 200": (200, b'{"error":"ACCESS_DENIED"}'),
    "rows and an error": (200, answer(SENT, error="WRONG_ENCODING")),
    "a page of HTML": (200, b"<html></html>"),
    "nothing": (200, b""),
    "bytes": (200, b"\xff\xfe"),
    "a list": (200, b"[]"),
    "null": (200, b"null"),
    "no result": (200, b"{}"),
    "the answer to a call": (200, b'{"result":{"RESULT":true,"CALL_ID":"c1"}}'),
    "true": (200, b'{"result":true}'),
    "an empty object for rows": (200, b'{"result":{}}'),
    "an empty text for rows": (200, b'{"result":""}'),
    "no number for the next page": (200, answer(SENT, next="more")),
    "nested too deep": (200, b"[" * 100_000),
}


@pytest.mark.parametrize(("status", "body"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_and_nonsense_mean_that_there_is_no_history(status: int, body: bytes) -> None:
    assert read_page(status, body) == NoHistory()


ODD: dict[str, object] = {
    "no row at all": "a",
    "less": {"CALL_ID": CALL_ID},
    "no time": SENT | {"CALL_START_DATE": None},
    "a time that is none": SENT | {"CALL_START_DATE": "yesterday"},
    "half a character": SENT | {"CALL_ID": "\ud800"},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_rows_are_counted_and_hide_no_other(odd: object) -> None:
    page = page_of(odd, SENT)

    assert (page.rows, page.odd) == ((READ,), 1)


IDS: dict[str, tuple[list[object], int]] = {
    "none": ([], 0),
    "in letters": (["9", "11", "10"], 11),
    "as numbers": ([9, 11], 11),
    "odd ones": ([None, "x", "-5", "\u0665", 1.5, "9" * 30, "7"], 7),
}


@pytest.mark.parametrize(("ids", "last_id"), IDS.values(), ids=IDS)
def test_a_page_tells_its_last_row(ids: list[object], last_id: int) -> None:
    assert page_of(*(SENT | {"ID": each} for each in ids)).last_id == last_id


def test_a_page_of_fifty_rows_may_not_be_the_last() -> None:
    assert [page_of(*[SENT] * count).full for count in (49, 50)] == [False, True]


def test_of_two_rows_about_one_call_the_first_counts() -> None:
    busy, answered = SENT | {"ID": "9", "CALL_FAILED_CODE": "486"}, SENT | {"ID": "10"}

    for rows in ([busy, answered], [answered, busy]):
        assert page_of(*rows).endings[CALL_ID].outcome == "busy"


FAILURES: dict[str, tuple[int, bytes]] = {
    "too fast": (503, b'{"error":"QUERY_LIMIT_EXCEEDED"}'),
    "operating limit": (429, b'{"error":"OPERATION_TIME_LIMIT"}'),
    "server error": (500, b'{"error":"INTERNAL_SERVER_ERROR"}'),
    "a proxy's page": (502, b"<h1>Bad gateway</h1>"),
    "too slow": (504, b""),
    "whatever the body": (500, answer(SENT)),
}


@pytest.mark.parametrize(("status", "body"), FAILURES.values(), ids=FAILURES)
def test_a_busy_or_broken_portal_says_nothing_about_the_call(status: int, body: bytes) -> None:
    assert read_page(status, body) == LookUpFailed()


@pytest.mark.parametrize("call_id", [None, ""])
def test_a_row_without_an_id_is_a_row_all_the_same(call_id: str | None) -> None:
    page = page_of(SENT | {"CALL_ID": call_id})

    assert (page.rows, page.endings) == ((replace(READ, call_id=""),), {})


def test_a_next_page_beyond_all_numbers_is_nonsense() -> None:
    assert read_page(200, b'{"result":[],"next":1e999}') == NoHistory()


def test_neither_question_nor_row_shows_the_number() -> None:
    assert "9991234567" not in repr(WANTED)
    assert "9991234567" not in repr(READ)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["CALL_ID", "CALL_TYPE", "PORTAL_NUMBER", "PHONE_NUMBER", "CALL_START_DATE"]
DATES = st.datetimes().map(datetime.isoformat)
ANY_ROW = st.fixed_dictionaries(dict.fromkeys(FIELDS, JSON | DATES)) | JSON


@given(
    st.sampled_from([200, 204, 302, 401, 429, 500]),
    st.binary(max_size=100)
    | st.fixed_dictionaries(
        {"result": st.lists(ANY_ROW, max_size=2) | JSON},
        optional={"next": JSON, "error": JSON},
    ).map(lambda fields: json.dumps(fields).encode()),
)
@settings(max_examples=120, deadline=None)
def test_no_answer_at_all_is_too_much(status: int, body: bytes) -> None:
    assert isinstance(read_page(status, body), Page | NoHistory | LookUpFailed)

"""Which bodies take a request back, and what is said of the others."""

import json

import pytest

from consumer.messages import MAX_BODY_BYTES, CallCancel, Invalid, read_cancel

GOOD: dict[str, tuple[bytes, CallCancel]] = {
    "an id": (b'{"request_id": "r-1"}', CallCancel(request_id="r-1")),
    "a reason": (
        '{"request_id": "r-1", "reason": "отменено"}'.encode(),
        CallCancel(request_id="r-1", reason="отменено"),
    ),
    "a byte order mark": (b'\xef\xbb\xbf{"request_id": "r"}', CallCancel(request_id="r")),
}


@pytest.mark.parametrize(("body", "cancel"), GOOD.values(), ids=GOOD)
def test_a_cancellation_is_read_as_it_was_sent(body: bytes, cancel: CallCancel) -> None:
    assert read_cancel(body) == cancel


OTHER_FIELD = "is no field of call.cancel: check its spelling"
WRONG: dict[str, tuple[object, str, str | None]] = {
    "no id": ({"reason": "x"}, "request_id: is missing", None),
    "id null": ({"request_id": None}, "request_id: is null: leave it out instead", None),
    "id as a number": ({"request_id": 7}, "request_id: is not a string", None),
    "empty id": ({"request_id": ""}, "request_id: is empty", None),
    "wildcard": (
        {"request_id": "r-*"},
        "request_id: has characters that are not allowed: U+002A at character 3",
        None,
    ),
    "id of 129": ({"request_id": "r" * 129}, "request_id: is too long", None),
    "reason null": (
        {"request_id": "r", "reason": None},
        "reason: is null: leave it out instead",
        "r",
    ),
    "reason of 201": ({"request_id": "r", "reason": "x" * 201}, "reason: is too long", "r"),
    "reason as a list": ({"request_id": "r", "reason": ["x"]}, "reason: is not a string", "r"),
    "misspelt field": ({"request_id": "r", "raeson": "x"}, f"raeson: {OTHER_FIELD}", "r"),
}


@pytest.mark.parametrize(("fields", "description", "request_id"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_of_the_field(
    fields: object, description: str, request_id: str | None
) -> None:
    verdict = read_cancel(json.dumps(fields).encode())

    assert verdict == Invalid("invalid_field", description, request_id)


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not_json"),
    "a list": (b'["r-1"]', "not_an_object"),
    "the id alone": (b'"r-1"', "not_an_object"),
    "too large": (b'{"request_id": "r"}'.ljust(MAX_BODY_BYTES + 1), "too_large"),
    "another code page": ('{"reason": "ж"}'.encode("cp1251"), "not_utf8"),
}


@pytest.mark.parametrize(("body", "code"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_body_that_cannot_be_read_is_refused(body: bytes, code: str) -> None:
    verdict = read_cancel(body)

    assert isinstance(verdict, Invalid)
    assert verdict.code == code
    if code == "not_an_object":
        assert verdict.description == "the body is JSON but not an object"

"""What Bitrix24's answers mean, typed off the vendor's pages and off what was observed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.bitrix24.errors import (
    KNOWN_ERRORS,
    METHOD_PAGE,
    NO_TOKENS,
    NOT_LOGGED_IN,
    OTHER_SECRET,
    REPORTED_FAILURES,
    TOKENS_UNREADABLE,
    KnownError,
    Meaning,
)
from consumer.bitrix24.lookup import advice_for, is_transient
from consumer.bitrix24.responses import (
    LONGEST_DESCRIPTION,
    LONGEST_RETRY_AFTER_S,
    Usage,
    error_of,
    read_clock,
    read_names,
    read_response,
    read_usage,
)
from consumer.decision import Failure, Outcome, Placed, Refused, Scope, Unavailable, Unsure

CALL_ID = "infocall.4aa8f8e35bb6ece352fec0537b58ac42.1773740701"
TIME = (
    b'"time":{"start":1773740709,"finish":1773740710.094622,"duration":1.0946218967437744,'
    b'"processing":1,"date_start":"2026-03-17T12:45:09+01:00",'
    b'"date_finish":"2026-03-17T12:45:10+01:00","operating_reset_at":1773741309,'
    b'"operating":0.14156007766723633}'
)
PLACED = b'{"result":{"RESULT":true,"CALL_ID":"' + CALL_ID.encode() + b'"},' + TIME + b"}"
DATE = {"date": "Tue, 17 Mar 2026 12:00:00 GMT"}


@dataclass(frozen=True)
class Known:
    """One answer as the portal gives it; *statuses* are the documented and the observed ones."""

    code: str
    description: str
    statuses: tuple[int, ...]
    meaning: Meaning
    scope: Scope = "request"

    def outcome(self, status: int) -> Outcome:
        match self.meaning:
            case "refused":
                return Refused(Failure(self.code, self.description, status), self.scope)
            case "unsure":
                return Unsure(Failure(self.code, self.description, status))
            case "unavailable":
                counts = self.scope != "rate"
                return Unavailable(Failure(self.code, self.description, status), counts=counts)


KNOWN: dict[str, Known] = {
    # The method's own.
    "service line": Known(
        "ERROR_CORE",
        "Making infocall using LINK_BASE_NUMBER is not allowed",
        (400, 403),
        "refused",
        "line",
    ),
    "no such line": Known(
        "ERROR_CORE", "Could not find config for number reg7", (400, 403), "refused", "line"
    ),
    "no line said": Known(
        "ERROR_CORE", "Could not find config for number", (400,), "refused", "line"
    ),
    "monthly limit": Known(
        "ERROR_CORE",
        "Infocall limit for this month is exceeded",
        (400, 403),
        "refused",
        "rented lines",
    ),
    "bad number": Known("ERROR_CORE", "Phone number is not correct", (400, 403), "refused"),
    "infocall failure": Known("ERROR_CORE", "Infocall failure", (400, 403), "unsure"),
    "no right to call": Known("ACCESS_DENIED", "Access denied", (400, 403), "refused", "portal"),
    "no right to call, as observed": Known(
        "ACCESS_DENIED", "Access denied!", (403,), "refused", "portal"
    ),
    "no right to call, in Russian": Known(
        "ACCESS_DENIED", "Доступ запрещен", (403,), "refused", "portal"
    ),
    # The system's, documented.
    "server error": Known("INTERNAL_SERVER_ERROR", "Internal server error", (500, 200), "unsure"),
    "unexpected answer": Known(
        "ERROR_UNEXPECTED_ANSWER", "Server returned an unexpected response", (500,), "unsure"
    ),
    "too fast": Known("QUERY_LIMIT_EXCEEDED", "Too many requests", (503,), "unavailable", "rate"),
    "no batch": Known(
        "ERROR_BATCH_METHOD_NOT_ALLOWED",
        "Method is not allowed for batch usage",
        (405, 200),
        "refused",
        "portal",
    ),
    "long batch": Known(
        "ERROR_BATCH_LENGTH_EXCEEDED", "Max batch length exceeded", (400, 200), "refused", "portal"
    ),
    "no such webhook": Known(
        "NO_AUTH_FOUND", "Wrong authorization data", (401,), "refused", "portal"
    ),
    "no https": Known("INVALID_REQUEST", "Https required.", (400, 401), "refused", "portal"),
    "overload": Known(
        "OVERLOAD_LIMIT", "REST API is blocked due to overload.", (503, 401), "refused", "portal"
    ),
    "no plan": Known(
        "ACCESS_DENIED",
        "REST API is available only on commercial plans",
        (403, 401),
        "refused",
        "portal",
    ),
    "bad credentials": Known(
        "INVALID_CREDENTIALS", "Invalid request credentials", (403, 401), "refused", "portal"
    ),
    "no manifest": Known(
        "ERROR_MANIFEST_IS_NOT_AVAILABLE",
        "Manifest is not available",
        (404,),
        "refused",
        "portal",
    ),
    "no scope": Known(
        "insufficient_scope",
        "The request requires higher privileges than provided by the webhook token",
        (403, 401),
        "refused",
        "portal",
    ),
    "no scope, for an application": Known(
        "insufficient_scope",
        "The request requires higher privileges than provided by the access token",
        (403, 401),
        "refused",
        "portal",
    ),
    "expired token": Known(
        "expired_token", "The access token provided has expired.", (401,), "refused", "portal"
    ),
    "no access to the application": Known(
        "user_access_error",
        "The user does not have access to the application.",
        (403, 401),
        "refused",
        "portal",
    ),
    "portal closed": Known(
        "PORTAL_DELETED", "Portal was deleted", (500, 403, 410), "refused", "portal"
    ),
    "operating limit": Known(
        "OPERATION_TIME_LIMIT",
        "Method is blocked due to operation time limit.",
        (429,),
        "unavailable",
        "rate",
    ),
    # The system's, observed.
    "authorization server down": Known(
        "CONNECTION_ERROR", "Error connecting to authorization server", (401,), "unavailable"
    ),
    "token of no application": Known(
        "invalid_token", "Unable to get application by token", (401,), "refused", "portal"
    ),
    "owner dismissed": Known(
        "authorization_error", "Unable to authorize user", (401,), "refused", "portal"
    ),
    "no application": Known(
        "APPLICATION_NOT_FOUND", "Application not found", (401,), "refused", "portal"
    ),
    "not installed, OAuth": Known(
        "ERROR_OAUTH", "Application not installed", (401,), "refused", "portal"
    ),
    "not installed": Known(
        "NOT_INSTALLED", "Application not installed", (401,), "refused", "portal"
    ),
    "payment required": Known("PAYMENT_REQUIRED", "Payment required", (401,), "refused", "portal"),
    "subscription ended": Known(
        "PAYMENT_REQUIRED", "Subscription has been ended", (401,), "refused", "portal"
    ),
    "wrong kind of authorization": Known(
        "WRONG_AUTH_TYPE",
        "Current authorization type is denied for this method",
        (403,),
        "refused",
        "portal",
    ),
    "waiting for confirmation": Known(
        "METHOD_CONFIRM_WAITING", "Waiting for confirmation", (401,), "refused", "portal"
    ),
    "confirmation denied": Known(
        "METHOD_CONFIRM_DENIED", "Method call denied", (403,), "refused", "portal"
    ),
    "no such method": Known(
        "ERROR_METHOD_NOT_FOUND", "Method not found!", (404,), "refused", "portal"
    ),
    "bad argument": Known(
        "ERROR_ARGUMENT", "Argument is wrong: TO_NUMBER", (400,), "refused", "portal"
    ),
    "refresh token over": Known(
        "invalid_grant", "Refresh token has expired", (400, 401), "refused", "login"
    ),
    "not this client": Known("invalid_client", "Wrong client", (400, 401), "refused", "login"),
    "wrong client": Known("wrong_client", "Wrong client", (200, 401), "refused", "login"),
    "not these scopes": Known("invalid_scope", "Invalid scope", (403,), "refused", "login"),
    "nobody logged in": Known(NOT_LOGGED_IN, NO_TOKENS, (401,), "refused", "login"),
    "sealed otherwise": Known(TOKENS_UNREADABLE, OTHER_SECRET, (401,), "refused", "login"),
    "database error": Known("ERROR_CORE", "SQL query error!", (500, 400), "unsure"),
    "wrong transport": Known(
        "INTERNAL_WRONG_TRANSPORT", "Wrong transport", (500,), "refused", "portal"
    ),
    "wrong handler": Known(
        "INTERNAL_WRONG_HANDLER_CLASS", "Wrong handler class", (500,), "refused", "portal"
    ),
    "answer not encodable": Known("WRONG_ENCODING", "Wrong request encoding", (200, 500), "unsure"),
}

EACH_KNOWN = pytest.mark.parametrize(
    ("known", "status"),
    [
        pytest.param(known, status, id=f"{title}, {status}")
        for title, known in KNOWN.items()
        for status in known.statuses
    ],
)


def error_body(code: object, description: object = None) -> bytes:
    fields = {"error": code, "error_description": description}
    return json.dumps({k: v for k, v in fields.items() if v is not None}).encode()


@EACH_KNOWN
def test_a_known_answer_has_one_meaning_whatever_its_status(known: Known, status: int) -> None:
    body = error_body(known.code, known.description)

    assert read_response(status, body) == known.outcome(status)


@EACH_KNOWN
def test_the_case_of_a_code_does_not_matter(known: Known, status: int) -> None:
    for code in (known.code.upper(), known.code.lower(), known.code.title()):
        outcome = read_response(status, error_body(code, known.description))

        expected = known.outcome(status)
        assert type(outcome) is type(expected)
        assert getattr(outcome, "whose", None) == getattr(expected, "whose", None)
        assert getattr(outcome, "counts", None) == getattr(expected, "counts", None)


@pytest.mark.parametrize(
    "known",
    [pytest.param(k, id=t) for t, k in KNOWN.items() if k.code == "ERROR_CORE"],
)
@pytest.mark.parametrize("code", ["", None, 0, "0", False], ids=repr)
def test_the_methods_own_errors_may_come_without_a_code(code: object, known: Known) -> None:
    coded = read_response(400, error_body("ERROR_CORE", known.description))

    assert read_response(400, error_body(code, known.description)) == coded


@pytest.mark.parametrize(
    "known", [pytest.param(k, id=t) for t, k in KNOWN.items() if k.code == "ERROR_CORE"]
)
def test_the_case_of_a_description_does_not_matter(known: Known) -> None:
    outcome = read_response(400, error_body("ERROR_CORE", known.description.upper()))

    assert type(outcome) is type(known.outcome(400))


@pytest.mark.parametrize(
    "known", [pytest.param(k, id=t) for t, k in KNOWN.items() if k.code != "ERROR_CORE"]
)
def test_a_code_means_the_same_without_a_description(known: Known) -> None:
    outcome = read_response(500, error_body(known.code))

    expected = known.outcome(500)
    assert type(outcome) is type(expected)
    assert getattr(outcome, "whose", None) == getattr(expected, "whose", None)


def test_a_code_without_a_description_gets_the_tables() -> None:
    assert read_response(401, b'{"error":"NO_AUTH_FOUND"}') == Refused(
        Failure("NO_AUTH_FOUND", "Wrong authorization data", 401), "portal"
    )


# --- the table

# https://apidocs.bitrix24.com/api-reference/telephony/voximplant/voximplant-infocall-start-with-text.html
VENDORS_PAGE = {
    ("ERROR_CORE", "Making infocall using LINK_BASE_NUMBER is not allowed"),
    ("ERROR_CORE", "Could not find config for number <LINE_ID>"),
    ("ERROR_CORE", "Infocall limit for this month is exceeded"),
    ("ERROR_CORE", "Phone number is not correct"),
    ("ERROR_CORE", "Infocall failure"),
    ("ACCESS_DENIED", "Access denied"),
    ("INTERNAL_SERVER_ERROR", "Internal server error"),
    ("ERROR_UNEXPECTED_ANSWER", "Server returned an unexpected response"),
    ("QUERY_LIMIT_EXCEEDED", "Too many requests"),
    ("ERROR_BATCH_METHOD_NOT_ALLOWED", "Method is not allowed for batch usage"),
    ("ERROR_BATCH_LENGTH_EXCEEDED", "Max batch length exceeded"),
    ("NO_AUTH_FOUND", "Wrong authorization data"),
    ("INVALID_REQUEST", "Https required"),
    ("OVERLOAD_LIMIT", "REST API is blocked due to overload"),
    ("ACCESS_DENIED", "REST API is available only on commercial plans"),
    ("INVALID_CREDENTIALS", "Invalid request credentials"),
    ("ERROR_MANIFEST_IS_NOT_AVAILABLE", "Manifest is not available"),
    (
        "insufficient_scope",
        "The request requires higher privileges than provided by the webhook token",
    ),
    ("expired_token", "The access token provided has expired"),
    ("user_access_error", "The user does not have access to the application"),
    ("PORTAL_DELETED", "Portal was deleted"),
}


def test_the_vendors_page_is_in_the_table_and_nothing_else_is_ascribed_to_it() -> None:
    from_the_page = {(a.code, a.description) for a in KNOWN_ERRORS if a.source == METHOD_PAGE}

    assert from_the_page == {(c, d.removesuffix(" <LINE_ID>")) for c, d in VENDORS_PAGE}


@pytest.mark.parametrize(
    "row", [pytest.param(a, id=f"{a.code}: {a.description}") for a in KNOWN_ERRORS]
)
def test_every_row_of_the_table_is_tried_here_with_its_meaning(row: KnownError) -> None:
    tried = [
        known
        for known in KNOWN.values()
        if known.code == row.code and known.description.startswith(row.description)
    ]

    assert tried
    assert {(known.meaning, known.scope) for known in tried} == {(row.outcome, row.scope)}


def test_the_table_holds_no_row_twice_and_each_gives_advice() -> None:
    keys = [(a.code.upper(), a.description.lower()) for a in KNOWN_ERRORS]

    assert len(set(keys)) == len(keys)
    assert all(a.advice.endswith(".") and a.source.startswith("https://") for a in KNOWN_ERRORS)


def test_the_failures_that_the_portal_reports_are_two_and_doubtful() -> None:
    reported = {
        a.code for a in KNOWN_ERRORS if a.code in REPORTED_FAILURES and a.outcome == "unsure"
    }

    assert reported == {"INTERNAL_SERVER_ERROR", "ERROR_UNEXPECTED_ANSWER"} == REPORTED_FAILURES


@pytest.mark.parametrize(
    "row", [pytest.param(a, id=f"{a.code}: {a.description}") for a in KNOWN_ERRORS]
)
def test_for_each_row_there_is_its_own_advice(row: KnownError) -> None:
    assert advice_for(row.code, row.description) == row.advice
    assert advice_for(row.code.lower(), f"{row.description.upper()}!") == row.advice


ADVICE: dict[str, tuple[str, str, str]] = {
    "a description nobody knows": ("PAYMENT_REQUIRED", "Subscription has been ended", "Renew"),
    "a description with brackets": (
        "ACCESS_DENIED",
        "REST (API) is available only on commercial plans.",
        "Renew",
    ),
    "a description in Russian": ("ACCESS_DENIED", "Доступ запрещен", "Give"),
    "nobody knows what is wrong": ("ERROR_CORE", "Something new", "See the description"),
    "nobody knows the code": ("SOMETHING_NEW", "Access denied", "See the description"),
    "no code": ("", "", "See the description"),
    "no code but a status": ("HTTP_407", "no error code", "See who answers"),
}


@pytest.mark.parametrize(("code", "description", "begins"), ADVICE.values(), ids=ADVICE)
def test_advice_goes_by_the_code_where_the_description_is_unknown(
    code: str, description: str, begins: str
) -> None:
    assert advice_for(code, description).startswith(begins)


UNKNOWN: dict[Meaning, str] = {
    "refused": "See the description",
    "unavailable": "Nothing: ",
    "unsure": "See in the call history",
}


@pytest.mark.parametrize(("outcome", "begins"), UNKNOWN.items(), ids=UNKNOWN)
def test_what_to_do_about_a_code_that_nobody_knows_goes_by_what_it_meant(
    outcome: Meaning, begins: str
) -> None:
    assert advice_for("SOMETHING_NEW", "?", outcome).startswith(begins)
    assert advice_for("PAYMENT_REQUIRED", "?", outcome).startswith("Renew")


DEEPEST = 8
ERRORS: dict[str, tuple[bytes, tuple[str, str]]] = {
    "as documented": (
        error_body("ACCESS_DENIED", "Access denied!"),
        ("ACCESS_DENIED", "Access denied!"),
    ),
    "of v3": (b'{"error":{"code":"A","message":"b"}}', ("A", "b")),
    "of v3, with details": (
        b'{"error":{"code":"A","message":"b","validation":[{"message":"c"}]}}',
        ("A", "b"),
    ),
    "nested once more": (b'{"error":{"error":{"code":"A","message":"b"}}}', ("A", "b")),
    "nested, a number": (b'{"error":{"error":{"code":7,"description":"b"}}}', ("7", "b")),
    "a text around the code": (b'{"error":{"message":"b","errors":[{"code":"A"}]}}', ("A", "b")),
    "a list": (b'{"error":[{"code":"A","message":"b"},{"code":"C"}]}', ("A", "b")),
    "a list of codes": (b'{"error":["A"]}', ("A", "")),
    "a list that begins with nothing": (b'{"error":[null,{},{"code":"A"}]}', ("A", "")),
    "errors": (b'{"status":"error","errors":[{"message":"b","code":0}]}', ("", "b")),
    "no errors": (b'{"result":true,"errors":[]}', ("", "")),
    "code and description beside": (
        b'{"error":{"code":"A"},"error_description":"b"}',
        ("A", "b"),
    ),
    "a code that is none": (b'{"error":{"code":{"a":1},"message":["b"]}}', ("", "")),
    "true": (b'{"error":true}', ("", "")),
    "a code in a list": (b'{"error":{"code":["A"],"message":"b"}}', ("", "b")),
    "described as v1 does": (b'{"error":{"code":"A","error_description":"b"}}', ("A", "b")),
    "a long text within": (
        b'{"error":{"code":"A","message":"%s"}}' % (b"b" * (LONGEST_DESCRIPTION + 1)),
        ("A", "b" * LONGEST_DESCRIPTION),
    ),
    "as deep as is read": (b'{"error":' * (1 + DEEPEST) + b'"A"' + b"}" * (1 + DEEPEST), ("A", "")),
    "deeper": (b'{"error":' * (2 + DEEPEST) + b'"A"' + b"}" * (2 + DEEPEST), ("", "")),
    "a list as deep": (b'{"error":' + b"[" * DEEPEST + b'"A"' + b"]" * DEEPEST + b"}", ("A", "")),
    "a deeper list": (
        b'{"error":[' + b"[" * DEEPEST + b'"A"' + b"]" * DEEPEST + b"]}",
        ("", ""),
    ),
    "nested without end": (b'{"error":' * 500 + b'"A"' + b"}" * 500, ("", "")),
    "none": (PLACED, ("", "")),
    "zero": (b'{"error":0,"error_description":""}', ("", "")),
    "not JSON": (b"<h1>Sorry</h1>", ("", "")),
}


@pytest.mark.parametrize(("body", "error"), ERRORS.values(), ids=ERRORS)
def test_the_error_of_any_methods_answer_can_be_read(body: bytes, error: tuple[str, str]) -> None:
    assert error_of(body) == error


# --- answers of other shapes

DOCUMENTED = "the answer is not as documented"
NO_CODE = "no error code"
ASTRAY = "no error code: is CALLS_BITRIX24_URL right?"

SHAPES: dict[str, tuple[int, bytes, Outcome]] = {
    "placed": (200, PLACED, Placed(CALL_ID)),
    "placed, no time": (200, b'{"result":{"RESULT":true,"CALL_ID":"c1"}}', Placed("c1")),
    "placed, no id": (200, b'{"result":{"RESULT":true},' + TIME + b"}", Placed(None)),
    "placed, id null": (200, b'{"result":{"RESULT":true,"CALL_ID":null}}', Placed(None)),
    "placed, id empty": (200, b'{"result":{"RESULT":true,"CALL_ID":""}}', Placed(None)),
    "placed, id a number": (200, b'{"result":{"RESULT":true,"CALL_ID":17}}', Placed("17")),
    "placed, id with a line break": (
        200,
        b'{"result":{"RESULT":true,"CALL_ID":" c\\n1 "}}',
        Placed("c 1"),
    ),
    "placed, id too long": (
        200,
        b'{"result":{"RESULT":true,"CALL_ID":"' + b"c" * 300 + b'"}}',
        Placed("c" * 255),
    ),
    "placed, whatever the status": (502, PLACED, Placed(CALL_ID)),
    "placed, error 0": (200, b'{"error":0,"result":{"RESULT":true,"CALL_ID":"c"}}', Placed("c")),
    "RESULT false": (
        200,
        b'{"result":{"RESULT":false},' + TIME + b"}",
        Refused(Failure("RESULT_FALSE", "the portal did not start the call", 200), "portal"),
    ),
    "result false": (
        200,
        b'{"result":false}',
        Refused(Failure("RESULT_FALSE", "the portal did not start the call", 200), "portal"),
    ),
    "RESULT false, error empty": (
        200,
        b'{"error":"","result":{"RESULT":false}}',
        Refused(Failure("RESULT_FALSE", "the portal did not start the call", 200), "portal"),
    ),
    "RESULT 1": (
        200,
        b'{"result":{"RESULT":1}}',
        Unsure(Failure("UNREADABLE_ANSWER", DOCUMENTED, 200)),
    ),
    "RESULT in letters": (
        200,
        b'{"result":{"RESULT":"true"}}',
        Unsure(Failure("UNREADABLE_ANSWER", DOCUMENTED, 200)),
    ),
    "RESULT null": (
        200,
        b'{"result":{"RESULT":null}}',
        Unsure(Failure("UNREADABLE_ANSWER", DOCUMENTED, 200)),
    ),
    "an id without RESULT": (
        200,
        b'{"result":{"CALL_ID":"c1"}}',
        Unsure(Failure("UNREADABLE_ANSWER", DOCUMENTED, 200)),
    ),
    "result true": (200, b'{"result":true}', Unsure(Failure("UNREADABLE_ANSWER", DOCUMENTED, 200))),
    "an empty map as PHP has it": (
        200,
        b'{"result":[]}',
        Unsure(Failure("UNREADABLE_ANSWER", DOCUMENTED, 200)),
    ),
    "an empty object": (200, b"{}", Unsure(Failure("UNREADABLE_ANSWER", DOCUMENTED, 200))),
    "a list": (200, b"[true]", Unsure(Failure("UNREADABLE_ANSWER", DOCUMENTED, 200))),
    "nothing": (200, b"", Unsure(Failure("UNREADABLE_ANSWER", DOCUMENTED, 200))),
    "cut off": (200, PLACED[:40], Unsure(Failure("UNREADABLE_ANSWER", DOCUMENTED, 200))),
    "a page of HTML": (
        200,
        b"<html>Bitrix24</html>",
        Unsure(Failure("UNREADABLE_ANSWER", DOCUMENTED, 200)),
    ),
    "no text at all": (200, b"\xff\xfe\x00", Unsure(Failure("UNREADABLE_ANSWER", DOCUMENTED, 200))),
    "nested too deep": (200, b"[" * 100_000, Unsure(Failure("UNREADABLE_ANSWER", DOCUMENTED, 200))),
    "204": (204, b"", Unsure(Failure("UNREADABLE_ANSWER", DOCUMENTED, 204))),
    "RESULT false of a 500": (
        500,
        b'{"result":{"RESULT":false}}',
        Unsure(Failure("HTTP_500", NO_CODE, 500)),
    ),
    "error on 200": (
        200,
        b'{"error":"NO_AUTH_FOUND","error_description":"Wrong authorization data"}',
        Refused(Failure("NO_AUTH_FOUND", "Wrong authorization data", 200), "portal"),
    ),
    "unknown error on 200": (
        200,
        b'{"error":"SOMETHING_NEW","error_description":"Who knows"}',
        Unsure(Failure("SOMETHING_NEW", "Who knows", 200)),
    ),
    "error of v3": (
        401,
        b'{"error":{"code":"NO_AUTH_FOUND","message":"Wrong authorization data","validation":[]}}',
        Refused(Failure("NO_AUTH_FOUND", "Wrong authorization data", 401), "portal"),
    ),
    "error of v3, unknown": (
        400,
        b'{"error":{"code":"BITRIX_REST_V3_EXCEPTION","message":"Bad request"}}',
        Refused(Failure("BITRIX_REST_V3_EXCEPTION", "Bad request", 400), "portal"),
    ),
    "error of v3, empty": (
        400,
        b'{"error":{}}',
        Refused(Failure("HTTP_400", NO_CODE, 400), "portal"),
    ),
    "a number for a code": (
        400,
        b'{"error":100,"error_description":"Bad"}',
        Refused(Failure("100", "Bad", 400), "portal"),
    ),
    "a number for a code, 5xx": (
        500,
        b'{"error":400,"error_description":"Bad"}',
        Unsure(Failure("400", "Bad", 500)),
    ),
    "digits for a code": (
        400,
        b'{"error":"400","error_description":"Bad"}',
        Refused(Failure("400", "Bad", 400), "portal"),
    ),
    "code 0, nothing else": (
        400,
        b'{"error":0}',
        Refused(Failure("HTTP_400", NO_CODE, 400), "portal"),
    ),
    "an unknown 4xx code": (
        418,
        b'{"error":"TEAPOT","error_description":"Short and stout"}',
        Refused(Failure("TEAPOT", "Short and stout", 418), "portal"),
    ),
    "an unknown 5xx code": (
        503,
        b'{"error":"TEAPOT","error_description":"Short and stout"}',
        Unsure(Failure("TEAPOT", "Short and stout", 503)),
    ),
    "an unknown text under ERROR_CORE": (
        400,
        b'{"error":"ERROR_CORE","error_description":"Something new"}',
        Refused(Failure("ERROR_CORE", "Something new", 400), "portal"),
    ),
    "an unknown text under ERROR_CORE, 5xx": (
        500,
        b'{"error":"ERROR_CORE","error_description":"Something new"}',
        Unsure(Failure("ERROR_CORE", "Something new", 500)),
    ),
    "ERROR_CORE and nothing else": (
        400,
        b'{"error":"ERROR_CORE"}',
        Refused(Failure("ERROR_CORE", "", 400), "portal"),
    ),
    "an unknown text, no code, and the word no": (
        200,
        b'{"error":"","error_description":"Something new","result":false}',
        Refused(Failure("RESULT_FALSE", "Something new", 200), "portal"),
    ),
    "an unknown text and no code": (
        400,
        b'{"error":"","error_description":"Something new"}',
        Refused(Failure("HTTP_400", "Something new", 400), "portal"),
    ),
    "an unknown text and no code, 5xx": (
        500,
        b'{"error":"","error_description":"Something new"}',
        Unsure(Failure("HTTP_500", "Something new", 500)),
    ),
    "a known text under another code decides nothing": (
        400,
        b'{"error":"SOMETHING_NEW","error_description":"Infocall failure"}',
        Refused(Failure("SOMETHING_NEW", "Infocall failure", 400), "portal"),
    ),
    "two refusals joined": (
        400,
        b'{"error":"","error_description":"Phone number is not correct; Something else"}',
        Refused(Failure("ERROR_CORE", "Phone number is not correct; Something else", 400)),
    ),
    "a known text comes second": (
        400,
        error_body("ERROR_CORE", "Something else;  Infocall limit for this month is exceeded"),
        Refused(
            Failure("ERROR_CORE", "Something else; Infocall limit for this month is exceeded", 400),
            "rented lines",
        ),
    ),
    "a doubt outweighs a refusal": (
        400,
        b'{"error":"","error_description":"Phone number is not correct; Infocall failure"}',
        Unsure(Failure("ERROR_CORE", "Phone number is not correct; Infocall failure", 400)),
    ),
    "a text within another": (
        400,
        b'{"error":"","error_description":"No Infocall failure"}',
        Refused(Failure("HTTP_400", "No Infocall failure", 400), "portal"),
    ),
    "a long text is cut": (
        400,
        error_body("X" * 100, "d" * 10_001),
        Refused(Failure("X" * 64, "d" * 10_000, 400), "portal"),
    ),
    "a text for one line": (
        400,
        error_body("SOME\nTHING", "one\r\n\ttwo\x00three \ud800"),
        Refused(Failure("SOME THING", "one two three", 400), "portal"),
    ),
    "a text that is none": (
        400,
        error_body("NEW", ["a"]),
        Refused(Failure("NEW", "", 400), "portal"),
    ),
}


@pytest.mark.parametrize(("status", "body", "outcome"), SHAPES.values(), ids=SHAPES)
def test_each_shape_of_an_answer_has_one_meaning(
    status: int, body: bytes, outcome: Outcome
) -> None:
    assert read_response(status, body) == outcome


# --- no error code

STATUSES: dict[str, tuple[int, Outcome]] = {
    "100": (100, Unsure(Failure("HTTP_100", NO_CODE, 100))),
    "304": (
        304,
        Refused(Failure("HTTP_304", "the portal moved: fix CALLS_BITRIX24_URL", 304), "portal"),
    ),
    "400": (400, Refused(Failure("HTTP_400", NO_CODE, 400), "portal")),
    "401": (401, Refused(Failure("HTTP_401", ASTRAY, 401), "portal")),
    "403": (403, Refused(Failure("HTTP_403", ASTRAY, 403), "portal")),
    "404": (404, Refused(Failure("HTTP_404", ASTRAY, 404), "portal")),
    "405": (405, Refused(Failure("HTTP_405", NO_CODE, 405), "portal")),
    "408": (408, Unsure(Failure("HTTP_408", NO_CODE, 408))),
    "413": (413, Refused(Failure("HTTP_413", NO_CODE, 413), "portal")),
    "418": (418, Refused(Failure("HTTP_418", NO_CODE, 418), "portal")),
    "429": (429, Unavailable(Failure("HTTP_429", NO_CODE, 429))),
    "500": (500, Unsure(Failure("HTTP_500", NO_CODE, 500))),
    "502": (502, Unsure(Failure("HTTP_502", NO_CODE, 502))),
    "503": (503, Unavailable(Failure("HTTP_503", NO_CODE, 503))),
    "504": (504, Unsure(Failure("HTTP_504", NO_CODE, 504))),
    "599": (599, Unsure(Failure("HTTP_599", NO_CODE, 599))),
}


@pytest.mark.parametrize("body", [b"", b"<h1>Sorry</h1>", b"{}", b'{"error":""}'], ids=repr)
@pytest.mark.parametrize(("status", "outcome"), STATUSES.values(), ids=STATUSES)
def test_where_there_is_no_code_the_status_decides(
    status: int, body: bytes, outcome: Outcome
) -> None:
    assert read_response(status, body) == outcome


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 503])
def test_an_unknown_text_is_no_code_so_the_status_decides(status: int) -> None:
    outcome = read_response(status, error_body("", "Something new"))

    expected = read_response(status, b"")
    assert type(outcome) is type(expected)
    assert getattr(outcome, "whose", None) == getattr(expected, "whose", None)


MOVES: dict[str, tuple[dict[str, str], str]] = {
    "with an address": (
        {"location": "https://new.bitrix24.com/rest/1/s3cr3t/voximplant.infocall.startwithtext"},
        "the portal moved to https://new.bitrix24.com: fix CALLS_BITRIX24_URL",
    ),
    "with a password and a port": (
        {"location": "https://me:s3cr3t@new.bitrix24.com:8443/rest/"},
        "the portal moved to https://new.bitrix24.com: fix CALLS_BITRIX24_URL",
    ),
    "to another path": (
        {"location": "/rest/1/s3cr3t/"},
        "the portal moved: fix CALLS_BITRIX24_URL",
    ),
    "nowhere": ({}, "the portal moved: fix CALLS_BITRIX24_URL"),
    "to nonsense": ({"location": "::::"}, "the portal moved: fix CALLS_BITRIX24_URL"),
}


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize(("headers", "description"), MOVES.values(), ids=MOVES)
def test_a_redirect_is_refused_and_says_where_to_without_the_secret(
    status: int, headers: dict[str, str], description: str
) -> None:
    outcome = read_response(status, b"", headers)

    assert outcome == Refused(Failure(f"HTTP_{status}", description, status), "portal")


def test_a_redirect_to_an_address_that_cannot_be_read_is_refused() -> None:
    outcome = read_response(302, b"", {"location": "http://[::1"})

    assert outcome == Refused(
        Failure("HTTP_302", "the portal moved: fix CALLS_BITRIX24_URL", 302), "portal"
    )


def test_a_redirect_that_bears_a_code_is_judged_by_the_code() -> None:
    body = error_body("NO_AUTH_FOUND", "Wrong authorization data")

    outcome = read_response(302, body, {"location": "https://new.bitrix24.com/"})

    assert outcome == Refused(Failure("NO_AUTH_FOUND", "Wrong authorization data", 302), "portal")


# --- how long to wait

WAITS: dict[str, tuple[Mapping[str, str], float]] = {
    "seconds": ({"retry-after": "120"}, 120.0),
    "seconds among blanks": ({"retry-after": " 7 "}, 7.0),
    "no seconds": ({"retry-after": "0"}, 0.0),
    "more than a day": ({"retry-after": "86401"}, LONGEST_RETRY_AFTER_S),
    "for ever": ({"retry-after": "9" * 50}, LONGEST_RETRY_AFTER_S),
    "a date": ({**DATE, "retry-after": "Tue, 17 Mar 2026 12:01:30 GMT"}, 90.0),
    "a date in the past": ({**DATE, "retry-after": "Tue, 17 Mar 2026 11:00:00 GMT"}, 0.0),
    "a date in a year": ({**DATE, "retry-after": "Wed, 17 Mar 2027 12:00:00 GMT"}, 86_400.0),
    "a date, nobody's clock": ({"retry-after": "Tue, 17 Mar 2026 12:01:30 GMT"}, 0.0),
    "a date, a clock of no zone": (
        {"date": "Tue, 17 Mar 2026 12:00:00 -0000", "retry-after": "Tue, 17 Mar 2026 12:01:00 GMT"},
        0.0,
    ),
    "a fraction": ({**DATE, "retry-after": "1.5"}, 0.0),
    "below 0": ({**DATE, "retry-after": "-5"}, 0.0),
    "digits of another script": ({**DATE, "retry-after": "\u0665"}, 0.0),
    "words": ({**DATE, "retry-after": "soon"}, 0.0),
    "nothing": ({**DATE, "retry-after": ""}, 0.0),
    "no header": ({}, 0.0),
}


@pytest.mark.parametrize(("headers", "wait_s"), WAITS.values(), ids=WAITS)
def test_the_portal_may_say_how_long_to_wait(headers: Mapping[str, str], wait_s: float) -> None:
    plain = read_response(503, b"", headers)
    coded = read_response(429, error_body("OPERATION_TIME_LIMIT", "Blocked"), headers)

    assert plain == Unavailable(Failure("HTTP_503", NO_CODE, 503), retry_after_s=wait_s)
    assert coded == Unavailable(
        Failure("OPERATION_TIME_LIMIT", "Blocked", 429), counts=False, retry_after_s=wait_s
    )


# --- operating time and clock

USAGES: dict[str, tuple[bytes, Usage | None]] = {
    "as documented": (PLACED, Usage(0.14156007766723633, 1773741309.0)),
    "nothing used": (b'{"time":{"operating":0,"operating_reset_at":5}}', Usage(0.0, 5.0)),
    "limiter off": (b'{"time":{"start":1,"finish":2}}', None),
    "half of it": (b'{"time":{"operating":1.5}}', None),
    "in letters": (b'{"time":{"operating":"1","operating_reset_at":"2"}}', None),
    "no time": (b'{"error":"NO_AUTH_FOUND"}', None),
    "time a list": (b'{"time":[]}', None),
    "not JSON": (b"<h1>Sorry</h1>", None),
}


@pytest.mark.parametrize(("body", "usage"), USAGES.values(), ids=USAGES)
def test_the_portal_may_say_how_much_of_its_time_is_used(body: bytes, usage: Usage | None) -> None:
    assert read_usage(body) == usage


def test_an_absurd_number_of_seconds_is_not_believed() -> None:
    digits = b"9" * 400

    assert read_usage(b'{"time":{"operating":' + digits + b',"operating_reset_at":1}}') is None


CLOCKS: dict[str, tuple[Mapping[str, str], float | None]] = {
    "Greenwich": (DATE, 1773748800.0),
    "another zone": ({"date": "Tue, 17 Mar 2026 13:00:00 +0100"}, 1773748800.0),
    "words": ({"date": "noon"}, None),
    "empty": ({"date": ""}, None),
    "an impossible day": ({"date": "Tue, 99 Mar 2026 12:00:00 GMT"}, None),
    "no header": ({}, None),
}


@pytest.mark.parametrize(("headers", "clock"), CLOCKS.values(), ids=CLOCKS)
def test_the_portals_clock_is_read_from_its_answers(
    headers: Mapping[str, str], clock: float | None
) -> None:
    assert read_clock(headers) == clock


# --- answers nobody thought of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
CODES = st.sampled_from([answer.code for answer in KNOWN_ERRORS]) | JSON
DESCRIPTIONS = st.sampled_from([answer.description for answer in KNOWN_ERRORS]) | JSON
BODIES = (
    st.binary(max_size=100)
    | JSON.map(lambda answer: json.dumps(answer).encode())
    | st.fixed_dictionaries(
        {},
        optional={
            "error": CODES | st.fixed_dictionaries({"code": CODES, "message": DESCRIPTIONS}),
            "error_description": DESCRIPTIONS,
            "result": st.fixed_dictionaries({"RESULT": JSON, "CALL_ID": JSON}) | JSON,
            "time": JSON,
        },
    ).map(lambda answer: json.dumps(answer).encode())
)
DATES = st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT"))


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"result": {"7": "Ivy &amp; Joe", "12": 5}}', {"7": "Ivy & Joe", "12": "5"}),
        (b'{"result": []}', {}),
        (b'{"result": ["a"]}', None),
        (b'{"other": {"7": "Ivy"}}', None),
        (b"<html>", None),
    ],
)
def test_names_by_their_ids(body: bytes, names: dict[str, str] | None) -> None:
    assert read_names(body) == names


@pytest.mark.parametrize("row", KNOWN_ERRORS, ids=lambda row: row.code)
def test_a_code_is_transient_where_it_says_unavailable_once(row: KnownError) -> None:
    unavailable = {each.code for each in KNOWN_ERRORS if each.outcome == "unavailable"}

    assert is_transient(row.code.swapcase()) == (row.code in unavailable)


# Brackets in an address raise, see above.
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "date", "location"]),
    st.text(alphabet=st.characters(exclude_characters="[]")) | DATES | st.integers().map(str),
)


@given(st.integers(100, 599), BODIES, HEADERS)
@settings(max_examples=200, deadline=None)
def test_no_answer_at_all_is_too_much(status: int, body: bytes, headers: Mapping[str, str]) -> None:
    outcome = read_response(status, body, headers)

    assert isinstance(outcome, Placed | Unavailable | Refused | Unsure)
    if not isinstance(outcome, Placed):
        assert outcome.failure.code
        assert len(outcome.failure.code) <= 64
        assert len(outcome.failure.description) <= 300
        assert outcome.failure.description.isprintable()
    assert read_usage(body) is None or isinstance(read_usage(body), Usage)
    assert read_clock(headers) is None or isinstance(read_clock(headers), float)

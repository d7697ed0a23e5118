"""What Bitrix24's answers mean: the table of those it is known to give, and `read_answer`. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

from consumer.decision import Outcome, Placed, Refused, Scope, Unavailable, Unsure

METHOD_PAGE = (
    "https://apidocs.bitrix24.com/api-reference/telephony/voximplant/"
    "voximplant-infocall-start-with-text.html"
)
ERRORS_PAGE = "https://apidocs.bitrix24.com/error-codes.html"
LIMITS_PAGE = "https://apidocs.bitrix24.com/limits.html"
LONGEST_DESCRIPTION = 10_000
"""Longer than any text: what quotes a request can be recognised only while it is whole."""
DEEPEST_ERROR = 8
"""How many objects and lists an error may be within."""
LONGEST_RETRY_AFTER_S = 86_400.0


Meaning = Literal["unavailable", "refused", "unsure"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer that Bitrix24 is known to give.

    Attributes:
        code: Its ``error``, compared case-insensitively.
        description: How its ``error_description`` begins; it decides only under `ERROR_CORE`.
        outcome: What it means for the call.
        whose: Whose trouble it is.
        advice: What a person should do.
        source: The vendor's page, or ours of facts where the vendor is silent.
    """

    code: str
    description: str
    outcome: Meaning
    whose: Scope
    advice: str
    source: str = ERRORS_PAGE


_NEW_WEBHOOK = (
    "Make a new inbound webhook with the scopes call and telephony, set CALLS_BITRIX24_URL."
)
_PLAN = "Renew the portal's plan or its Market subscription."
_REPORT = "The portal itself failed: see the call history; ask Bitrix24 support if it lasts."
_BUG = "Report it: the worker should not meet this answer."
_WAIT = "Nothing: it is tried again by itself."
_IN_FRONT = (
    "See who answers at CALLS_BITRIX24_URL: a proxy, a firewall or another site in front of it."
)
_UNKNOWN: Mapping[Meaning, str] = {
    "refused": "See the description, and the webhook's rights in the portal; mend that, replay.",
    "unavailable": _WAIT,
    "unsure": "See in the call history whether it rang before you replay.",
}

# Facts beyond the vendor's pages come from reading its product and its SDKs.
ANSWERS: tuple[Answer, ...] = (
    Answer(
        "ERROR_CORE",
        "Making infocall using LINK_BASE_NUMBER is not allowed",
        "refused",
        "request",
        "Name a line of your own in from_line: `call-consumer lines` lists them.",
        METHOD_PAGE,
    ),
    Answer(
        "ERROR_CORE",
        "Could not find config for number",
        "refused",
        "line",
        "Mend from_line or CALLS_DEFAULT_LINE: `call-consumer lines` lists what exists.",
        METHOD_PAGE,
    ),
    Answer(
        "ERROR_CORE",
        "Infocall limit for this month is exceeded",
        "refused",
        "rented lines",
        "Wait for the next month or raise the plan, then replay.",
        METHOD_PAGE,
    ),
    Answer(
        "ERROR_CORE",
        "Phone number is not correct",
        "refused",
        "request",
        "Correct the number upstream and publish a new request.",
        METHOD_PAGE,
    ),
    Answer(
        "ERROR_CORE",
        "Infocall failure",
        "unsure",
        "request",
        "See in the call history whether it rang before you replay.",
        METHOD_PAGE,
    ),
    Answer(
        "ACCESS_DENIED",
        "Access denied",
        "refused",
        "portal",
        "Give the webhook's owner the right Outgoing call - Execute, for any number.",
        METHOD_PAGE,
    ),
    Answer(
        "INTERNAL_SERVER_ERROR", "Internal server error", "unsure", "request", _REPORT, METHOD_PAGE
    ),
    Answer(
        "ERROR_UNEXPECTED_ANSWER",
        "Server returned an unexpected response",
        "unsure",
        "request",
        _REPORT,
        METHOD_PAGE,
    ),
    Answer("QUERY_LIMIT_EXCEEDED", "Too many requests", "unavailable", "rate", _WAIT, METHOD_PAGE),
    Answer(
        "ERROR_BATCH_METHOD_NOT_ALLOWED",
        "Method is not allowed for batch usage",
        "refused",
        "request",
        _BUG,
        METHOD_PAGE,
    ),
    Answer(
        "ERROR_BATCH_LENGTH_EXCEEDED",
        "Max batch length exceeded",
        "refused",
        "request",
        _BUG,
        METHOD_PAGE,
    ),
    Answer(
        "NO_AUTH_FOUND", "Wrong authorization data", "refused", "portal", _NEW_WEBHOOK, METHOD_PAGE
    ),
    Answer(
        "INVALID_REQUEST",
        "Https required",
        "refused",
        "portal",
        "Write CALLS_BITRIX24_URL with https.",
        METHOD_PAGE,
    ),
    Answer(
        "OVERLOAD_LIMIT",
        "REST API is blocked due to overload",
        "refused",
        "portal",
        "Ask Bitrix24 support to lift the block: it is manual.",
        METHOD_PAGE,
    ),
    Answer(
        "ACCESS_DENIED",
        "REST API is available only on commercial plans",
        "refused",
        "portal",
        _PLAN,
        METHOD_PAGE,
    ),
    Answer(
        "INVALID_CREDENTIALS",
        "Invalid request credentials",
        "refused",
        "portal",
        _NEW_WEBHOOK,
        METHOD_PAGE,
    ),
    Answer(
        "ERROR_MANIFEST_IS_NOT_AVAILABLE",
        "Manifest is not available",
        "refused",
        "portal",
        _BUG,
        METHOD_PAGE,
    ),
    Answer(
        "insufficient_scope",
        "The request requires higher privileges than provided by the webhook token",
        "refused",
        "portal",
        "Add the scopes call and telephony to the webhook.",
        METHOD_PAGE,
    ),
    Answer(
        "expired_token",
        "The access token provided has expired",
        "refused",
        "portal",
        _NEW_WEBHOOK,
        METHOD_PAGE,
    ),
    Answer(
        "user_access_error",
        "The user does not have access to the application",
        "refused",
        "portal",
        "Let the webhook's owner use the application.",
        METHOD_PAGE,
    ),
    Answer(
        "PORTAL_DELETED",
        "Portal was deleted",
        "refused",
        "portal",
        "Reopen the portal's public part, or set CALLS_BITRIX24_URL to the portal that lives.",
        METHOD_PAGE,
    ),
    Answer(
        "OPERATION_TIME_LIMIT",
        "Method is blocked due to operation time limit",
        "unavailable",
        "rate",
        _WAIT,
        LIMITS_PAGE,
    ),
    Answer(
        "CONNECTION_ERROR",
        "Error connecting to authorization server",
        "unavailable",
        "request",
        _WAIT,
    ),
    Answer(
        "invalid_token", "Unable to get application by token", "refused", "portal", _NEW_WEBHOOK
    ),
    Answer("authorization_error", "Unable to authorize user", "refused", "portal", _NEW_WEBHOOK),
    Answer("APPLICATION_NOT_FOUND", "Application not found", "refused", "portal", _NEW_WEBHOOK),
    Answer("ERROR_OAUTH", "Application not installed", "refused", "portal", _NEW_WEBHOOK),
    Answer("NOT_INSTALLED", "Application not installed", "refused", "portal", _NEW_WEBHOOK),
    Answer("PAYMENT_REQUIRED", "Payment required", "refused", "portal", _PLAN),
    Answer(
        "WRONG_AUTH_TYPE",
        "Current authorization type is denied for this method",
        "refused",
        "portal",
        _NEW_WEBHOOK,
    ),
    Answer(
        "METHOD_CONFIRM_WAITING",
        "Waiting for confirmation",
        "refused",
        "portal",
        "Let the portal's administrator confirm the method.",
    ),
    Answer(
        "METHOD_CONFIRM_DENIED",
        "Method call denied",
        "refused",
        "portal",
        "Let the portal's administrator allow the method.",
    ),
    Answer(
        "ERROR_METHOD_NOT_FOUND",
        "Method not found",
        "refused",
        "portal",
        "Install the portal's telephony module; see that CALLS_BITRIX24_URL ends in "
        "/rest/<user>/<secret>/.",
    ),
    Answer("ERROR_ARGUMENT", "Argument is wrong", "refused", "request", _BUG),
    Answer("ERROR_CORE", "SQL query error", "unsure", "request", _REPORT),
    Answer("INTERNAL_WRONG_TRANSPORT", "Wrong transport", "refused", "portal", _REPORT),
    Answer("INTERNAL_WRONG_HANDLER_CLASS", "Wrong handler class", "refused", "portal", _REPORT),
    Answer("WRONG_ENCODING", "Wrong request encoding", "unsure", "request", _REPORT),
)

_NO_CODE = "no error code"
_IS_URL_RIGHT = f"{_NO_CODE}: is CALLS_BITRIX24_URL right?"
_SAYS_NO = "the portal did not start the call"
_UNDOCUMENTED = "the answer is not as documented"
_MOVED = "the portal moved"
UNREACHABLE = "the portal could not be reached"
ANSWER_LOST = "the answer was lost"
KNOWN_WORDS = frozenset(
    {word for row in ANSWERS for word in (row.code, row.description)}
    | {_IS_URL_RIGHT, _NO_CODE, _SAYS_NO, _UNDOCUMENTED, _MOVED, UNREACHABLE, ANSWER_LOST}
)
"""What a code or a description may begin with that quotes no request: the vendor's, and ours."""

REPORTED_FAILURES = {"INTERNAL_SERVER_ERROR", "ERROR_UNEXPECTED_ANSWER"}
"""Codes by which the portal says that it failed: tried again though no history tells."""

_CLIENT_ERROR = 4  # hundred
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def read_answer(status: int, body: bytes, headers: Mapping[str, str] = _NO_HEADERS) -> Outcome:
    """Say what an HTTP answer to `voximplant.infocall.startwithtext` means.

    By error code; by description where that is `ERROR_CORE` or empty; by status only where
    there is none.

    Args:
        status: The HTTP status.
        body: The raw body.
        headers: Response headers, names in lower case.
    """
    answer = _read_object(body)
    result = answer.get("result")
    if isinstance(result, dict) and result.get("RESULT") is True:
        call_id = result.get("CALL_ID")
        return Placed(_trim(str(call_id), 255) if call_id else None)
    code, description = _error_of(answer)
    if not code and not description:
        return _by_status(status, answer, headers)
    if code.upper() in {"", "ERROR_CORE"}:
        return _by_description(status, code, description, answer, headers)
    return _by_code(status, code, description, headers)


def error_of(body: bytes) -> tuple[str, str]:
    """Return error code and description of any method's answer, empty where there are none."""
    return _error_of(_read_object(body))


def advice_for(code: str, description: str, outcome: Meaning = "refused") -> str:
    """Return what a person should do about an answer.

    Args:
        code: Its error code, or ours where it had none (``HTTP_407``).
        description: Its description.
        outcome: What it meant for the call: that decides where no table knows the code.
    """
    rows = [row for row in ANSWERS if row.code.upper() == code.upper()]
    begins = [row for row in rows if _begins(description, row)]
    if begins:
        return begins[0].advice
    if rows and code.upper() != "ERROR_CORE":
        return rows[0].advice
    if outcome == "refused" and code.upper().startswith("HTTP_"):
        return _IN_FRONT
    return _UNKNOWN[outcome]


def is_transient(code: str) -> bool:
    """Tell whether a code means that the method did not run, and may run later."""
    return any(row.code.upper() == code.upper() and row.outcome == "unavailable" for row in ANSWERS)


def _begins(description: str, row: Answer) -> bool:
    """Compare texts as the portal varies them: in case, and ``REST (API)`` for ``REST API``."""
    plain = description.lower().replace("(", "").replace(")", "")
    return plain.startswith(row.description.lower())


@dataclass(frozen=True, slots=True)
class Usage:
    """What the portal says of the time its method has run for us, over ten minutes.

    Attributes:
        operating_s: Seconds used so far.
        reset_at: When the oldest of them drop out: seconds since the epoch, by the portal's clock.

    Source: https://apidocs.bitrix24.com/limits.html
    """

    operating_s: float
    reset_at: float


_ABSURD = 1e12
"""Seconds; NaN is not below it either."""


def read_usage(body: bytes) -> Usage | None:
    """Read the use of the portal's operating limit; None where the answer does not tell."""
    time = _read_object(body).get("time")
    if not isinstance(time, dict):
        return None
    used, reset_at = time.get("operating"), time.get("operating_reset_at")
    if not (isinstance(used, int | float) and isinstance(reset_at, int | float)):
        return None
    if not (abs(used) < _ABSURD and abs(reset_at) < _ABSURD):
        return None
    return Usage(float(used), float(reset_at))


def read_clock(headers: Mapping[str, str]) -> float | None:
    """Read the portal's clock in seconds since the epoch; None where the answer does not tell."""
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _error_of(answer: Mapping[str, Any]) -> tuple[str, str]:
    """Return code and description; both may be within an object, as in v3, or in a list of them."""
    code, within = _code_and_text(answer.get("error") or answer.get("errors"), DEEPEST_ERROR)
    beside = answer.get("error_description")
    return code, _trim(beside, LONGEST_DESCRIPTION) if isinstance(beside, str) else within


def _code_and_text(error: object, levels: int) -> tuple[str, str]:
    """Read what stands where an error does; what is nearest to the surface counts."""
    match error:
        case None | bool() | 0 | "" | "0":
            return "", ""
        case str() | int() | float():
            return _trim(str(error), 64), ""
        case list() if levels:
            read = (_code_and_text(each, levels - 1) for each in error)
            return next((found for found in read if any(found)), ("", ""))
        case dict() if levels:
            fields: dict[str, Any] = error
            code = _code_and_text(fields.get("code"), 0)[0]
            texts = (fields.get(name) for name in ("message", "error_description", "description"))
            text = next((text for text in texts if isinstance(text, str)), "")
            inner = _code_and_text(fields.get("error") or fields.get("errors"), levels - 1)
            return code or inner[0], _trim(text, LONGEST_DESCRIPTION) or inner[1]
        case _:
            return "", ""


def _trim(text: str, limit: int) -> str:
    """Make a portal's text fit for a header and a log line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:limit]


def _by_code(status: int, code: str, description: str, headers: Mapping[str, str]) -> Outcome:
    rows = [row for row in ANSWERS if row.code.upper() == code.upper()]
    if not rows:
        return _unknown(status, code, description)
    begins = [row for row in rows if _begins(description, row)]
    return _outcome((begins or rows)[0], status, code, description, headers)


def _by_description(
    status: int, code: str, description: str, answer: Mapping[str, Any], headers: Mapping[str, str]
) -> Outcome:
    """Read the method's own errors: one code for all, several texts joined by ``; `` at times."""
    texts = [text.strip() for text in description.split(";")]
    rows = [
        row
        for row in ANSWERS
        if row.code == "ERROR_CORE" and any(_begins(text, row) for text in texts)
    ]
    if rows:
        doubtful = [row for row in rows if row.outcome == "unsure"]
        return _outcome((doubtful or rows)[0], status, code or "ERROR_CORE", description)
    if not code:
        return replace(_by_status(status, answer, headers), description=description)
    return _unknown(status, code, description)


def _unknown(status: int, code: str, description: str) -> Refused | Unsure:
    """Read an error that nobody knows: only a 4xx tells that the method did not run.

    It may be one request's or everybody's. Counted as everybody's, it costs a pause at worst.
    """
    if status // 100 == _CLIENT_ERROR:
        return Refused(code, description, status, "portal")
    return Unsure(code, description, status)


def _outcome(
    row: Answer, status: int, code: str, description: str, headers: Mapping[str, str] = _NO_HEADERS
) -> Outcome:
    description = description or row.description
    if row.outcome == "refused":
        return Refused(code, description, status, row.whose)
    if row.outcome == "unsure":
        return Unsure(code, description, status)
    wait_s = _retry_after_s(headers)
    return Unavailable(code, description, status, counts=row.whose != "rate", retry_after_s=wait_s)


def _by_status(
    status: int, answer: Mapping[str, Any], headers: Mapping[str, str]
) -> Unavailable | Refused | Unsure:
    code = f"HTTP_{status}"
    match status // 100, status:
        case _, 429 | 503:
            wait_s = _retry_after_s(headers)
            return Unavailable(code, _NO_CODE, status, retry_after_s=wait_s)
        case 3, _:
            text = f"{_MOVED}{_moved_to(headers)}: mend CALLS_BITRIX24_URL"
            return Refused(code, text, status, "portal")
        case _, 401 | 403 | 404:
            return Refused(code, _IS_URL_RIGHT, status, "portal")
        case 4, _ if status != HTTPStatus.REQUEST_TIMEOUT:
            return Refused(code, _NO_CODE, status, "portal")
        case 2, _ if _says_no(answer):
            return Refused("RESULT_FALSE", _SAYS_NO, status, "portal")
        case 2, _:
            return Unsure("UNREADABLE_ANSWER", _UNDOCUMENTED, status)
        case _:
            return Unsure(code, _NO_CODE, status)


def _moved_to(headers: Mapping[str, str]) -> str:
    """Name the host of a redirect, and no more: its path may hold the secret."""
    try:
        where = urlsplit(headers.get("location", ""))
        host = where.hostname
    except ValueError:
        return ""
    return f" to {where.scheme}://{host}" if host else ""


def _says_no(answer: Mapping[str, Any]) -> bool:
    result = answer.get("result")
    return result is False or (isinstance(result, dict) and result.get("RESULT") is False)


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """Read ``Retry-After``, seconds or a date, as seconds from now; 0 where it says nothing."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), LONGEST_RETRY_AFTER_S)
    try:
        then = parsedate_to_datetime(value)
        now = parsedate_to_datetime(headers["date"])
        return min(max((then - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER_S)
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0.0

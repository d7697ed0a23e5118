"""The errors that Bitrix24 is known to answer with: what each means, and what to do about it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from consumer.decision import Scope

METHOD_PAGE = (
    "https://apidocs.bitrix24.com/api-reference/telephony/voximplant/"
    "voximplant-infocall-start-with-text.html"
)
ERRORS_PAGE = "https://apidocs.bitrix24.com/error-codes.html"
LIMITS_PAGE = "https://apidocs.bitrix24.com/limits.html"

Meaning = Literal["unavailable", "refused", "unsure"]


@dataclass(frozen=True, slots=True)
class KnownError:
    """One error that Bitrix24 is known to answer with.

    Attributes:
        code: Its ``error``, compared case-insensitively.
        description: How its ``error_description`` begins; it decides only under `ERROR_CORE`.
        outcome: What it means for the call.
        scope: Whom it concerns.
        advice: What a person should do.
        source: The vendor's page, or ours of facts where the vendor is silent.
    """

    code: str
    description: str
    outcome: Meaning
    scope: Scope
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
    "refused": "See the description, and the webhook's rights in the portal; fix that, replay.",
    "unavailable": _WAIT,
    "unsure": "See in the call history whether it rang before you replay.",
}

# Facts beyond the vendor's pages come from reading its product and its SDKs.
KNOWN_ERRORS: tuple[KnownError, ...] = (
    KnownError(
        "ERROR_CORE",
        "Making infocall using LINK_BASE_NUMBER is not allowed",
        "refused",
        "line",
        "Name a line of your own in from_line: `call-consumer lines` lists them.",
        METHOD_PAGE,
    ),
    KnownError(
        "ERROR_CORE",
        "Could not find config for number",
        "refused",
        "line",
        "Fix from_line or CALLS_DEFAULT_LINE: `call-consumer lines` lists what exists.",
        METHOD_PAGE,
    ),
    KnownError(
        "ERROR_CORE",
        "Infocall limit for this month is exceeded",
        "refused",
        "rented lines",
        "Wait for the next month or raise the plan, then replay.",
        METHOD_PAGE,
    ),
    KnownError(
        "ERROR_CORE",
        "Phone number is not correct",
        "refused",
        "request",
        "Correct the number upstream and publish a new request.",
        METHOD_PAGE,
    ),
    KnownError(
        "ERROR_CORE",
        "Infocall failure",
        "unsure",
        "request",
        "See in the call history whether it rang before you replay.",
        METHOD_PAGE,
    ),
    KnownError(
        "ACCESS_DENIED",
        "Access denied",
        "refused",
        "portal",
        "Give the webhook's owner the right Outgoing call - Execute, for any number.",
        METHOD_PAGE,
    ),
    KnownError(
        "INTERNAL_SERVER_ERROR", "Internal server error", "unsure", "request", _REPORT, METHOD_PAGE
    ),
    KnownError(
        "ERROR_UNEXPECTED_ANSWER",
        "Server returned an unexpected response",
        "unsure",
        "request",
        _REPORT,
        METHOD_PAGE,
    ),
    KnownError(
        "QUERY_LIMIT_EXCEEDED", "Too many requests", "unavailable", "rate", _WAIT, METHOD_PAGE
    ),
    KnownError(
        "ERROR_BATCH_METHOD_NOT_ALLOWED",
        "Method is not allowed for batch usage",
        "refused",
        "portal",
        _BUG,
        METHOD_PAGE,
    ),
    KnownError(
        "ERROR_BATCH_LENGTH_EXCEEDED",
        "Max batch length exceeded",
        "refused",
        "portal",
        _BUG,
        METHOD_PAGE,
    ),
    KnownError(
        "NO_AUTH_FOUND", "Wrong authorization data", "refused", "portal", _NEW_WEBHOOK, METHOD_PAGE
    ),
    KnownError(
        "INVALID_REQUEST",
        "Https required",
        "refused",
        "portal",
        "Write CALLS_BITRIX24_URL with https.",
        METHOD_PAGE,
    ),
    KnownError(
        "OVERLOAD_LIMIT",
        "REST API is blocked due to overload",
        "refused",
        "portal",
        "Ask Bitrix24 support to lift the block: it is manual.",
        METHOD_PAGE,
    ),
    KnownError(
        "ACCESS_DENIED",
        "REST API is available only on commercial plans",
        "refused",
        "portal",
        _PLAN,
        METHOD_PAGE,
    ),
    KnownError(
        "INVALID_CREDENTIALS",
        "Invalid request credentials",
        "refused",
        "portal",
        _NEW_WEBHOOK,
        METHOD_PAGE,
    ),
    KnownError(
        "ERROR_MANIFEST_IS_NOT_AVAILABLE",
        "Manifest is not available",
        "refused",
        "portal",
        _BUG,
        METHOD_PAGE,
    ),
    KnownError(
        "insufficient_scope",
        "The request requires higher privileges than provided by the webhook token",
        "refused",
        "portal",
        "Add the scopes call and telephony to the webhook.",
        METHOD_PAGE,
    ),
    KnownError(
        "expired_token",
        "The access token provided has expired",
        "refused",
        "portal",
        _NEW_WEBHOOK,
        METHOD_PAGE,
    ),
    KnownError(
        "user_access_error",
        "The user does not have access to the application",
        "refused",
        "portal",
        "Let the webhook's owner use the application.",
        METHOD_PAGE,
    ),
    KnownError(
        "PORTAL_DELETED",
        "Portal was deleted",
        "refused",
        "portal",
        "Reopen the portal's public part, or set CALLS_BITRIX24_URL to the portal that lives.",
        METHOD_PAGE,
    ),
    KnownError(
        "OPERATION_TIME_LIMIT",
        "Method is blocked due to operation time limit",
        "unavailable",
        "rate",
        _WAIT,
        LIMITS_PAGE,
    ),
    KnownError(
        "CONNECTION_ERROR",
        "Error connecting to authorization server",
        "unavailable",
        "request",
        _WAIT,
    ),
    KnownError(
        "invalid_token", "Unable to get application by token", "refused", "portal", _NEW_WEBHOOK
    ),
    KnownError(
        "authorization_error", "Unable to authorize user", "refused", "portal", _NEW_WEBHOOK
    ),
    KnownError("APPLICATION_NOT_FOUND", "Application not found", "refused", "portal", _NEW_WEBHOOK),
    KnownError("ERROR_OAUTH", "Application not installed", "refused", "portal", _NEW_WEBHOOK),
    KnownError("NOT_INSTALLED", "Application not installed", "refused", "portal", _NEW_WEBHOOK),
    KnownError("PAYMENT_REQUIRED", "Payment required", "refused", "portal", _PLAN),
    KnownError(
        "WRONG_AUTH_TYPE",
        "Current authorization type is denied for this method",
        "refused",
        "portal",
        _NEW_WEBHOOK,
    ),
    KnownError(
        "METHOD_CONFIRM_WAITING",
        "Waiting for confirmation",
        "refused",
        "portal",
        "Let the portal's administrator confirm the method.",
    ),
    KnownError(
        "METHOD_CONFIRM_DENIED",
        "Method call denied",
        "refused",
        "portal",
        "Let the portal's administrator allow the method.",
    ),
    KnownError(
        "ERROR_METHOD_NOT_FOUND",
        "Method not found",
        "refused",
        "portal",
        "Install the portal's telephony module; see that CALLS_BITRIX24_URL ends in "
        "/rest/<user>/<secret>/.",
    ),
    KnownError("ERROR_ARGUMENT", "Argument is wrong", "refused", "portal", _BUG),
    KnownError("ERROR_CORE", "SQL query error", "unsure", "request", _REPORT),
    KnownError("INTERNAL_WRONG_TRANSPORT", "Wrong transport", "refused", "portal", _REPORT),
    KnownError("INTERNAL_WRONG_HANDLER_CLASS", "Wrong handler class", "refused", "portal", _REPORT),
    KnownError("WRONG_ENCODING", "Wrong request encoding", "unsure", "request", _REPORT),
)

NO_CODE = "no error code"
IS_URL_RIGHT = f"{NO_CODE}: is CALLS_BITRIX24_URL right?"
SAYS_NO = "the portal did not start the call"
UNDOCUMENTED = "the answer is not as documented"
MOVED = "the portal moved"
UNREACHABLE = "the portal could not be reached"
ANSWER_LOST = "the answer was lost"
KNOWN_WORDS = frozenset(
    {word for row in KNOWN_ERRORS for word in (row.code, row.description)}
    | {IS_URL_RIGHT, NO_CODE, SAYS_NO, UNDOCUMENTED, MOVED, UNREACHABLE, ANSWER_LOST}
)
"""What a code or a description may begin with that quotes no request: the vendor's, and ours."""

REPORTED_FAILURES = {"INTERNAL_SERVER_ERROR", "ERROR_UNEXPECTED_ANSWER"}
"""Codes by which the portal says that it failed: tried again though no history tells."""

_OURS = re.compile(r"HTTP_\d{3}|(CONNECT|READ|WRITE|REMOTE|LOCAL|PROXY)[A-Z_]{1,30}|TIMEOUT_ERROR")
_KNOWN_CODES = {row.code.upper() for row in KNOWN_ERRORS} | {
    "RESULT_FALSE",
    "UNREADABLE_ANSWER",
    "WORKER_ERROR",
}


def code_label(code: str) -> str:
    """Return *code* if it is one that we know, else ``other``: a metric must not grow for ever."""
    upper = code.upper()
    return upper if upper in _KNOWN_CODES or _OURS.fullmatch(upper) else "other"


def errors_of(code: str) -> list[KnownError]:
    """Return the rows of a code, compared case-insensitively."""
    return [row for row in KNOWN_ERRORS if row.code.upper() == code.upper()]


def advice_for(code: str, description: str, outcome: Meaning = "refused") -> str:
    """Return what a person should do about an answer.

    Args:
        code: Its error code, or ours where it had none (``HTTP_407``).
        description: Its description.
        outcome: What it meant for the call: that decides where no table knows the code.
    """
    rows = errors_of(code)
    begins = [row for row in rows if begins_as(description, row)]
    if begins:
        return begins[0].advice
    if rows and code.upper() != "ERROR_CORE":
        return rows[0].advice
    if outcome == "refused" and code.upper().startswith("HTTP_"):
        return _IN_FRONT
    return _UNKNOWN[outcome]


def is_transient(code: str) -> bool:
    """Tell whether a code means that the method did not run, and may run later."""
    return any(
        row.code.upper() == code.upper() and row.outcome == "unavailable" for row in KNOWN_ERRORS
    )


def begins_as(description: str, row: KnownError) -> bool:
    """Compare texts as the portal varies them: in case, and ``REST (API)`` for ``REST API``."""
    plain = description.lower().replace("(", "").replace(")", "")
    return plain.startswith(row.description.lower())

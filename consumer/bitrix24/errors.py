"""The errors that Bitrix24 is known to answer with: what each means, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

from consumer.decision import Scope

METHOD_PAGE = (
    "https://apidocs.bitrix24.com/api-reference/telephony/voximplant/"
    "voximplant-infocall-start-with-text.html"
)
ERRORS_PAGE = "https://apidocs.bitrix24.com/error-codes.html"
LIMITS_PAGE = "https://apidocs.bitrix24.com/limits.html"
OAUTH_PAGE = "https://apidocs.bitrix24.com/settings/oauth/index.html"

NOT_LOGGED_IN = "NOT_LOGGED_IN"
TOKENS_UNREADABLE = "TOKENS_UNREADABLE"
NO_TOKENS = "nobody has logged in yet"
OTHER_SECRET = "the stored tokens were sealed with another client secret"  # noqa: S105  # says so

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
_NEW_ACCESS = (
    "With OAuth, see that the application is installed, and run `call-consumer login`; else make "
    "a new inbound webhook, and set CALLS_BITRIX24_URL."
)
_LOGIN = "Run `call-consumer login`."
_APPLICATION = (
    "Set CALLS_OAUTH_CLIENT_ID and CALLS_OAUTH_CLIENT_SECRET as the portal shows them, then run "
    "`call-consumer login`."
)
_PLAN = "Renew the portal's plan or its Market subscription."
_REPORT = "The portal itself failed: see the call history; ask Bitrix24 support if it lasts."
_BUG = "Report it: the worker should not meet this answer."
WAIT = "Nothing: it is tried again by itself."

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
        "Replay it with --set to_number=…, or discard it and publish a new request.",
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
        "QUERY_LIMIT_EXCEEDED", "Too many requests", "unavailable", "rate", WAIT, METHOD_PAGE
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
        _NEW_ACCESS,
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
        WAIT,
        LIMITS_PAGE,
    ),
    KnownError(
        "CONNECTION_ERROR",
        "Error connecting to authorization server",
        "unavailable",
        "request",
        WAIT,
    ),
    KnownError(
        "invalid_token", "Unable to get application by token", "refused", "portal", _NEW_ACCESS
    ),
    KnownError("authorization_error", "Unable to authorize user", "refused", "portal", _NEW_ACCESS),
    KnownError("APPLICATION_NOT_FOUND", "Application not found", "refused", "portal", _NEW_ACCESS),
    KnownError("ERROR_OAUTH", "Application not installed", "refused", "portal", _NEW_ACCESS),
    KnownError("NOT_INSTALLED", "Application not installed", "refused", "portal", _NEW_ACCESS),
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
    KnownError(
        "invalid_grant", "Refresh token has expired", "refused", "login", _LOGIN, OAUTH_PAGE
    ),
    KnownError("invalid_client", "Wrong client", "refused", "login", _APPLICATION, OAUTH_PAGE),
    KnownError("wrong_client", "Wrong client", "refused", "login", _APPLICATION, OAUTH_PAGE),
    KnownError("invalid_scope", "Invalid scope", "refused", "login", _LOGIN, OAUTH_PAGE),
    KnownError(NOT_LOGGED_IN, NO_TOKENS, "refused", "login", _LOGIN, OAUTH_PAGE),
    KnownError(TOKENS_UNREADABLE, OTHER_SECRET, "refused", "login", _LOGIN, OAUTH_PAGE),
    KnownError("ERROR_CORE", "SQL query error", "unsure", "request", _REPORT),
    KnownError("INTERNAL_WRONG_TRANSPORT", "Wrong transport", "refused", "portal", _REPORT),
    KnownError("INTERNAL_WRONG_HANDLER_CLASS", "Wrong handler class", "refused", "portal", _REPORT),
    KnownError("WRONG_ENCODING", "Wrong request encoding", "unsure", "request", _REPORT),
)


REPORTED_FAILURES = {"INTERNAL_SERVER_ERROR", "ERROR_UNEXPECTED_ANSWER"}
"""Codes by which the portal says that it failed: tried again though no history tells."""

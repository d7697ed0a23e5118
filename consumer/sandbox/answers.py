"""Everything the sandbox can answer: `ANSWERS` holds each answer under its name.

Statuses, codes and texts are those of Bitrix24's error tables; where its pages and its portals
disagree, both statuses are here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from consumer.sandbox.replies import Error, Page, Reset, Result, Silence

INFOCALL = "voximplant.infocall.startwithtext"

Stage = Literal[
    # A portal does these for every method, in this order...
    "rate",
    "transport",
    "closed",
    "method",
    "auth",
    "credential",
    "scope",
    "hold",
    "plan",
    "user",
    "app",
    "operating",
    # ...and startwithtext does these by itself.
    "permission",
    "base line",
    "line",
    "allowance",
    "number",
    "controller",
]
METHOD_STAGES = {"permission", "base line", "line", "allowance", "number", "controller"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: at what stage of a request it is given, and whether a call is placed before."""

    name: str
    stage: Stage
    reply: Error | Page | Result | Reset | Silence
    places: bool = False


def _error(  # noqa: PLR0913  # one column each of a table
    stage: Stage,
    status: int,
    code: str | int,
    description: str,
    *,
    observed: int | None = None,
    name: str = "",
    places: bool = False,
) -> Answer:
    error = Error(status, code, description, observed)
    return Answer(name or str(code), stage, error, places)


def _core(stage: Stage, name: str, description: str, *, places: bool = False) -> Answer:
    return _error(stage, 400, "ERROR_CORE", description, name=name, places=places)


def _page(status: int, reason: str) -> Page:
    title = f"{status} {reason}"
    return Page(status, f"<html><head><title>{title}</title></head><body>{title}</body></html>")


_BAD_GATEWAY, _GATEWAY_TIMEOUT = _page(502, "Bad Gateway"), _page(504, "Gateway Time-out")

# startwithtext's own: the errors of its page, plus two that portals have besides.
OWN = (
    _core("base line", "base line", "Making infocall using LINK_BASE_NUMBER is not allowed"),
    _core("line", "no line", "Could not find config for number <FROM_LINE>"),
    _core("allowance", "monthly limit", "Infocall limit for this month is exceeded"),
    _core("number", "bad number", "Phone number is not correct"),
    _core("controller", "Infocall failure", "Infocall failure"),
    _error("permission", 403, "ACCESS_DENIED", "Access denied!"),
    _error("controller", 500, "ERROR_CORE", "SQL query error!", name="SQL query error!"),
)

# Those any method can have. Portals answer 401 to most of what their pages list as 400, 403 or 503.
SYSTEM = (
    _error("rate", 503, "QUERY_LIMIT_EXCEEDED", "Too many requests"),
    _error(
        "operating",
        429,
        "OPERATION_TIME_LIMIT",
        "Method is blocked due to operation time limit.",
    ),
    _error("hold", 503, "OVERLOAD_LIMIT", "REST API is blocked due to overload.", observed=401),
    _error("auth", 401, "NO_AUTH_FOUND", "Wrong authorization data"),
    _error("credential", 401, "expired_token", "The access token provided has expired."),
    _error("credential", 401, "invalid_token", "Unable to get application by token"),
    _error("credential", 403, "INVALID_CREDENTIALS", "Invalid request credentials", observed=401),
    _error("auth", 400, "INVALID_REQUEST", "Https required.", observed=401),
    _error(
        "scope",
        403,
        "insufficient_scope",
        "The request requires higher privileges than provided by the webhook token",
        observed=401,
    ),
    _error(
        "plan",
        403,
        "ACCESS_DENIED",
        "REST API is available only on commercial plans",
        observed=401,
        name="ACCESS_DENIED plan",
    ),
    _error(
        "app",
        403,
        "user_access_error",
        "The user does not have access to the application",
        observed=401,
    ),
    _error("user", 401, "authorization_error", "Unable to authorize user"),
    _error("app", 401, "APPLICATION_NOT_FOUND", "Application not found"),
    _error("app", 401, "ERROR_OAUTH", "Application not installed"),
    _error("app", 401, "NOT_INSTALLED", "Application not installed"),
    _error("plan", 401, "PAYMENT_REQUIRED", "Payment required"),
    _error("auth", 403, "WRONG_AUTH_TYPE", "Current authorization type is denied"),
    _error("app", 401, "METHOD_CONFIRM_WAITING", "Waiting for confirmation"),
    _error("app", 403, "METHOD_CONFIRM_DENIED", "Method call denied"),
    _error("method", 404, "ERROR_METHOD_NOT_FOUND", "Method not found!"),
    _error("method", 404, "ERROR_MANIFEST_IS_NOT_AVAILABLE", "Manifest is not available"),
    Answer(
        "ERROR_ARGUMENT",
        "permission",
        Error(400, "ERROR_ARGUMENT", "Argument is not correct", extra={"argument": "TO_NUMBER"}),
    ),
    _error("transport", 500, "INTERNAL_SERVER_ERROR", "Internal server error"),
    _error("transport", 500, "ERROR_UNEXPECTED_ANSWER", "Server returned an unexpected response"),
    _error("transport", 500, "INTERNAL_WRONG_TRANSPORT", "Wrong transport"),
    _error("transport", 500, "INTERNAL_WRONG_HANDLER_CLASS", "Wrong handler class"),
    _error("closed", 500, "PORTAL_DELETED", "Portal was deleted", observed=403),
    _error(
        "method", 405, "ERROR_BATCH_METHOD_NOT_ALLOWED", "Method is not allowed for batch usage"
    ),
    _error("method", 400, "ERROR_BATCH_LENGTH_EXCEEDED", "Max batch length exceeded"),
    _error("permission", 400, "NEW_CLIENT_ERROR", "A code no page lists", name="unknown 4xx"),
)

UGLY = (
    Answer("reset", "transport", Reset()),
    Answer("reset, placed", "controller", Reset(), places=True),
    Answer("silence, placed", "controller", Silence(), places=True),
    Answer("silence", "transport", Silence()),
    Answer("502 page, placed", "controller", _BAD_GATEWAY, places=True),
    Answer("502 page", "transport", _BAD_GATEWAY),
    Answer("truncated JSON, placed", "controller", Result(damage="truncated"), places=True),
    Answer("cut answer, placed", "controller", Result(damage="cut"), places=True),
    Answer("no CALL_ID, placed", "controller", Result(call_id=False), places=True),
    _error(
        "controller",
        200,
        "WRONG_ENCODING",
        "Wrong request encoding",
        name="WRONG_ENCODING, placed",
        places=True,
    ),
    _core("controller", "Infocall failure, placed", "Infocall failure", places=True),
    _error(
        "controller",
        500,
        "INTERNAL_SERVER_ERROR",
        "Internal server error",
        name="INTERNAL_SERVER_ERROR, placed",
        places=True,
    ),
    Answer("RESULT false", "controller", Result(result=False, call_id=False)),
    Answer(
        "redirect",
        "transport",
        Page(302, headers={"Location": "https://renamed.bitrix24.example/rest/"}),
    ),
    Answer("200 page, placed", "controller", _page(200, "Please wait"), places=True),
    Answer("empty 200, placed", "controller", Page(200), places=True),
    Answer("bare 503", "rate", Page(503)),
    Answer("bare 429", "rate", Page(429, headers={"Retry-After": "7"})),
    _error("permission", 400, 100, "Could not find value for parameter", name="numeric code"),
    _error("controller", 500, "NEW_SERVER_ERROR", "A code no page lists", name="unknown 5xx"),
)

PLACED = Answer("placed", "controller", Result(), places=True)
# The portal could not check the credential: the one refusal documented as transient.
TRANSIENT = _error(
    "credential", 401, "CONNECTION_ERROR", "Error connecting to authorization server"
)
TIMEOUT_PAGE = Answer("504 page, placed", "controller", _GATEWAY_TIMEOUT, places=True)

ANSWERS: dict[str, Answer] = {
    answer.name: answer for answer in (PLACED, TRANSIENT, TIMEOUT_PAGE, *OWN, *SYSTEM, *UGLY)
}

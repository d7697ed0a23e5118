"""Everything the sandbox can answer, and the phone numbers that make it do so.

`ANSWERS` holds each answer under its name, `NUMBERS` each number under its E.164 form. Statuses,
codes and texts are those of Bitrix24's error tables; where its pages and its portals disagree, both
statuses are here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

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
class Error:
    """A JSON error; *observed* is the status that portals really send, where it is another."""

    status: int
    code: str | int
    description: str
    observed: int | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """Something that is not JSON."""

    status: int
    content: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What a placed call is answered with, perhaps incomplete.

    "truncated" is half a JSON text in a whole HTTP answer, "cut" half an HTTP answer.
    """

    result: bool = True
    call_id: bool = True
    damage: Literal["truncated", "cut"] | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset and nothing is answered."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing comes for the switch `hold_s`, then the connection is reset."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: at what stage of a request it is given, and whether a call is placed before."""

    name: str
    stage: Stage
    reply: Error | Page | Result | Reset | Silence
    places: bool = False


@dataclass(frozen=True, slots=True)
class Number:
    """A number that decides the answer, the first *times* it is called (None: always)."""

    number: str
    meaning: str
    answer: Answer
    times: int | None = None


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
_OWN = (
    _core("base line", "base line", "Making infocall using LINK_BASE_NUMBER is not allowed"),
    _core("line", "no line", "Could not find config for number <FROM_LINE>"),
    _core("allowance", "monthly limit", "Infocall limit for this month is exceeded"),
    _core("number", "bad number", "Phone number is not correct"),
    _core("controller", "Infocall failure", "Infocall failure"),
    _error("permission", 403, "ACCESS_DENIED", "Access denied!"),
    _error("controller", 500, "ERROR_CORE", "SQL query error!", name="SQL query error!"),
)

# Those any method can have. Portals answer 401 to most of what their pages list as 400, 403 or 503.
_SYSTEM = (
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

_UGLY = (
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

_PLACED = Answer("placed", "controller", Result(), places=True)
# The portal could not check the credential: the one refusal documented as transient.
_TRANSIENT = _error(
    "credential", 401, "CONNECTION_ERROR", "Error connecting to authorization server"
)
_TIMEOUT_PAGE = Answer("504 page, placed", "controller", _GATEWAY_TIMEOUT, places=True)

ANSWERS: dict[str, Answer] = {
    answer.name: answer for answer in (_PLACED, _TRANSIENT, _TIMEOUT_PAGE, *_OWN, *_SYSTEM, *_UGLY)
}


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


_ROWS = (
    *(_row(100 + n, _PLACED) for n in range(10)),
    *(_row(110 + n, _TRANSIENT, n) for n in range(1, 10)),
    *(_row(120 + n, answer) for n, answer in enumerate(_OWN)),
    *(_row(130 + n, answer) for n, answer in enumerate(_SYSTEM)),
    *(_row(160 + n, answer) for n, answer in enumerate(_UGLY)),
    _row(180, ANSWERS["reset"], 1),
    _row(181, ANSWERS["reset, placed"], 1),
    _row(182, _TRANSIENT),
    _row(183, _TIMEOUT_PAGE),
)

NUMBERS: dict[str, Number] = {row.number: row for row in _ROWS}

"""Sign in and out, as a user of the broker: there are no users of our own."""

import math
import re
from secrets import compare_digest, token_urlsafe

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from consumer.operations.sign_in import NotSignedIn, signed_in
from consumer.web.sessions import Session
from consumer.web.visit import TEMPLATES, Desk, Visit, go_to, read_form

COOKIE = "call-consumer"
FORM_COOKIE = "call-consumer-form"
OURS = re.compile(r"[A-Za-z0-9_-]{43}")
"""What `token_urlsafe` makes: who may set cookies for a neighbour's name writes what he likes."""

log = structlog.get_logger(__name__)


def show_form(desk: Desk, request: Request, error: str = "", status: int = 200) -> Response:
    """Ask for name and password, in a form that is tied to this browser."""
    tied = _given(desk, request, FORM_COOKIE) or token_urlsafe()
    page = TEMPLATES.get_template("sign_in.html").render(error=error, tied=tied, session=None)
    answer = HTMLResponse(page, status)
    _set(desk, request, answer, FORM_COOKIE, tied)
    return answer


async def sign_in(desk: Desk, request: Request) -> Response:
    """Begin a session, if the broker lets this user in."""
    fields, tied = (await read_form(request)).fields, _given(desk, request, FORM_COOKIE)
    user, password, csrf = (fields.get(name, [""])[0] for name in ("user", "password", "csrf"))
    if not tied or not compare_digest(csrf.encode(), tied.encode()):
        return show_form(desk, request, "That form was too old: once more, please.", 403)
    client = desk.place.client(request.headers, request.client.host if request.client else "")
    if (wait_s := desk.attempts.begin(user=user, client=client)) > 0:
        text = f"Too many attempts: try again in {math.ceil(wait_s)} s."
        return show_form(desk, request, text, 429)
    try:
        session = Session(user, await signed_in(desk.settings, user, password))
    except NotSignedIn as error:
        log.warning("web.sign_in_refused", client=client, status=error.status)
        return show_form(desk, request, str(error), error.status)
    desk.attempts.succeeded(user=user, client=client)
    if (before := session_of(desk, request)) is not None:
        desk.sessions.end(before)
    desk.sessions.add(session)
    log.info("web.signed_in", who=session.who, client=client)
    answer = go_to("/")
    _set(desk, request, answer, FORM_COOKIE, "")
    _set(desk, request, answer, COOKIE, session.token)
    return answer


async def sign_out(visit: Visit) -> Response:
    """End the session."""
    log.info("web.signed_out", who=visit.session.who)
    visit.desk.sessions.end(visit.session)
    answer = go_to("/sign-in")
    _set(visit.desk, visit.request, answer, COOKIE, "")
    return answer


def session_of(desk: Desk, request: Request, *, used: bool = True) -> Session | None:
    """Return the session of whoever asks, if it has not ended."""
    return desk.sessions.find(_given(desk, request, COOKIE), used=used)


def _set(desk: Desk, request: Request, answer: Response, name: str, value: str) -> None:
    """Set a cookie; without a *value* the browser forgets it."""
    answer.set_cookie(
        _named(desk, request, name),
        value,
        max_age=None if value else 0,
        httponly=True,
        samesite="strict",
        secure=desk.place.is_encrypted(request.headers),
    )


def _given(desk: Desk, request: Request, name: str) -> str:
    value = request.cookies.get(_named(desk, request, name), "")
    return value if OURS.fullmatch(value) else ""


def _named(desk: Desk, request: Request, name: str) -> str:
    """Return a name that over TLS no neighbour may set: see RFC 6265bis, 4.1.3.2."""
    return f"__Host-{name}" if desk.place.is_encrypted(request.headers) else name

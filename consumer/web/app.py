"""All pages, and what happens before and after each."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.resources import files
from socket import socket

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from consumer.errors import OperatorError
from consumer.operations.forms import Form
from consumer.operations.rights import see_may_still_look
from consumer.operations.wording import in_page_words
from consumer.rabbitmq.refusals import LoginRefused
from consumer.rabbitmq.rights import NotAllowed
from consumer.web import acts, letters, live, now, sign_in
from consumer.web.guard import Guard
from consumer.web.visit import TEMPLATES, Desk, Visit, go_to, read_form

Handler = Callable[[Visit], Awaitable[Response]]
WORDS = {
    400: "That form cannot be read.",
    403: "That form was too old: go back, load the page anew, and try again.",
    404: "There is no such page, or no longer: what is shown here is kept for a while only.",
    408: "That form took too long to arrive: try again.",
    413: "That form is too large.",
    429: "Too many pages of yours are open.",
    500: "Something unexpected went wrong: see the log of the pages, and report it.",
}
PAGES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/", now.now),
    ("POST", "/pause", acts.pause),
    ("GET", "/dead-letters", letters.overview),
    ("POST", "/dead-letters", letters.look_again),
    ("POST", "/choose", letters.choose),
    ("GET", "/letters/{word}", letters.letters),
    ("GET", "/letters/{word}/{n}", letters.request),
    ("POST", "/letters/{word}/{n}", letters.request),
    ("POST", "/requests", letters.search),
    ("GET", "/requests/{word}", letters.request),
    ("POST", "/requests/{word}", letters.request),
    ("GET", "/replay/{word}", acts.prepare),
    ("POST", "/replay/{word}", acts.replay),
    ("GET", "/discard/{word}", acts.prepare),
    ("POST", "/discard/{word}", acts.discard),
    ("GET", "/confirm/{word}", acts.show),
    ("POST", "/confirm/{word}", acts.yes),
    ("GET", "/jobs/{word}", live.job),
    ("POST", "/jobs/{word}", live.stop_job),
    ("GET", "/waiting", now.waiting),
    ("POST", "/cancel", acts.cancel),
    ("GET", "/blocks", now.blocks),
    ("POST", "/blocks", acts.block),
    ("POST", "/sign-out", sign_in.sign_out),
)
LIVE: tuple[tuple[str, Handler], ...] = (
    ("/live/now", live.live(now.now_live)),
    ("/live/jobs/{word}", live.live(live.job_live)),
)

log = structlog.get_logger(__name__)


class Server(uvicorn.Server):
    """Ends all sessions before it stops: a stream to a browser would end only by force.

    Args:
        config: As uvicorn has it.
        desk: What the pages share.
    """

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self._desk = desk

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stop."""
        self._desk.sessions.end_all()
        await super().shutdown(sockets)


def build_app(desk: Desk) -> ASGIApp:
    """Serve the pages; the guard is outside of all, so that no answer goes without it."""

    async def show_form(request: Request) -> Response:
        return sign_in.show_form(desk, request)

    async def begin(request: Request) -> Response:
        return await sign_in.sign_in(desk, request)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await desk.jobs.stop_all()

    routes = [
        Route("/sign-in", show_form, methods=["GET"]),
        Route("/sign-in", begin, methods=["POST"]),
        Mount("/static", StaticFiles(directory=str(files("consumer.web") / "static"))),
    ]
    routes += [Route(path, _serve(desk, page), methods=[how]) for how, path, page in PAGES]
    routes += [Route(path, _serve(desk, page, used=False)) for path, page in LIVE]
    app = Starlette(
        routes=routes, exception_handlers={404: _missing, 405: _missing}, lifespan=lifespan
    )
    app.router.redirect_slashes = False  # it would lead to whatever the Host header names
    return Guard(app, desk.place)


async def _missing(_: Request, __: Exception) -> Response:
    page = TEMPLATES.get_template("told.html").render(
        title="Not found", kind="bad", text=WORDS[404], session=None
    )
    return HTMLResponse(page, 404)


def _serve(
    desk: Desk, page: Handler, *, used: bool = True
) -> Callable[[Request], Awaitable[Response]]:
    """Serve a page to whoever is signed in; *used* keeps the session alive."""

    async def serve(request: Request) -> Response:
        session = sign_in.session_of(desk, request, used=used)
        if session is None:
            return go_to("/sign-in")
        visit = Visit(desk, request, session, Form({}))
        try:
            if request.method == "POST":
                visit = replace(visit, form=await read_form(request))
                session.see_own(visit.form.text("csrf"))
            await see_may_still_look(session.settings)
            return await page(visit)
        except LoginRefused:
            desk.sessions.end(session)
            return go_to("/sign-in")
        except HTTPException as error:
            return visit.refusal(error.status_code, WORDS[error.status_code])
        except NotAllowed as error:
            log.warning("web.forbidden", who=session.who, reason=str(error))
            return visit.refusal(403, str(error))
        except OperatorError as error:
            return visit.refusal(409, in_page_words(str(error)))
        except Exception:
            log.exception("web.bug")
            return visit.refusal(500, WORDS[500])

    return serve

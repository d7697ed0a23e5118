"""One request of somebody who is signed in: who, the form, and the page that answers."""

import json
from asyncio import Lock, timeout
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import parse_qs

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from consumer.operations.dead_letter import masked
from consumer.operations.forms import Form
from consumer.operations.jobs import Jobs
from consumer.operations.sign_in import Attempts
from consumer.operations.survey import Survey
from consumer.operations.wording import clock, in_page_words, number
from consumer.output import escaped
from consumer.settings import Settings
from consumer.web.guard import Place
from consumer.web.sessions import Session, Sessions

MOST_BYTES = 65_536
FORM_WITHIN_S = 10.0
MOST_FIELDS = 2_000
T = TypeVar("T")


TEMPLATES = Environment(
    loader=PackageLoader("consumer.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=lambda value: escaped(value) if type(value) is str else value,
)
TEMPLATES.filters.update(
    clock=clock, number=number, masked=masked, plain=in_page_words, kind=json.dumps
)


@dataclass(frozen=True, slots=True)
class Desk:
    """What all requests share; whoever looks at dead letters holds *looking*."""

    settings: Settings
    place: Place
    sessions: Sessions
    attempts: Attempts = field(default_factory=Attempts)
    jobs: Jobs = field(default_factory=Jobs)
    looking: Lock = field(default_factory=Lock)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a session."""

    desk: Desk
    request: Request
    session: Session
    form: Form

    @property
    def settings(self) -> Settings:
        """The settings, with the broker's user that signed in."""
        return self.session.settings

    @property
    def word(self) -> str:
        """What the address names."""
        return str(self.request.path_params["word"])

    def kept(self, kind: type[T]) -> T:
        """Return what the address names.

        Raises:
            HTTPException: This session keeps nothing like that, or no longer.
        """
        found = self.session.kept.get(self.word)
        if not isinstance(found, kind):
            raise HTTPException(404)
        return found

    def page(self, name: str, **told: object) -> Response:
        """Write a page."""
        return HTMLResponse(self.write(name, **told))

    def refusal(self, status: int, text: str) -> Response:
        """Say why there is no page."""
        return HTMLResponse(self.write("told", title="Not done", kind="bad", text=text), status)

    def soon(self, survey: Survey, name: str, **told: object) -> Response:
        """Write a page about a look; the browser asks again where that is not over."""
        page = self.page(name, survey=survey, **told)
        if not survey.ready:
            page.headers["Refresh"] = "2"
        return page

    def write(self, name: str, **told: object) -> str:
        """Write a page, or a part of one."""
        shared = {"session": self.session, "jobs": self.desk.jobs, "path": self.request.url.path}
        parts = TEMPLATES.get_template("parts.html").make_module(shared)
        return TEMPLATES.get_template(f"{name}.html").render(told | shared | vars(parts))


def go_to(path: str) -> Response:
    """Send the browser on to a page of ours."""
    return RedirectResponse(path, 303)


async def read_form(request: Request) -> Form:
    """Read a form of limited size.

    Raises:
        HTTPException: It is too large, takes too long, or is no form.
    """
    body = b""
    try:
        async with timeout(FORM_WITHIN_S):
            async for part in request.stream():
                body += part
                if len(body) > MOST_BYTES:
                    raise HTTPException(413)
    except TimeoutError:
        raise HTTPException(408) from None
    try:
        return Form(parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError:
        raise HTTPException(400) from None

"""One request of somebody who is signed in: who, the form, and the page that answers."""

import json
import re
from asyncio import Lock
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import parse_qs

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from consumer.errors import OperatorError
from consumer.operations.dead_letter import masked
from consumer.operations.jobs import Jobs
from consumer.operations.survey import Survey
from consumer.output import escaped
from consumer.settings import Settings
from consumer.web.guard import Place
from consumer.web.sessions import Attempts, Session, Sessions

MOST_BYTES = 65_536
MOST_FIELDS = 2_000
LONGEST_REASON = 200
T = TypeVar("T")


class BadForm(OperatorError):
    """Raised for a form that cannot be carried out; says what to change."""


def in_page_words(text: str) -> str:
    """Say what advice for the command line says, to somebody who has a page."""
    for pattern, words in (
        (r"--set (\w+)=…", r"a new \1"),
        (r"with --set", "with a changed field"),
        (r"--set", "a changed field"),
        (r"call-consumer block remove (\S+) first", r"remove \1 under Blocks first"),
        (r": dlq show .*|`", ""),
    ):
        text = re.sub(pattern, words, text)
    return text


def clock(at: float | None) -> str:
    """Write a time in UTC, with its day where that is not today's."""
    if not at:
        return ""
    moment, now = datetime.fromtimestamp(at, UTC), datetime.now(UTC)
    return f"{moment:%H:%M:%S}" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def number(count: int | None) -> str:
    """Write a count; None is unknown."""
    return "?" if count is None else f"{count:,}"


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
    form: Mapping[str, list[str]]

    @property
    def settings(self) -> Settings:
        """The settings, with the broker's user that signed in."""
        return self.session.settings

    @property
    def word(self) -> str:
        """What the address names."""
        return str(self.request.path_params["word"])

    @property
    def reason(self) -> str:
        """Why the form is sent.

        Raises:
            BadForm: That cannot be read.
        """
        reason = self.field("reason")
        if not reason or len(reason) > LONGEST_REASON:
            raise BadForm(f"Say in a few words why, {LONGEST_REASON} characters at most")
        return reason

    @property
    def ids(self) -> list[str]:
        """The ids of the form, each once: one on a line, or one for each ticked box."""
        lines = [line.strip() for text in self.form.get("ids", []) for line in text.split("\n")]
        return list(dict.fromkeys(line for line in lines if line))

    def field(self, name: str) -> str:
        """Return what a field of the form holds, empty if nothing."""
        return self.form.get(name, [""])[0].strip()

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
        return TEMPLATES.get_template(f"{name}.html").render(told | shared)


def go_to(path: str) -> Response:
    """Send the browser on to a page of ours."""
    return RedirectResponse(path, 303)


async def read_form(request: Request) -> Mapping[str, list[str]]:
    """Read a form of limited size.

    Raises:
        HTTPException: It is too large, or no form.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise HTTPException(413)
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise HTTPException(400) from None

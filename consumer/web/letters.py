"""Dead letters in groups, a group's letters, and one request from published to completed."""

import re

import structlog
from starlette.exceptions import HTTPException
from starlette.responses import Response

from consumer.operations.choice import Choice
from consumer.operations.forms import BadForm
from consumer.operations.survey import AT_FIRST, Selection, Survey
from consumer.operations.timeline import told_of
from consumer.web.visit import Visit, go_to

OVERVIEW = "overview"

log = structlog.get_logger(__name__)


async def overview(visit: Visit) -> Response:
    """Show the groups."""
    found = visit.session.kept.get(OVERVIEW)
    if not isinstance(found, Survey) or not found.fresh:
        found = _survey(visit, AT_FIRST)
    await found.wait()
    return visit.soon(found, "groups")


async def look_again(visit: Visit) -> Response:
    """Look anew, perhaps at all."""
    _survey(visit, None if visit.form.text("all") else AT_FIRST)
    return go_to("/dead-letters")


def _survey(visit: Visit, limit: int | None) -> Survey:
    found = Survey(visit.settings, Choice(), limit, 0, visit.desk.looking)
    visit.session.keep(found, OVERVIEW)
    return found


def _select(visit: Visit, choice: Choice) -> str:
    return visit.session.keep(Selection(choice, visit.settings, visit.desk.looking))


async def choose(visit: Visit) -> Response:
    """Go on with what a form chooses: to its list, its replay or its discard."""
    if (then := visit.form.text("then")) not in {"letters", "replay", "discard"}:
        raise BadForm("Say what to do with them")
    return go_to(f"/{then}/{_select(visit, visit.form.choice(visit.settings.request_defaults))}")


async def letters(visit: Visit) -> Response:
    """List the letters of a selection."""
    selection = visit.kept(Selection)
    found = selection.shown
    await found.wait()
    return visit.soon(found, "letters", selection=selection)


async def search(visit: Visit) -> Response:
    """Look for a request by its id."""
    if not (id_ := visit.form.text("id")):
        raise BadForm("Write the id of a request")
    return go_to(f"/requests/{_select(visit, Choice(ids=frozenset([id_])))}")


def _place(visit: Visit) -> int | None:
    """Return the place in a list that the address names; None where it names no list."""
    n: str | None = visit.request.path_params.get("n")
    if n is not None and not re.fullmatch("[0-9]{1,4}", n):
        raise HTTPException(404)
    return None if n is None else int(n)


async def request(visit: Visit) -> Response:
    """Show one request: of a list, or what was searched for; a form reveals number and text."""
    selection, n = visit.kept(Selection), _place(visit)
    found, error = selection.listed(n), ""
    if n is None:
        if not await selection.shown.wait():
            return visit.soon(selection.shown, "pending")
        found, error = selection.listed(None), selection.shown.error
    elif found is None:
        raise HTTPException(404)
    id_ = found.id if found is not None else next(iter(selection.choice.ids))
    report, moments, trouble = await told_of(visit.settings, id_, found)
    revealed = visit.request.method == "POST"
    if revealed:
        log.warning("web.revealed", request_id=id_, who=visit.session.who)
    told = {"report": report, "moments": moments, "trouble": trouble or error}
    return visit.page("request", revealed=revealed, **told)

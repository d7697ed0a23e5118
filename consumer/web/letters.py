"""Dead letters in groups, a group's letters, and one request from published to completed."""

from dataclasses import dataclass, replace

import structlog
from starlette.exceptions import HTTPException
from starlette.responses import Response

from consumer.ledger import LedgerDown
from consumer.operations.choice import Choice
from consumer.operations.dead_letter import DeadLetter
from consumer.operations.filters import in_words, read_filter, read_kind
from consumer.operations.ledger_at_hand import ledger_at_hand
from consumer.operations.report import Report
from consumer.operations.reports import known_to_ledger
from consumer.operations.survey import AT_FIRST, Survey
from consumer.operations.timeline import timeline
from consumer.web.visit import BadForm, Visit, go_to

SHOWN = 200
"""Letters in a list."""
OVERVIEW = "overview"

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Selection:
    """What was chosen, and the looks for its list and for what is to be done with all of it."""

    choice: Choice
    shown: Survey | None = None
    taken: Survey | None = None

    @property
    def words(self) -> str:
        """Say what it is."""
        return in_words(self.choice)


def survey(visit: Visit, choice: Choice, limit: int | None, keep: int) -> Survey:
    """Begin a look."""
    return Survey(visit.settings, choice, limit, keep, visit.desk.looking)


async def overview(visit: Visit) -> Response:
    """Show the groups."""
    found = visit.session.kept.get(OVERVIEW)
    if not isinstance(found, Survey) or not found.fresh:
        found = survey(visit, Choice(), AT_FIRST, 0)
        visit.session.kept[OVERVIEW] = found
    await found.wait()
    return visit.soon(found, "groups")


async def look_again(visit: Visit) -> Response:
    """Look anew, perhaps at all."""
    limit = None if visit.field("all") else AT_FIRST
    visit.session.kept[OVERVIEW] = survey(visit, Choice(), limit, 0)
    return go_to("/dead-letters")


async def choose(visit: Visit) -> Response:
    """Go on with what a form chooses: to its list, its replay or its discard."""
    if (then := visit.field("then")) not in {"letters", "replay", "discard"}:
        raise BadForm("Say what to do with them")
    if visit.field("group"):
        choice = Choice(kind=read_kind(visit.field("group")))
    else:
        told = {name: visit.field(name) for name in visit.form}
        choice = read_filter(told, visit.ids, visit.settings.request_defaults)
    if choice.everything and not visit.field("all"):
        raise BadForm("Nothing is chosen: fill in a field, or tick a letter")
    return go_to(f"/{then}/{visit.session.keep(Selection(choice))}")


async def letters(visit: Visit) -> Response:
    """List the letters of a selection."""
    selection = visit.kept(Selection)
    if selection.shown is None or not selection.shown.fresh:
        selection.shown = survey(visit, selection.choice, AT_FIRST, SHOWN)
    await selection.shown.wait()
    return visit.soon(selection.shown, "letters", selection=selection)


async def search(visit: Visit) -> Response:
    """Look for a request by its id."""
    if not (id_ := visit.field("id")):
        raise BadForm("Write the id of a request")
    choice = Choice(ids=frozenset([id_]))
    selection = Selection(choice, survey(visit, choice, None, SHOWN))
    return go_to(f"/requests/{visit.session.keep(selection)}")


async def request(visit: Visit) -> Response:
    """Show one request: of a list, or what was searched for; a form reveals number and text."""
    selection, n = visit.kept(Selection), visit.request.path_params.get("n")
    if selection.shown is None or (n is not None and n >= len(selection.shown.letters)):
        raise HTTPException(404)
    if not await selection.shown.wait():
        return visit.soon(selection.shown, "pending")
    found = selection.shown.letters
    if n is not None:
        return await _show(visit, found[n].id, found[n])
    letter = max(found, key=lambda each: each.replay, default=None)
    (id_,) = selection.choice.ids
    return await _show(visit, id_, letter, selection.shown.error)


async def _show(visit: Visit, id_: str, letter: DeadLetter | None, trouble: str = "") -> Response:
    report, ended = Report(request_id=id_), None
    try:
        async with ledger_at_hand(visit.settings) as ledger:
            (report,) = await known_to_ledger(ledger, [id_])
            ended = (await ledger.completions.latest([id_])).get(id_)
    except LedgerDown as error:
        trouble = str(error)
    report = replace(report, letter=letter)
    moments, revealed = timeline(report, ended), visit.request.method == "POST"
    if revealed:
        log.warning("web.revealed", request_id=id_, who=visit.session.who)
    return visit.page("request", report=report, moments=moments, trouble=trouble, revealed=revealed)

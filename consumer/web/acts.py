"""What somebody may do here: each is asked back once, with its number, and a yes counts once."""

import math

from starlette.responses import Response

from consumer.operations import orders, proposals
from consumer.operations.controls import read_target
from consumer.operations.dead_letters import Replay
from consumer.operations.edits import FIELDS, read_edit
from consumer.operations.proposals import Proposal
from consumer.operations.survey import MOST
from consumer.web.letters import OVERVIEW, Selection, survey
from consumer.web.visit import BadForm, Visit, go_to


async def show(visit: Visit) -> Response:
    """Ask."""
    return visit.page("confirm", ask=visit.kept(Proposal))


async def yes(visit: Visit) -> Response:
    """Do it, once; what was looked at before is out of date."""
    proposal = visit.kept(Proposal)
    await proposal.allow()
    del visit.session.kept[visit.word]
    visit.session.kept.pop(OVERVIEW, None)
    for kept in visit.session.kept.values():
        if isinstance(kept, Selection):
            kept.taken = None
    if proposal.job is not None:
        return go_to(f"/jobs/{visit.desk.jobs.begin(*proposal.job)}")
    text = await proposal.act() if proposal.act is not None else ""
    return visit.page("told", title=proposal.title, kind="good", text=text)


def _ask(visit: Visit, proposal: Proposal) -> Response:
    return go_to(f"/confirm/{visit.session.keep(proposal)}")


async def prepare(visit: Visit) -> Response:
    """Show what a replay or a discard would take, and ask how, or why."""
    selection, which = visit.kept(Selection), visit.request.url.path.split("/")[1]
    if selection.taken is None or not selection.taken.fresh:
        selection.taken = survey(visit, selection.choice, MOST, MOST)
    found = selection.taken
    page = "prepare" if await found.wait() else "pending"
    return visit.soon(found, page, which=which, selection=selection, fields=FIELDS)


async def replay(visit: Visit) -> Response:
    """Ask whether to replay."""
    taken = visit.kept(Selection).taken
    told = {name: text for name in FIELDS if (text := visit.field(f"set-{name}"))}
    edits = {name: read_edit(name, text) for name, text in told.items()}
    how, letters = Replay(redial=bool(visit.field("redial")), edits=edits), taken and taken.letters
    rate, who = _rate(visit.field("rate")), visit.session.who
    return _ask(
        visit, await proposals.propose_replay(visit.settings, letters or [], how, rate, who)
    )


def _rate(text: str) -> float | None:
    try:
        rate = float(text) if text else None
    except ValueError:
        rate = math.nan
    if rate is not None and not 0 < rate < math.inf:
        raise BadForm("At most so many a second: write a number above 0, as 0.5")
    return rate


async def discard(visit: Visit) -> Response:
    """Ask whether to discard."""
    taken, who = visit.kept(Selection).taken, visit.session.who
    letters = taken.letters if taken is not None else []
    return _ask(visit, proposals.propose_discard(visit.settings, letters, visit.reason, who))


async def cancel(visit: Visit) -> Response:
    """Ask whether to take requests back."""
    who = visit.session.who
    return _ask(visit, await proposals.propose_cancel(visit.settings, visit.ids, visit.reason, who))


async def pause(visit: Visit) -> Response:
    """Ask whether to pause, or to resume."""
    if visit.field("resume"):
        return _ask(visit, await orders.propose_resume(visit.settings, visit.session.who))
    return _ask(visit, await orders.propose_pause(visit.settings, visit.reason, visit.session.who))


async def block(visit: Visit) -> Response:
    """Ask whether to block, or to remove a block."""
    settings, who = visit.settings, visit.session.who
    if id_ := visit.field("remove"):
        return _ask(visit, await orders.propose_unblock(settings, id_, who))
    target = read_target(visit.field("kind"), visit.field("value"), settings.request_defaults)
    return _ask(visit, await orders.propose_block(settings, target, visit.reason, who))

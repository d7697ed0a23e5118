"""What somebody may do here: each is asked back once, with its number, and a yes counts once."""

from starlette.responses import Response

from consumer.operations import orders, proposals
from consumer.operations.dead_letters import Replay
from consumer.operations.edits import FIELDS
from consumer.operations.proposals import Proposal
from consumer.operations.survey import Selection
from consumer.web.letters import OVERVIEW
from consumer.web.visit import Visit, go_to

ONCE = "A yes counts once. Now and Dead letters show what came of it."


async def show(visit: Visit) -> Response:
    """Ask."""
    return visit.page("confirm", ask=visit.kept(Proposal))


async def yes(visit: Visit) -> Response:
    """Do it, once; what was looked at before is out of date."""
    proposal = visit.kept(Proposal)
    await proposal.allow()
    if visit.session.kept.pop(visit.word, None) is None:  # a second click, while that was asked
        return visit.page("told", title="Answered before", kind="warn", text=ONCE)
    visit.session.kept.pop(OVERVIEW, None)
    for kept in visit.session.kept.values():
        if isinstance(kept, Selection):
            kept.stop()
    if proposal.job is not None:
        return go_to(f"/jobs/{visit.desk.jobs.begin(*proposal.job)}")
    text = await proposal.act() if proposal.act is not None else ""
    return visit.page("told", title=proposal.title, kind="good", text=text)


def _ask(visit: Visit, proposal: Proposal) -> Response:
    return go_to(f"/confirm/{visit.session.keep(proposal)}")


async def prepare(visit: Visit) -> Response:
    """Show what a replay or a discard would take, and ask how, or why."""
    selection, which = visit.kept(Selection), visit.request.url.path.split("/")[1]
    found = selection.taken
    page = "prepare" if await found.wait() else "pending"
    return visit.soon(found, page, which=which, selection=selection, fields=FIELDS)


async def replay(visit: Visit) -> Response:
    """Ask whether to replay."""
    how = Replay(redial=bool(visit.form.text("redial")), edits=visit.form.edits)
    letters, rate, who = visit.kept(Selection).letters, visit.form.rate_per_s, visit.session.who
    return _ask(visit, await proposals.propose_replay(visit.settings, letters, how, rate, who))


async def discard(visit: Visit) -> Response:
    """Ask whether to discard."""
    letters, who = visit.kept(Selection).letters, visit.session.who
    why = visit.form.reason
    return _ask(visit, proposals.propose_discard(visit.settings, letters, why, who))


async def cancel(visit: Visit) -> Response:
    """Ask whether to take requests back."""
    ids, why, who = visit.form.ids, visit.form.reason, visit.session.who
    return _ask(visit, await proposals.propose_cancel(visit.settings, ids, why, who))


async def pause(visit: Visit) -> Response:
    """Ask whether to pause, or to resume."""
    if visit.form.text("resume"):
        return _ask(visit, await orders.propose_resume(visit.settings, visit.session.who))
    why, who = visit.form.reason, visit.session.who
    return _ask(visit, await orders.propose_pause(visit.settings, why, who))


async def block(visit: Visit) -> Response:
    """Ask whether to block, or to remove a block."""
    settings, who = visit.settings, visit.session.who
    if id_ := visit.form.text("remove"):
        return _ask(visit, await orders.propose_unblock(settings, id_, who))
    target, why = visit.form.target(settings.request_defaults), visit.form.reason
    return _ask(visit, await orders.propose_block(settings, target, why, who))

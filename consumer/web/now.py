"""How things are now, what waits, what is blocked; and how to stop and go on."""

from functools import partial

import structlog
from starlette.responses import Response

from consumer.ledger.workers import roles
from consumer.operations import controls
from consumer.operations.controls import Target, existing_ledger, read_target
from consumer.operations.last_day import last_day
from consumer.operations.status import Status, status_of
from consumer.web.confirm import Ask, ask, see_may_order
from consumer.web.visit import Visit, counted, go_to

SHOWN = 200

log = structlog.get_logger(__name__)


async def _told(visit: Visit) -> dict[str, object]:
    found = await status_of(visit.settings)
    hours = [] if found.ledger_trouble else await last_day(visit.settings)
    most = max([hour.started + hour.failed for hour in hours] + [1])
    workers = list(zip(found.workers, roles(found.workers), strict=True))
    return {"now": found, "hours": hours, "most": most, "workers": workers}


async def now(visit: Visit) -> Response:
    """Show how things are."""
    return visit.page("now", **await _told(visit))


async def now_live(visit: Visit) -> str:
    """Write the part of it that changes."""
    return visit.write("now_live", **await _told(visit))


async def plan_pause(visit: Visit) -> Response:
    """Ask whether to pause, or to resume."""
    await see_may_order(visit)
    found = await status_of(visit.settings)
    workers = counted(found.workers, "worker")
    if visit.field("resume"):
        yes, lines = f"Resume the calls of {workers}", ["workers go on within two seconds"]
        question = Ask(
            title="Resume", yes=yes, back="/", lines=[*lines, _waits(found)], act=_resume
        )
    else:
        lines = [_waits(found), "none is lost", f"because: {visit.reason}"]
        act, yes = partial(_pause, reason=visit.reason), f"Pause the calls of {workers}"
        question = Ask(title="Pause all calls", yes=yes, back="/", lines=lines, act=act)
    return ask(visit, question)


def _waits(found: Status) -> str:
    return f"{found.requests or 0:,} requests wait now"


async def _pause(visit: Visit, reason: str) -> Response:
    await see_may_order(visit)
    async with existing_ledger(visit.settings) as ledger:
        done = await controls.pause(ledger, reason, visit.session.who)
    log.warning("controls.paused", by=visit.session.who, cause=reason)
    text = f"Begun before, and without an answer so far: {done.under_way}."
    return visit.page("done", title="Calls are paused", text=text)


async def _resume(visit: Visit) -> Response:
    await see_may_order(visit)
    async with existing_ledger(visit.settings) as ledger:
        await ledger.controls.resume()
    log.warning("controls.resumed", by=visit.session.who)
    return visit.page("done", title="Calls are resumed", text="Workers go on within two seconds.")


async def waiting(visit: Visit) -> Response:
    """Show what waits for a later moment."""
    async with existing_ledger(visit.settings) as ledger:
        entries = await ledger.search.next_due(SHOWN)
    return visit.page("waiting", entries=entries, now=await status_of(visit.settings))


async def blocks(visit: Visit) -> Response:
    """Show the blocks in force."""
    async with existing_ledger(visit.settings) as ledger:
        return visit.page("blocks", blocks=(await ledger.controls.read()).blocks)


async def plan_block(visit: Visit) -> Response:
    """Ask whether to block, or to remove a block."""
    await see_may_order(visit)
    if id_ := visit.field("remove"):
        title, act = f"Remove 1 block, {id_}", partial(_unblock, id_=id_)
        lines = ["what it stopped stays a dead letter, until somebody replays it"]
        return ask(visit, Ask(title=title, yes=title, back="/blocks", lines=lines, act=act))
    defaults, reason = visit.settings.request_defaults, visit.reason
    target = read_target(visit.field("kind"), visit.field("value"), defaults)
    lines = [
        _waits(await status_of(visit.settings)),
        "those that match become dead letters, and so does what comes later",
        f"because: {reason}",
    ]
    act, title = partial(_block, target=target, reason=reason), f"Block {target.words}"
    return ask(visit, Ask(title=title, yes="Add 1 block", back="/blocks", lines=lines, act=act))


async def _block(visit: Visit, target: Target, reason: str) -> Response:
    await see_may_order(visit)
    async with existing_ledger(visit.settings) as ledger:
        done = await controls.block(ledger, target, reason, visit.session.who)
    log.warning("block.added", block=done.what.id, kind=target.kind, who=visit.session.who)
    return go_to("/blocks")


async def _unblock(visit: Visit, id_: str) -> Response:
    await see_may_order(visit)
    async with existing_ledger(visit.settings) as ledger:
        removed = await controls.unblock(ledger, id_)
    if removed:
        log.warning("block.removed", block=id_, who=visit.session.who)
    return go_to("/blocks")

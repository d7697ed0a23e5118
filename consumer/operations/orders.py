"""What an operator is about to say to all workers: pause, resume, block, unblock."""

from functools import partial

import structlog

from consumer.operations import controls
from consumer.operations.controls import Target, existing_ledger
from consumer.operations.proposals import Proposal
from consumer.operations.rights import see_may_order
from consumer.operations.status import Status, status_of
from consumer.settings import Settings

log = structlog.get_logger(__name__)


async def propose_pause(settings: Settings, why: str, who: str) -> Proposal:
    """Propose to pause all calls.

    Raises:
        NotAllowed: The broker does not let this user.
    """
    await see_may_order(settings)
    found = await status_of(settings)
    return Proposal(
        title="Pause all calls",
        yes=f"Pause the calls of {_workers(found)}",
        lines=[_waits(found), "they wait until somebody resumes the calls", f"because: {why}"],
        allow=partial(see_may_order, settings),
        act=partial(_pause, settings, why, who),
    )


async def propose_resume(settings: Settings, who: str) -> Proposal:
    """Propose to let calls go on.

    Raises:
        NotAllowed: The broker does not let this user.
    """
    await see_may_order(settings)
    found = await status_of(settings)
    return Proposal(
        title="Resume all calls",
        yes=f"Resume the calls of {_workers(found)}",
        lines=[_waits(found)],
        allow=partial(see_may_order, settings),
        act=partial(_resume, settings, who),
    )


async def propose_block(settings: Settings, target: Target, why: str, who: str) -> Proposal:
    """Propose to block what has something in common.

    Raises:
        NotAllowed: The broker does not let this user.
    """
    await see_may_order(settings)
    then = "those that match become dead letters, and so does what comes later"
    return Proposal(
        title=f"Block {target.words}",
        yes="Add 1 block",
        lines=[_waits(await status_of(settings)), then, f"because: {target.masked_in(why)}"],
        allow=partial(see_may_order, settings),
        act=partial(_block, settings, target, why, who),
    )


async def propose_unblock(settings: Settings, block_id: str, who: str) -> Proposal:
    """Propose to remove a block.

    Raises:
        NotAllowed: The broker does not let this user.
    """
    await see_may_order(settings)
    return Proposal(
        title=f"Remove block {block_id}",
        yes="Remove 1 block",
        lines=["what it stopped stays a dead letter, until somebody replays it"],
        allow=partial(see_may_order, settings),
        act=partial(_unblock, settings, block_id, who),
    )


def _waits(found: Status) -> str:
    return f"{found.requests or 0:,} requests wait now"


def _workers(found: Status) -> str:
    return f"{len(found.workers)} worker{'s' if len(found.workers) != 1 else ''}"


async def _pause(settings: Settings, why: str, who: str) -> str:
    async with existing_ledger(settings) as ledger:
        done = await controls.pause(ledger, why, who)
    log.warning("controls.paused", by=who, cause=why)
    return f"Calls are paused. Begun before, and without an answer so far: {done.under_way}."


async def _resume(settings: Settings, who: str) -> str:
    async with existing_ledger(settings) as ledger:
        await ledger.controls.resume()
    log.warning("controls.resumed", by=who)
    return "Calls are resumed: workers go on within two seconds."


async def _block(settings: Settings, target: Target, why: str, who: str) -> str:
    async with existing_ledger(settings) as ledger:
        done = await controls.block(ledger, target, why, who)
    why = done.what.reason  # without the number, where that is what is blocked
    log.warning("block.added", block=done.what.id, kind=target.kind, who=who, why=why)
    return f"Block {done.what.id} is in force."


async def _unblock(settings: Settings, block_id: str, who: str) -> str:
    async with existing_ledger(settings) as ledger:
        removed = await controls.unblock(ledger, block_id)
    if removed:
        log.warning("block.removed", block=block_id, who=who)
    return f"Block {block_id} is removed." if removed else "It had been removed before."

"""What a replay would meet, asked of the broker and the ledger before it begins."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.limits.calling_hours import CallingHours
from consumer.operations.dead_letter import DeadLetter
from consumer.operations.dead_letters import Replay
from consumer.operations.pauses import blocked_at_hand, pauses_at_hand
from consumer.operations.replay_plan import Plan
from consumer.rabbitmq.connection import connect
from consumer.rabbitmq.losses import BrokerUnavailable, link_losses
from consumer.rabbitmq.topology import topology_of
from consumer.settings import Settings


async def plan_of(
    settings: Settings, letters: Sequence[DeadLetter], how: Replay, rate_per_s: float | None
) -> Plan:
    """Gather what the warnings of a replay need to know.

    Args:
        settings: Where broker and ledger are, and what the worker keeps to.
        letters: What goes back.
        how: What is changed about it.
        rate_per_s: At most so many a second; None for as fast as the portal allows.
    """
    entries = await entries_of(settings, letters) or {}
    defaults = settings.request_defaults
    plan = Plan(
        letters=letters,
        how=how,
        started=[id_ for id_, entry in entries.items() if entry.state == "started"],
        pause_after=settings.pause_after,
        speed=min(x for x in (rate_per_s, settings.rate_per_s or None, float("inf")) if x),
        begins=datetime.now().astimezone(),
        hours=CallingHours(settings.calling_hours, settings.calling_days, settings.time_zone),
        defaults=replace(defaults, line=defaults.line or "the worker's"),
        paused=await pauses_at_hand(settings),
    )
    return replace(plan, blocked=await blocked_at_hand(settings, plan.calls))


async def entries_of(settings: Settings, letters: Sequence[DeadLetter]) -> dict[str, Entry] | None:
    """Return the ledger's entries, or None where the ledger cannot be read."""
    try:
        ledger = Ledger(settings.ledger_url.get_secret_value(), settings.queue)
        try:
            if not await ledger.exists():
                return None
            await ledger.open()
            found = {letter.id: await ledger.get(letter.id) for letter in letters}
        finally:
            await ledger.close()
    except LedgerDown:
        return None
    return {id_: entry for id_, entry in found.items() if entry is not None}


async def is_taken(settings: Settings) -> bool:
    """Tell whether anybody consumes the queue of requests; yes, where that cannot be seen."""
    with suppress(BrokerUnavailable), link_losses():
        connection = await connect(settings.needed("rabbitmq_url"), "replay")
        async with connection, connection.channel() as channel:
            queue = await channel.declare_queue(topology_of(settings).requests.name, passive=True)
        return bool(queue.declaration_result.consumer_count)
    return True

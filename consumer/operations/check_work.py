"""Look at the work on the broker: who takes requests, how many wait, whether any are dead."""

from collections.abc import AsyncGenerator
from contextlib import suppress

from aio_pika.abc import AbstractConnection
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity

from consumer.operations.finding import Finding
from consumer.operations.pauses import Pauses
from consumer.rabbitmq.topology import Topology


async def check_work(
    connection: AbstractConnection, topology: Topology, paused: Pauses
) -> AsyncGenerator[Finding]:
    """Say what is going on, where there are queues."""
    requests = await _look(connection, topology.requests.name)
    dead = await _look(connection, topology.dead_letters.name)
    if requests is None or dead is None:
        return
    yield await _workers(connection, topology, *requests, paused)
    evicted = await _count(connection, topology.evicted.name)
    if letters := dead[0] + evicted:
        detail = f"{letters}, {evicted} of them evicted by a policy" if evicted else str(letters)
        yield Finding("dead letters", "warning", detail, "call-consumer dlq stats")
    else:
        yield Finding("dead letters", "ok", "none")


async def _workers(
    connection: AbstractConnection,
    topology: Topology,
    waiting: int,
    workers: int,
    paused: Pauses,
) -> Finding:
    """Say who takes requests; it is wrong where some wait, now or for a later try, for nobody."""
    delayed = sum([await _count(connection, queue.name) for queue in topology.delays.values()])
    later = f", {delayed} in delay queues" if delayed else ""
    detail = f"{workers} registered, {waiting} requests wait{later}"
    # A worker that takes no requests holds the lease all the same.
    _, running = await _look(connection, f"{topology.requests.name}.ledger") or (0, 0)
    if waiting + delayed and not workers and not running:
        by_hand = f"; {paused.words}" if paused.by_hand else ""
        text = f"{detail}, and no worker runs{by_hand}"
        return Finding("workers", "wrong", text, "call-consumer run")
    if paused.words:
        return Finding("workers", "warning", f"{paused.words}; {detail}", paused.fix)
    if workers or not waiting + delayed:
        return Finding("workers", "ok", detail)
    fix = "see the worker's log and /readyz: it is paused, or waits for something"
    return Finding("workers", "warning", f"{detail}; {running} running, not taking any", fix)


async def _count(connection: AbstractConnection, name: str) -> int:
    messages, _ = await _look(connection, name) or (0, 0)
    return messages


async def _look(connection: AbstractConnection, name: str) -> tuple[int, int] | None:
    """Count the messages of a queue and its consumers, if it is there and we may see it."""
    with suppress(ChannelNotFoundEntity, ChannelAccessRefused):
        async with connection.channel() as channel:
            found = (await channel.declare_queue(name, passive=True)).declaration_result
        return found.message_count or 0, found.consumer_count or 0
    return None

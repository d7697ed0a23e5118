"""Look what policies of the broker do to our queues.

AMQP does not tell which policies there are. Small limits show when they are met on a queue like
that of the dead letters; what takes longer is met by the workers, who write it into the ledger.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractQueue
from aio_pika.exceptions import DeliveryError
from aiormq.exceptions import ChannelAccessRefused

from consumer.ledger.workers import WorkerRow
from consumer.messages.bodies import MAX_BODY_BYTES
from consumer.operations.finding import Finding
from consumer.rabbitmq.topology import Topology

PROBES = 25
"""So high a limit is found by trying; who sets one for all queues mostly means a small one."""
LARGE_PROBES = 16
"""So many messages of the largest size fit into a megabyte."""
PROBE_EXPIRES_MS = 60_000
FIX = "take that out of the policy for our queues; OPERATING.md: A policy over our queues"


async def check_policies(
    connection: AbstractConnection, topology: Topology, workers: Sequence[WorkerRow]
) -> Finding:
    """Try on a queue of its own what no argument can withstand, and ask what workers have met."""
    met = sorted({text for worker in workers for text in worker.state.policies})
    found = [f"workers have met {', '.join(met)}"] if met else []
    well = "no small limit on the queues"
    try:
        if limits := await _tried(connection, topology):
            found.insert(0, f"one sets {', '.join(limits)}")
    except ChannelAccessRefused:
        well = "this user may not make a queue to try them on"
    return Finding("policies", "warning", "; ".join(found), FIX) if found else _well(well)


def _well(detail: str) -> Finding:
    return Finding("policies", "ok", detail)


async def _tried(connection: AbstractConnection, topology: Topology) -> list[str]:
    name = f"{topology.dead_letters.name}.check-{uuid4().hex[:8]}"
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-expires": PROBE_EXPIRES_MS}
    for argument in ("x-delivery-limit", "x-overflow"):
        arguments[argument] = topology.dead_letters.arguments[argument]
    async with connection.channel() as channel:
        queue = await channel.declare_queue(name, durable=True, arguments=arguments)
        try:
            return [limit async for limit in _limits(channel, queue)]
        finally:
            await queue.delete(if_unused=False, if_empty=False)


async def _limits(channel: AbstractChannel, queue: AbstractQueue) -> AsyncIterator[str]:
    confirmed, kept = await _fill_and_empty(channel, queue, PROBES, b"call-consumer check")
    if not kept:
        yield "message-ttl or max-length so low that nothing stays"
        return
    if confirmed < PROBES:
        yield "max-length"
    elif kept < confirmed:
        yield "max-length with overflow drop-head"
    else:
        filler = bytes(MAX_BODY_BYTES)
        confirmed, kept = await _fill_and_empty(channel, queue, LARGE_PROBES, filler)
        if kept < LARGE_PROBES:
            yield "max-length-bytes" + (" with overflow drop-head" if kept < confirmed else "")
    if (limit := await _redelivery_limit(channel, queue)) is not None:
        yield limit


async def _fill_and_empty(
    channel: AbstractChannel, queue: AbstractQueue, count: int, body: bytes
) -> tuple[int, int]:
    """Return how many messages the queue took, and how many it kept."""
    confirmed = kept = 0
    with suppress(DeliveryError):
        for _ in range(count):
            await _publish_to(channel, queue, body)
            confirmed += 1
    while await queue.get(no_ack=True, fail=False) is not None:
        kept += 1
    return confirmed, kept


async def _redelivery_limit(channel: AbstractChannel, queue: AbstractQueue) -> str | None:
    """Put one message back again and again, and see when it does not come any more."""
    with suppress(DeliveryError):
        await _publish_to(channel, queue, b"call-consumer check")
        for looks in range(PROBES):
            message = await queue.get(fail=False)
            if message is None:
                # Newer brokers can hold back what was put back; then it is still there.
                held = (await queue.purge()).message_count
                return "delayed-retry-type" if held else f"delivery-limit {looks - 1}"
            await message.reject(requeue=True)
    return None


async def _publish_to(channel: AbstractChannel, queue: AbstractQueue, body: bytes) -> None:
    message = aio_pika.Message(body, message_id=uuid4().hex)
    await channel.default_exchange.publish(message, queue.name)

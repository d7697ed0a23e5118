"""OPERATING.md's recipe for another queue argument, step by step."""

import aio_pika
from aio_pika.abc import AbstractQueue

from consumer.messages import REQUESTED
from consumer.sandbox import SandboxPortal
from tests.workbench import Bench


async def test_a_queues_arguments_are_changed_and_no_request_is_lost(
    bench: Bench, portal: SandboxPortal
) -> None:
    # Step 1: the worker is stopped, requests wait.
    asked = [await bench.ask() for _ in range(3)]
    exchange = await bench.channel.get_exchange(bench.exchange)
    old = await bench.channel.get_queue(bench.queue)

    # Step 2: a parked queue takes the old one's place.
    name = f"{bench.queue}.parked"
    bench.used.add(name)
    parked = await bench.channel.declare_queue(
        name, durable=True, arguments={"x-queue-type": "quorum"}
    )
    await parked.bind(exchange, REQUESTED)
    await old.unbind(exchange, REQUESTED)
    asked.append(await bench.ask())

    # Step 3: what the old queue holds is moved, and the queue deleted.
    await move(bench, old, parked, 3)
    await old.delete(if_unused=False, if_empty=False)

    # Step 4: the worker declares the queue anew, with what it now wants, and is stopped.
    async with bench.running():
        pass

    # Step 5: all is moved back.
    await parked.unbind(exchange, REQUESTED)
    await move(bench, parked, await bench.channel.get_queue(bench.queue), 4)
    await parked.delete(if_unused=False, if_empty=False)
    async with bench.running():
        for request_id in asked:
            assert (await bench.event(request_id)).message.type == "call.started"

    assert len(portal.calls) == 4


async def move(bench: Bench, source: AbstractQueue, target: AbstractQueue, count: int) -> None:
    """Move messages as the broker's shovel does: published as they are."""
    for moved in await bench.take(source.name, count):
        copy = aio_pika.Message(
            moved.message.body,
            headers=moved.message.headers,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await bench.channel.default_exchange.publish(copy, target.name)

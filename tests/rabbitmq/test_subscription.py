"""Messages are taken as long as nothing speaks against it, whatever becomes of the link."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aio_pika
from structlog.testing import capture_logs

if TYPE_CHECKING:
    import pytest

    from consumer.sandbox import SandboxPortal
    from tests.links import Link
    from tests.workbench import Bench


async def test_what_is_held_takes_nothing_until_the_last_reason_is_gone(
    bench: Bench, portal: SandboxPortal
) -> None:
    async with bench.running() as app:
        app.subscription.pause("one")
        app.subscription.pause("two")
        app.subscription.pause("two")
        await app.subscription.until_idle()
        request_id = await bench.ask()

        app.subscription.resume("one")
        app.subscription.resume("never held")
        assert app.subscription.paused_by == {"two"}
        assert await bench.count(bench.queue) == 1
        assert portal.calls == []

        app.subscription.resume("two")
        await bench.event(request_id)

    assert len(portal.calls) == 1


async def test_a_hold_that_is_over_at_once_changes_nothing(bench: Bench) -> None:
    async with bench.running() as app:
        for _ in range(20):
            app.subscription.pause("blink")
            app.subscription.resume("blink")
            await asyncio.sleep(0)
        await bench.event(await bench.ask())

        assert app.subscription.consuming


async def test_a_cut_link_is_restored_and_consumed_from(bench: Bench, link: Link) -> None:
    async with bench.running(rabbitmq_url=link.url) as app:
        for _ in range(3):
            link.cut()
            event = await bench.event(await bench.ask())
            assert event.message.type == "call.started"

        await bench.until(lambda: app.subscription.consuming)


async def test_a_hold_while_the_link_is_down_counts_when_it_is_back(
    bench: Bench, link: Link, portal: SandboxPortal
) -> None:
    async with bench.running(rabbitmq_url=link.url) as app:
        link.cut()
        app.subscription.pause("for a while")
        await bench.until(lambda: not app.subscription.consuming)
        request_id = await bench.ask()
        await asyncio.sleep(2.5)  # aio-pika restores within a second, and a consumer with it
        assert portal.calls == []

        app.subscription.resume("for a while")
        await bench.event(request_id)

    assert len(portal.calls) == 1


async def test_a_queue_that_is_deleted_and_declared_again_is_consumed_from(
    bench: Bench,
) -> None:
    async with bench.running(retry_delays_s=(1, 2)) as app:
        queue = await bench.channel.get_queue(bench.queue)
        arguments = app.topology.requests.arguments
        with capture_logs() as lines:
            await queue.delete(if_unused=False, if_empty=False)
            # RabbitMQ 3.10 takes a moment to tell, and tells nothing if the queue is back before:
            # a worker that is looking over its queues just then brings it back itself.
            await bench.until(
                lambda: (
                    not app.subscription.consuming
                    or any(line["event"] == "topology.declared" for line in lines)
                )
            )
        again = await bench.channel.declare_queue(bench.queue, durable=True, arguments=arguments)
        await again.bind(bench.exchange, "call.requested")

        await bench.event(await bench.ask())


async def test_what_was_not_begun_goes_back_when_the_intake_closes(
    bench: Bench, portal: SandboxPortal
) -> None:
    async with bench.running() as app:
        await app.subscription.close()
        await bench.ask()

        assert not app.subscription.consuming
    assert await bench.count(bench.queue) == 1
    assert portal.calls == []


async def test_a_listener_that_refuses_everything_neither_stops_nor_floods(
    bench: Bench, portal: SandboxPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.housekeeping.STUCK_PUBLISHING_S", 1.0)
    full = f"{bench.queue}.full"
    bench.used.add(full)
    arguments: dict[str, str | int] = {"x-max-length": 1, "x-overflow": "reject-publish"}
    listener = await bench.channel.declare_queue(full, durable=True, arguments=dict(arguments))
    await bench.channel.default_exchange.publish(aio_pika.Message(b"full"), full)
    await listener.bind(bench.exchange, "call.started")

    async with bench.running() as app:
        first = await bench.ask()
        await bench.until(lambda: "publishing" in app.subscription.paused_by)
        await app.subscription.until_idle()
        second = await bench.ask()
        repeats = len(bench.heard)
        assert await bench.count(bench.queue) == 1

        await listener.unbind(bench.exchange, "call.started")
        await bench.until(lambda: app.subscription.paused_by == set())
        await bench.event(second)

    assert repeats <= 4  # one, and one more after 1, 2, 4 s
    assert {event["event_id"] for event in bench.events_of(first)} == {bench.heard[0]["event_id"]}
    assert len(portal.calls) == 2

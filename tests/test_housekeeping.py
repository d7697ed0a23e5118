"""What is deleted on the broker under a running worker comes back, or is named."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import aio_pika
import pytest
from aio_pika.exceptions import DeliveryError
from aiormq.exceptions import ChannelNotFoundEntity
from structlog.testing import capture_logs

from consumer.housekeeping import NoConsumer, keep_running
from consumer.messages import REQUESTED
from consumer.rabbitmq.declaration import declare

if TYPE_CHECKING:
    from tests.links import Link
    from tests.workbench import Bench

UNAVAILABLE_ONCE = "+12025550111"


async def test_a_deleted_queue_of_requests_is_declared_bound_and_consumed_from_anew(
    bench: Bench,
) -> None:
    async with bench.running() as app:
        with capture_logs() as logs:
            await bench.channel.queue_delete(bench.queue)
            await bench.until(lambda: any(x["event"] == "topology.declared" for x in logs))
        await bench.until(lambda: app.subscription.consuming)

        await bench.event(await bench.ask())

    (told,) = [line for line in logs if line["event"] == "topology.declared"]
    assert told["was_missing"] == [f"queue {bench.queue}"]


@pytest.mark.parametrize("held", [False, True])
async def test_a_queue_that_is_deleted_while_the_link_is_down_is_declared_anew(
    bench: Bench, link: Link, *, held: bool
) -> None:
    async with bench.running(rabbitmq_url=link.url) as app:
        link.flows.clear()
        link.cut()
        if held:
            app.subscription.pause("for a while")
        await bench.until(lambda: not app.subscription.consuming)
        await bench.channel.queue_delete(bench.queue)
        link.flows.set()
        app.subscription.resume("for a while")

        async with asyncio.timeout(10):
            while True:
                with suppress(DeliveryError):
                    asked = await bench.ask()
                    break
        await bench.event(asked)


async def test_a_deleted_exchange_is_declared_and_bound_anew(bench: Bench) -> None:
    async with bench.running():
        with capture_logs() as logs:
            await bench.channel.exchange_delete(bench.exchange)
            await bench.until(lambda: any(x["event"] == "topology.declared" for x in logs))

        # The test's own listener was bound to the exchange that is gone.
        ears = await bench.channel.declare_queue(exclusive=True)
        await ears.bind(bench.exchange, "call.started")
        await ears.consume(bench.note)
        await bench.event(await bench.ask())


async def test_a_binding_that_was_removed_is_made_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.housekeeping.TEND_S", 0.0)
    async with bench.running():
        queue = await bench.channel.get_queue(bench.queue)
        await queue.unbind(bench.exchange, REQUESTED)
        asked = None
        async with asyncio.timeout(10):
            while asked is None:
                with suppress(DeliveryError):
                    asked = await bench.ask()

        await bench.event(asked)


async def test_the_queue_for_what_a_policy_evicts_is_declared_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.housekeeping.TEND_S", 0.0)
    name = f"{bench.queue}.dlq.evicted"
    async with bench.running():
        await bench.channel.queue_delete(name)

        async with asyncio.timeout(10), await aio_pika.connect(bench.given["rabbitmq_url"]) as link:
            while True:
                with suppress(ChannelNotFoundEntity):
                    await (await link.channel()).declare_queue(name, passive=True)
                    break
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("suffix", ["dlq", "delay.1s"])
async def test_a_queue_that_is_needed_for_an_outcome_is_declared_anew(
    bench: Bench, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.housekeeping.TEND_S", 0.5)
    async with bench.running():
        await bench.channel.queue_delete(f"{bench.queue}.{suffix}")

        number = "+12025550120" if suffix == "dlq" else UNAVAILABLE_ONCE
        await bench.event(await bench.ask(number))


async def test_what_is_missing_and_must_not_be_declared_is_named_until_it_is_back(
    bench: Bench,
) -> None:
    async with bench.running(declare=False) as app:
        with capture_logs() as logs:
            await bench.channel.queue_delete(bench.queue)
            await bench.channel.queue_delete(f"{bench.queue}.dlq")
            await bench.until(lambda: app.subscription.paused_by == {"topology"})
            await asyncio.sleep(2.5)  # two looks more
        detail = app.parts()["broker"]
        await declare(bench.given["rabbitmq_url"], app.topology)

        await bench.event(await bench.ask())
        assert app.parts()["broker"].ok

    told = [line["detail"] for line in logs if line["event"] == "worker.held"]
    assert told[-1] == (
        f"queue {bench.queue}.dlq and queue {bench.queue} are missing on the broker: declare them"
    )
    assert len(told) <= 2  # the first look may come between the two
    assert (detail.ok, detail.detail) == (False, told[-1])


async def test_a_consumer_that_the_broker_has_forgotten_is_registered_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.housekeeping.MEASURE_S", 0.5)
    async with bench.running(concurrency=1) as app:
        channel = await bench.channel.get_underlay_channel()
        await channel.queue_delete(bench.queue)  # so soon that RabbitMQ 3.10 tells nobody
        await channel.queue_declare(
            bench.queue, durable=True, arguments=app.topology.requests.arguments
        )
        await channel.queue_bind(bench.queue, bench.exchange, REQUESTED)

        for request_id in [await bench.ask() for _ in range(3)]:
            await bench.event(request_id)


async def test_a_job_that_fails_is_logged_and_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.housekeeping.RESTART_S", 0.0)
    failures: list[BaseException] = [NoConsumer("over"), asyncio.CancelledError(), KeyError("x")]

    async def job() -> None:
        raise failures.pop()

    with capture_logs() as logs, pytest.raises(NoConsumer):
        await keep_running("some", job)

    assert [line["event"] for line in logs] == ["worker.bug", "worker.bug"]
    assert {line["job"] for line in logs} == {"some"}


async def test_a_job_that_is_cancelled_ends() -> None:
    async def job() -> None:
        await asyncio.Event().wait()

    running = asyncio.create_task(keep_running("some", job))
    await asyncio.sleep(0)
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running

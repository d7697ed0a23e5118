"""Workers of one queue with different ledgers notice each other, and only one ledger dials."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import aio_pika
import pytest
from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed

from consumer import housekeeping
from consumer.app import App
from consumer.rabbitmq import lease
from consumer.rabbitmq.lease import OtherLedger, lease_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.commands import Command
    from tests.links import Link
    from tests.portals import ForeignPortal
    from tests.workbench import Bench


@asynccontextmanager
async def starting(bench: Bench, **changes: object) -> AsyncIterator[App]:
    """Start a worker that may have to wait for the lease."""
    app = App(bench.settings(**changes))
    task = asyncio.create_task(app.run())
    try:
        yield app
    finally:
        app.stop()
        await task


async def exists(bench: Bench) -> bool:
    connection = await aio_pika.connect(str(bench.given["rabbitmq_url"]))
    async with connection:
        channel = await connection.channel()
        try:
            await channel.declare_queue(f"{bench.queue}.ledger", passive=True)
        except ChannelNotFoundEntity:
            return False
    return True


async def test_a_second_ledger_dials_nothing_and_says_so(
    bench: Bench, foreign: ForeignPortal, tmp_path: Path
) -> None:
    urls = [f"sqlite:///{tmp_path}/host-{host}.db" for host in "ab"]
    async with bench.running(ledger_url=urls[0], bitrix24_url=foreign.url) as first:
        foreign.may_answer.clear()
        await bench.ask("+12025550101")
        await foreign.arrived.wait()
        async with starting(bench, ledger_url=urls[1], bitrix24_url=foreign.url) as second:
            await bench.until(lambda: not second.parts()["ledger"].ok)
            detail = second.parts()["ledger"].detail
            assert first.subscription.connection is not None
            await first.subscription.connection.close()  # it loses its link in mid-call
            await asyncio.sleep(2.5)  # two tries of the second to take the lease

            assert not second.subscription.consuming
            assert foreign.dialled("+12025550101") == 1
        foreign.may_answer.set()

    assert "uses another ledger" in detail
    assert "CALLS_LEDGER_URL" in detail


async def test_workers_with_one_ledger_share_the_lease(bench: Bench) -> None:
    async with bench.running() as first:
        async with bench.running() as second:
            assert first.subscription.consuming
            assert second.subscription.consuming

        assert await exists(bench)
        await bench.event(await bench.ask())

    assert not await exists(bench)


async def test_an_orderly_stop_makes_way_for_another_ledger_at_once(bench: Bench) -> None:
    for _ in range(2):
        async with bench.running(ledger_url="sqlite://"):
            await bench.event(await bench.ask())


async def test_who_died_without_order_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 2.0)
    left = lease_queue(bench.queue, "another")
    await bench.channel.declare_queue(left.name, durable=True, arguments=left.arguments)

    async with starting(bench) as app:
        await bench.until(lambda: not app.parts()["ledger"].ok)

        await bench.until(lambda: app.subscription.consuming)


async def test_what_another_ledgers_worker_had_in_hand_is_in_doubt(
    bench: Bench, foreign: ForeignPortal, call_consumer: Callable[..., Command], tmp_path: Path
) -> None:
    given = bench.given | {"bitrix24_url": foreign.url, "retry_delays_s": "1,2"}
    foreign.may_answer.clear()
    killed = call_consumer("run", **given | {"ledger_url": f"sqlite:///{tmp_path}/killed.db"})
    request_id = await bench.ask("+12025550101")
    await foreign.arrived.wait()
    async with starting(bench, bitrix24_url=foreign.url) as app:
        await bench.until(lambda: not app.parts()["ledger"].ok)
        killed.process.kill()
        await bench.channel.queue_delete(f"{bench.queue}.ledger")  # rather than wait for its end

        failed = await bench.event(request_id)

    assert (failed["reason"], failed["code"]) == ("unsure", "LEDGER_LOST")
    assert foreign.dialled("+12025550101") == 1


async def test_a_lost_link_does_not_lose_the_lease(bench: Bench, link: Link) -> None:
    async with bench.running(rabbitmq_url=link.url) as first:
        link.cut()
        async with starting(bench, ledger_url="sqlite://") as second:
            await bench.until(lambda: not second.parts()["ledger"].ok)
            await bench.until(lambda: first.subscription.consuming)

            await bench.event(await bench.ask())
            assert not second.subscription.consuming


async def test_who_loses_the_lease_to_another_takes_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "TEND_S", 0.1)
    other = lease_queue(bench.queue, "another")
    bench.used.add(other.name)
    async with bench.running() as app:
        await bench.channel.queue_delete(other.name)
        await take_over(bench, app)

        await bench.until(
            lambda: app.subscription.paused_by == {"lease"} and not app.subscription.consuming
        )
        assert "uses another ledger" in app.parts()["ledger"].detail
        await bench.channel.queue_delete(other.name)
        await bench.event(await bench.ask())


async def take_over(bench: Bench, app: App) -> None:
    """Take the lease for another ledger, in as many tries as that needs."""
    other = lease_queue(bench.queue, "another")
    async with asyncio.timeout(10), await aio_pika.connect(bench.given["rabbitmq_url"]) as again:
        while "lease" not in app.subscription.paused_by:
            channel = await again.channel()
            with suppress(ChannelPreconditionFailed):
                await channel.queue_delete(other.name)
                await channel.declare_queue(other.name, durable=True, arguments=other.arguments)
            await asyncio.sleep(1.2)


async def test_a_lease_that_cannot_be_renewed_is_no_right_to_dial(
    bench: Bench, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.running(rabbitmq_url=link.url) as app:
        monkeypatch.setattr(lease, "VALID_S", 0.0)

        await bench.until(lambda: "lease" in app.subscription.paused_by)

        monkeypatch.setattr(lease, "VALID_S", 90.0)
        await bench.event(await bench.ask())


async def test_for_scripts_another_ledger_is_an_error(bench: Bench) -> None:
    async with bench.running():
        with pytest.raises(OtherLedger, match="give all workers of the queue the same"):
            await App(bench.settings(ledger_url="sqlite://")).run(wait_s=0)


async def test_what_a_stranger_publishes_to_the_lease_does_no_harm(bench: Bench) -> None:
    async with bench.running():
        await bench.channel.default_exchange.publish(
            aio_pika.Message(b"?"), f"{bench.queue}.ledger"
        )
        await bench.event(await bench.ask())

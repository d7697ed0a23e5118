"""Links, brokers and listeners that fail for a while."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aio_pika

from consumer.rabbitmq.declaration import declare
from tests.faults.account import Row
from tests.faults.bench import Bench
from tests.faults.life import NEVER
from tests.faults.stage import Stage
from tests.faults.traffic import CONCURRENCY

BACK_WITHIN_S = 10.0
REDECLARED_WITHIN_S = 15.0
EXIT_WITHIN_S = 60.0
NOTICED_S = 0.3
"""How long what was begun before a fault may still reach the portal."""
PACE = {"rate_per_s": 10, "burst": 1}


async def the_brokers_link_cut_in_mid_call(stage: Stage) -> list[Row]:
    cuts, longest_s = stage.times(100, 10), 0.0
    async with stage.bench("cut") as bench:
        await bench.start_trusted()
        bench.portal_link.delay_s = 0.4
        for _ in range(cuts):
            placed = len(bench.portal.calls)
            ids = await bench.publish(3)
            await bench.called(placed + 1)
            bench.home.broker.cut()
            begun = time.monotonic()
            await bench.told(ids, 60)
            longest_s = max(longest_s, time.monotonic() - begun)
        await bench.settled()
        await bench.close_books()
        for request_id in bench.ids:
            told = [event.confirmed_by for event in bench.finals(request_id)]
            if not {"answer", "ledger"}.issuperset(told):
                bench.wrong.append(f"{request_id}: its answer was not kept: {told}")
            if len(told) > 3:
                bench.wrong.append(f"{request_id} circles: {len(told)} events")
        return [bench.row("broker's link cut in mid-call", cuts, longest_s, bar_s=BACK_WITHIN_S)]


Fault = Callable[[Bench], AbstractAsyncContextManager[None]]


async def outage(
    bench: Bench, fault: str, lasts_s: float, during: Fault, most_calls: int = CONCURRENCY
) -> Row:
    """Let a fault last under load; nothing is placed beyond what was in flight."""
    await bench.start_trusted(PACE)
    await bench.publish(int(PACE["rate_per_s"] * (lasts_s + 6)))
    placed = len(bench.portal.calls)
    await bench.called(placed + 10)
    async with during(bench):
        begun = time.time()
        await asyncio.sleep(lasts_s)
        calls = bench.portal.calls_between(begun + NOTICED_S, time.time())
    recovery_s = await bench.beyond_what_was_in_flight()
    await bench.settled()
    await bench.close_books()
    row = bench.row(fault, 1, recovery_s, bar_s=BACK_WITHIN_S)
    if calls > most_calls:
        row.wrong.append(f"{calls} calls were placed meanwhile")
    return row


async def the_brokers_link_frozen(stage: Stage) -> list[Row]:
    @asynccontextmanager
    async def frozen(bench: Bench) -> AsyncIterator[None]:
        bench.home.broker.freeze()
        yield
        bench.home.broker.thaw()

    lasts_s = stage.times(30, 8)
    async with stage.bench("frozen") as bench:
        return [await outage(bench, f"broker's link frozen {lasts_s} s", lasts_s, frozen)]


async def the_portals_link_frozen(stage: Stage) -> list[Row]:
    """What is in flight then is in doubt, and is looked up as soon as the portal answers again."""

    @asynccontextmanager
    async def frozen(bench: Bench) -> AsyncIterator[None]:
        bench.portal_link.freeze()
        yield
        bench.portal_link.thaw()

    lasts_s = stage.times(30, 8)
    async with stage.bench("deaf") as bench:
        return [await outage(bench, f"portal's link frozen {lasts_s} s", lasts_s, frozen)]


async def a_memory_alarm(stage: Stage) -> list[Row]:
    @asynccontextmanager
    async def alarm(bench: Bench) -> AsyncIterator[None]:
        watermark = "set_vm_memory_high_watermark"
        await asyncio.to_thread(bench.node.ctl, watermark, "absolute", "1MB")
        await asyncio.sleep(1)  # it is checked once a second
        yield
        await asyncio.to_thread(bench.node.ctl, watermark, "0.4")

    lasts_s = stage.times(30, 8)
    async with stage.own_node() as node, stage.bench("alarm", node) as bench:
        return [await outage(bench, f"memory alarm {lasts_s} s", lasts_s, alarm)]


async def a_listener_that_rejects(stage: Stage) -> list[Row]:
    @asynccontextmanager
    async def rejecting(bench: Bench) -> AsyncIterator[None]:
        name = f"{bench.name}.rejecting"
        async with await aio_pika.connect(bench.node.url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(
                name,
                durable=True,
                arguments={"x-max-length": 1, "x-overflow": "reject-publish"},
            )
            await queue.bind(bench.topology.exchange, "call.started")
            yield
            await queue.delete(if_unused=False, if_empty=False)

    lasts_s = stage.times(30, 8)
    async with stage.bench("rejecting") as bench:
        return [await outage(bench, f"one listener rejects for {lasts_s} s", lasts_s, rejecting)]


async def the_queue_deleted(stage: Stage) -> list[Row]:
    rows = [await _deleted(stage, "queue deleted and declared again", _redeclared)]
    if stage.full:
        rows.append(await _deleted(stage, "queue deleted and left so", _restarted))
    return rows


async def _deleted(stage: Stage, fault: str, then: Callable[[Bench], Awaitable[None]]) -> Row:
    times, longest_s = stage.times(3, 1), 0.0
    async with stage.bench("deleted") as bench:
        await bench.start_trusted()
        bench.portal_link.delay_s = 1.0  # so that one call is in the air
        for _ in range(times):
            placed = len(bench.portal.calls)
            await bench.publish()
            await bench.called(placed + 1)
            async with await aio_pika.connect(bench.node.url) as connection:
                channel = await connection.channel()
                queue = await channel.get_queue(bench.topology.requests.name, ensure=False)
                await queue.delete(if_unused=False, if_empty=False)
            await then(bench)
            longest_s = max(longest_s, await bench.going_on(EXIT_WITHIN_S + REDECLARED_WITHIN_S))
        await bench.settled()
        await bench.close_books()
        return bench.row(fault, times, longest_s, bar_s=REDECLARED_WITHIN_S)


async def _redeclared(bench: Bench) -> None:
    await asyncio.sleep(1)
    await declare(bench.node.url, bench.topology)


async def _restarted(bench: Bench) -> None:
    """Expect the worker to end, and start it as its platform would: it declares the queue."""
    worker = bench.workers[-1]
    code = await worker.ended(EXIT_WITHIN_S + REDECLARED_WITHIN_S)
    if code != 1:
        bench.wrong.append(f"without its queue the worker came to {code}, not to exit 1")
    await bench.start()
    await bench.consuming()


async def connections_closed_by_an_operator(stage: Stage) -> list[Row]:
    times, longest_s = stage.times(10, 2), 0.0
    async with stage.own_node() as node, stage.bench("closed", node) as bench:
        await bench.start_trusted()
        bench.portal_link.delay_s = 0.4
        for _ in range(times):
            await bench.publish(10)
            await asyncio.to_thread(node.ctl, "close_all_connections", "by an operator")
            longest_s = max(longest_s, await bench.going_on())
        await bench.settled()
        await bench.close_books()
        fault = "connections closed by an operator"
        return [bench.row(fault, times, longest_s or NEVER, bar_s=BACK_WITHIN_S)]

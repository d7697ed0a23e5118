"""Links, brokers and disks that fail for a while."""

import asyncio
import contextlib
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aio_pika

from consumer.topology import declare
from tests.faults.bench import CONCURRENCY, NEVER, Bench, Row, Stage

BACK_WITHIN_S = 10.0
REDECLARED_WITHIN_S = 15.0
EXIT_WITHIN_S = 60.0
NOTICED_S = 0.3
"""How long what was begun before a fault may still reach the portal."""
PACE = {"rate_per_s": 10, "burst": 1}
MEGABYTES = 16
"""SQLite's log of changes alone may come to 4 before they are moved to the file."""


async def the_brokers_link_cut_in_mid_call(stage: Stage) -> list[Row]:
    cuts, longest_s = stage.times(100, 10), 0.0
    async with stage.bench("cut") as bench:
        await bench.start_trusted()
        bench.portal_link.delay_s = 0.4
        for _ in range(cuts):
            placed = len(bench.portal.calls)
            ids = await bench.publish(3)
            await bench.called(placed + 1)
            bench.broker_link.cut()
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


async def _outage(
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
        calls = bench.calls_between(begun + NOTICED_S, time.time())
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
        bench.broker_link.freeze()
        yield
        bench.broker_link.thaw()

    lasts_s = stage.times(30, 8)
    async with stage.bench("frozen") as bench:
        return [await _outage(bench, f"broker's link frozen {lasts_s} s", lasts_s, frozen)]


async def the_portals_link_frozen(stage: Stage) -> list[Row]:
    """What is in flight then is in doubt, and is looked up as soon as the portal answers again."""

    @asynccontextmanager
    async def frozen(bench: Bench) -> AsyncIterator[None]:
        bench.portal_link.freeze()
        yield
        bench.portal_link.thaw()

    lasts_s = stage.times(30, 8)
    async with stage.bench("deaf") as bench:
        return [await _outage(bench, f"portal's link frozen {lasts_s} s", lasts_s, frozen)]


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
        return [await _outage(bench, f"memory alarm {lasts_s} s", lasts_s, alarm)]


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
        return [await _outage(bench, f"one listener rejects for {lasts_s} s", lasts_s, rejecting)]


async def the_ledger_locked(stage: Stage) -> list[Row]:
    @asynccontextmanager
    async def locked(bench: Bench) -> AsyncIterator[None]:
        with contextlib.closing(sqlite3.connect(bench.ledger, isolation_level=None)) as other:
            await _locked(other)
            yield
            other.execute("ROLLBACK")

    lasts_s = stage.times(20, 12)
    async with stage.bench("locked") as bench:
        fault = f"ledger locked by another {lasts_s} s"
        return [await _outage(bench, fault, lasts_s, locked, most_calls=0)]


async def _locked(other: sqlite3.Connection) -> None:
    for _ in range(1000):
        with contextlib.suppress(sqlite3.OperationalError):
            other.execute("BEGIN EXCLUSIVE")
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the ledger could not be locked")


async def the_ledgers_disk_full(stage: Stage) -> list[Row]:
    @asynccontextmanager
    async def full(bench: Bench) -> AsyncIterator[None]:
        filler = bench.ledger.with_name("filler")
        with filler.open("wb", buffering=0) as out, contextlib.suppress(OSError):
            while out.write(b"x" * 512):
                pass
        yield
        bench.wrong += _unclaimed(bench)
        filler.unlink()

    lasts_s = stage.times(20, 5)
    fault = f"ledger's disk full {lasts_s} s"
    with contextlib.ExitStack() as stack:
        disk = _small_disk(stack)
        if disk is None:
            return [Row(f"{fault} (left out: no right to mount one)", 0, 0, 0, 0, 0, None)]
        async with stage.bench("full", ledger_in=disk) as bench:
            return [await _outage(bench, fault, lasts_s, full, most_calls=1_000_000)]


def _unclaimed(bench: Bench) -> list[str]:
    """Return the calls of which the ledger knows nothing."""
    with contextlib.closing(sqlite3.connect(bench.ledger)) as other:
        claimed = {row[0] for row in other.execute("SELECT request_id FROM calls")}
    called = {call.text.removeprefix("Request ").removesuffix(".") for call in bench.portal.calls}
    return [f"called without a claim: {called - claimed}"] if called - claimed else []


def _small_disk(stack: contextlib.ExitStack) -> Path | None:
    import tempfile  # noqa: PLC0415

    folder = Path(tempfile.mkdtemp(prefix="disk-"))
    stack.callback(folder.rmdir)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "call-consumer", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    stack.callback(subprocess.run, ["umount", str(folder)], check=True)
    return folder


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

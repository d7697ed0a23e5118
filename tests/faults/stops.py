"""Workers that are told to stop: under load, on their way to a call, without a broker."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import product

from tests.faults.account import Row
from tests.faults.bench import DRAIN_S, Bench
from tests.faults.life import NEVER, Worker
from tests.faults.stage import Stage
from tests.faults.traffic import CONCURRENCY

STOPPED_WITHIN_S = 5.0
CALL_S = 0.5
"""How long the portal takes to answer."""
SLOW_LEDGER_S = 1.0
ON_THE_WAY_S = 0.1
"""How long a request sent before the signal may be on its way to the portal."""


async def told_to_stop_under_load(stage: Stage) -> list[Row]:
    times, longest_s = stage.times(30, 3), 0.0
    async with stage.bench("stopped") as bench:
        await bench.start_trusted()
        await bench.stop_all()
        bench.portal_link.delay_s = 0.3
        for _ in range(times):
            await bench.publish(20)
            worker, placed = await bench.start(), len(bench.portal.calls)
            await bench.called(placed + 3)
            await asyncio.sleep(bench.rng.uniform(0, 0.3))
            longest_s = max(longest_s, await _stopped(bench, worker))
        await bench.start()
        await bench.settled()
        await bench.close_books()
        _expect_all_recorded(bench)
        fault = "SIGTERM under load (recovery: until the exit)"
        return [bench.row(fault, times, longest_s or NEVER, bar_s=DRAIN_S + 1)]


async def _stopped(bench: Bench, worker: Worker) -> float:
    """Tell a worker to stop; return how many seconds it took to end."""
    begun = time.monotonic()
    code = await worker.terminated(DRAIN_S + 10)
    took_s = time.monotonic() - begun
    if code != 0:
        bench.wrong.append(f"exit {code} on SIGTERM")
    with suppress(ProcessLookupError):
        worker.send(signal.SIGKILL)
    return took_s


def _expect_all_recorded(bench: Bench) -> None:
    if any(event.confirmed_by == "history" for i in bench.ids for event in bench.finals(i)):
        bench.wrong.append("an answer was not recorded, and had to be looked up")


async def told_to_stop_while_requests_wait_for_their_turn(stage: Stage) -> list[Row]:
    """The ledger is slow besides: some are on their way to the turn, and to the claim."""
    times, longest_s = stage.times(20, 3), 0.0
    settings = {"rate_per_s": 1, "burst": 1}
    flags = ("--slow-ledger", str(SLOW_LEDGER_S))
    async with stage.bench("turns") as bench:
        await bench.start_trusted()
        await bench.stop_all()
        for _ in range(times):
            await bench.publish(2 * CONCURRENCY)
            worker = await bench.start(settings=settings, flags=flags)
            placed = len(bench.portal.calls)
            await bench.called(placed + 1)
            await asyncio.sleep(bench.rng.uniform(0, 2 * SLOW_LEDGER_S))
            told = time.time()
            longest_s = max(longest_s, await _stopped(bench, worker))
            if more := bench.portal.dials_since(told + ON_THE_WAY_S):
                bench.wrong.append(f"{more} were dialled after SIGTERM")
            await _expect_all_back(bench)
        await bench.start()
        await bench.settled()
        await bench.close_books()
        _expect_all_recorded(bench)
        fault = "SIGTERM while requests wait for their turn, slow ledger"
        return [bench.row(fault, times, longest_s or NEVER, bar_s=STOPPED_WITHIN_S)]


async def _expect_all_back(bench: Bench) -> None:
    """Take it for wrong if what was not dialled is not back in its queue."""
    not_dialled = len(bench.ids) - len(bench.portal.calls)
    waiting = await bench.waiting(not_dialled)
    if waiting != not_dialled:
        bench.wrong.append(f"{waiting} messages wait, for {not_dialled} that were not dialled")


Away = Callable[[Bench], Awaitable[None]]


async def told_to_stop_while_the_broker_is_away(stage: Stage) -> list[Row]:
    """Two replicas, of which one is idle and one has calls in flight, end both."""
    async with stage.own_node() as node:
        ways: dict[str, tuple[Away, Away]] = {
            "killed": (_on(node.kill), _on(node.start)),
            "stopped": (_on(node.stop), _on(node.start)),
            "frozen": (_freeze, _thaw),
        }
        full = list(product(ways, (0, 1, 5, 20, 60)))
        rounds = full if stage.full else [("killed", 0), ("stopped", 3), ("frozen", 1)]
        longest_s = 0.0
        async with stage.bench("away", node) as bench:
            await bench.start_trusted()
            await bench.stop_all()
            bench.portal_link.delay_s = CALL_S
            for way, after_s in rounds:
                goes, comes = ways[way]
                workers = await _one_busy_one_idle(bench)
                await goes(bench)
                await asyncio.sleep(after_s)
                took_s = await asyncio.gather(*(_stopped(bench, worker) for worker in workers))
                if max(took_s) > STOPPED_WITHIN_S + CALL_S:
                    bench.wrong.append(f"{way} {after_s} s ago: it took {max(took_s):.1f} s")
                longest_s = max(longest_s, *took_s)
                await comes(bench)
            await bench.start()
            await bench.settled()
            await bench.close_books()
            _expect_all_recorded(bench)
            fault = "SIGTERM, broker killed, stopped or frozen (recovery: until the exit)"
            return [bench.row(fault, len(rounds), longest_s)]


async def _one_busy_one_idle(bench: Bench) -> list[Worker]:
    workers = [await bench.start(settings={"rate_per_s": 5, "burst": 1}) for _ in range(2)]
    await asyncio.gather(*(worker.up() for worker in workers))
    # What 3.10 has not written down yet is forgotten when it is killed.
    await asyncio.to_thread(bench.node.ctl, "eval", "mnesia:sync_log().")
    placed = len(bench.portal.calls)
    await bench.publish(2 * CONCURRENCY)
    if not await bench.called(placed + 2):
        bench.wrong.append("nothing was dialled")
    return workers


def _on(change: Callable[[], None]) -> Away:
    async def away(_: Bench) -> None:
        await asyncio.to_thread(change)

    return away


async def _freeze(bench: Bench) -> None:
    bench.home.broker.freeze()


async def _thaw(bench: Bench) -> None:
    bench.home.broker.cut()
    bench.home.broker.thaw()

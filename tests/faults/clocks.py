"""Clocks that go wrong or are set: the portal's two, and the worker's."""

import asyncio
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.account import Row, summed
from tests.faults.doubts import expect_found, expect_lag, lose_answers, number_of
from tests.faults.life import until
from tests.faults.portal import LOOK_UP
from tests.faults.stage import Stage

AT_ONCE = 3
WRONG_BY_S = (100, -100, 200, -200, 600, -600, 3600, -3600)
SWITCHES = {
    "portal's HTTP clock wrong, answers lost": "clock_offset_s",
    "portal's call times wrong, answers lost": "call_clock_offset_s",
}
STEP_S = 3600
LAG_S = 8
RINGS_S = 5
"""So long a call is not in the history yet: less than the lag, and a look-up comes meanwhile."""
SETTLED_WITHIN_S = 2 * LAG_S + 10
"""A later process cannot tell how much of the lag is over, if its clock was set."""


async def the_portals_clocks_wrong(stage: Stage) -> list[Row]:
    """Of the two one is wrong, and the other right."""
    few = asyncio.Semaphore(AT_ONCE)

    async def play(switch: str, ahead_s: int) -> Row:
        async with few:
            return await _wrong(stage, switch, ahead_s)

    rows = []
    for fault, switch in SWITCHES.items():
        offsets_s = WRONG_BY_S if stage.full else (200, -3600)
        cases = await asyncio.gather(*(play(switch, ahead_s) for ahead_s in offsets_s))
        rows.append(summed(fault, offsets_s, cases))
    return rows


async def _wrong(stage: Stage, switch: str, ahead_s: int) -> Row:
    async with stage.bench("clocks") as bench:
        bench.portal.patch({switch: ahead_s})
        await bench.start_trusted()
        rang, silent = await lose_answers(bench, ["reset", "502"])
        await bench.settled()
        await bench.close_books()
        expect_found(bench, rang, silent)
        return bench.row("", 1)


@dataclass(frozen=True, slots=True)
class Step:
    """A worker's wall clock is set by so many seconds, and the worker perhaps restarted."""

    by_s: int
    restart: bool


async def the_workers_clock_set_during_a_doubt(stage: Stage) -> list[Row]:
    steps = list(itertools.starmap(Step, itertools.product((STEP_S, -STEP_S), (False, True))))
    rows = await asyncio.gather(*(_set(stage, step) for step in steps))
    row = summed("worker's clock set by an hour during a doubt", steps, rows)
    row.recovery_s = max(row.recovery_s or 0.0 for row in rows)
    return [row]


async def _set(stage: Stage, step: Step) -> Row:
    async with stage.bench("stepped") as bench:
        clock = bench.folder / "clock"
        flags = ("--wall-clock", str(clock))
        settings = {"history_lag_s": LAG_S}
        set_clock(clock, 0)
        worker = await bench.start_trusted(settings, flags)
        bench.portal.patch({"call_duration_s": RINGS_S})
        rang, silent = await lose_answers(bench, ["reset"])
        numbers = [number_of(bench, request_id) for request_id in (*rang, *silent)]
        await until(lambda: all(LOOK_UP in bench.portal.asked_about(n) for n in numbers), 30)
        if step.restart:
            await worker.terminated()
        begun = time.monotonic()
        set_clock(clock, step.by_s)
        if step.restart:
            await bench.start(settings=settings, flags=flags)
        await bench.told(bench.ids, 60)
        settled_s = time.monotonic() - begun
        await bench.settled()
        await bench.close_books()
        expect_found(bench, rang, silent)
        expect_lag(bench, silent, LAG_S)
        return bench.row("", 1, settled_s, bar_s=SETTLED_WITHIN_S)


def set_clock(clock: Path, ahead_s: int) -> None:
    """Set a worker's clock at once: who reads it in between must not find half a number."""
    new = clock.with_suffix(".new")
    new.write_text(str(ahead_s))
    new.replace(clock)

"""Requests that are taken back at every point of a call, and a pause by hand under load."""

import asyncio
import signal
import sys
import time
from asyncio.subprocess import DEVNULL

from tests.faults.account import Row
from tests.faults.bench import Bench
from tests.faults.launcher import POINTS, Point
from tests.faults.stage import Stage

FROZEN_S = 1.0
"""Shorter than a call may take, so that no request becomes a doubt."""


async def cancelled_at_each_point(stage: Stage) -> list[Row]:
    """The active worker is frozen at a point while the other takes its requests back."""
    rows = []
    for point in POINTS:
        async with stage.bench("cancelled") as bench:
            times = stage.times(10, 1)
            for _ in range(times):
                await _cross(bench, point)
            await bench.settled()
            await bench.close_books()
            row = bench.row(f"taken back: {point}", times)
            row.wrong += [text for i in bench.ids if (text := _odd(bench, i))]
            rows.append(row)
    return rows


async def _cross(bench: Bench, point: Point) -> None:
    await bench.start_trusted()
    await bench.stop_all()
    active = await bench.start(point, number=signal.SIGSTOP)
    await active.up()
    other = await bench.start()
    await other.up()
    ids = await bench.publish(5, prefix=point.replace(" ", "-"))
    if not await active.frozen(30):
        bench.wrong.append("it never got there")
    await bench.cancel(ids)
    await asyncio.sleep(FROZEN_S)
    active.send(signal.SIGCONT)
    await bench.told(ids)
    await bench.stop_all()


def _odd(bench: Bench, request_id: str) -> str:
    """Say what is wrong with the end of a request that may have been taken back."""
    ends = {event.reason or event.kind for event in bench.finals(request_id)}
    first = request_id.startswith("first")
    if ends == {"call.started"} or (ends == {"cancelled"} and not first):
        return ""
    return f"{request_id} ended as {sorted(ends)}"


async def paused_under_load(stage: Stage) -> list[Row]:
    """Nobody is phoned from `pause` on, whoever is killed, until `resume`."""
    requests, kills = stage.times(1000, 150), stage.times(5, 1)
    async with stage.bench("paused") as bench:
        await bench.start_trusted(settings={"rate_per_s": 20})
        await bench.start(settings={"rate_per_s": 20})
        ids = await bench.publish(requests)
        await bench.told_of(20)
        await _command(bench, "pause", "--reason", "a trial")
        phoned, paused_at = len(bench.portal.calls), time.time()
        for _ in range(kills):
            next(worker for worker in bench.workers if worker.runs).send(signal.SIGKILL)
            await bench.start(settings={"rate_per_s": 20})
            await asyncio.sleep(3)
        more = len(bench.portal.calls) - phoned
        bench.forbidden.append((paused_at, time.time()))
        await _command(bench, "resume")
        await bench.told(ids)
        await bench.settled()
        await bench.close_books()
        row = bench.row("paused under load, then SIGKILL", kills, ids=ids)
        if more:
            row.wrong.append(f"{more} were phoned after `pause` had returned")
        return [row]


async def _command(bench: Bench, *words: str) -> None:
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "consumer", *words),
        cwd=bench.folder,
        env=bench.environment(bench.home),
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    if code := await command.wait():
        bench.wrong.append(f"`{words[0]}` ended with {code}")

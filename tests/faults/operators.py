"""Operators who send dead letters back, two at once, and whose command dies."""

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process

from tests.faults.account import Row
from tests.faults.bench import Bench
from tests.faults.stage import Stage

RATE_PER_S = 25
LONGEST_LIFE_S = 4.0
"""It takes about one until the command has read its settings and all dead letters."""
NOTHING_LEFT = b"nothing to replay"


async def two_operators_replay_and_are_killed(stage: Stage) -> list[Row]:
    """Whoever comes while the other has all in hand is told so, and says it again."""
    requests, kills = stage.times(1000, 60), stage.times(20, 3)
    async with stage.bench("operators") as bench:
        await bench.start_trusted()
        bench.portal.patch({"trouble": "bad number"})
        ids = await bench.publish(requests)
        await bench.told(ids)
        bench.portal.patch({"trouble": None})
        killed = await asyncio.gather(*(_insist(bench, kills) for _ in range(2)))
        await bench.settled()
        await bench.close_books()
        row = bench.row("2 operators replay, each SIGKILLed", sum(killed), ids=ids)
        never = [i for i in ids if all(event.kind != "call.started" for event in bench.finals(i))]
        if never:
            row.wrong.append(f"{len(never)} were never started: {never[:10]}")
        return [row]


async def _insist(bench: Bench, kills: int) -> int:
    """Replay all, again and again, until nothing is left; die so often; return how often it was."""
    killed = 0
    while True:
        command = await _replay(bench)
        life_s = bench.rng.uniform(0, LONGEST_LIFE_S) if killed < kills else None
        try:
            async with asyncio.timeout(life_s):
                _, told = await command.communicate()
        except TimeoutError:
            command.send_signal(signal.SIGKILL)
            await command.wait()
            killed += 1
        else:
            if NOTHING_LEFT in told:
                return killed


async def _replay(bench: Bench) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "consumer", "dlq", "replay"),
        *("--all", "--yes", "--rate", str(RATE_PER_S)),
        cwd=bench.folder,
        env=bench.environment(bench.home),
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
    )

"""``python -m tests.faults.soak``: twelve hours' calls in a quarter of an hour; what may not grow.

A worker places what a portal lets through in twelve hours, 2 calls a second, as fast as it can. The
waits are shortened in proportion, and so are the calls. After each wave its memory, descriptors,
threads, tasks and ledger are looked at; exit 1 if one of them grows, or if a promise is broken.
"""

import asyncio
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from itertools import count
from pathlib import Path

import click

from consumer.demo.broker import PrivateNode
from consumer.sandbox import ANSWERS
from tests.faults.bench import Bench
from tests.faults.launcher import TASKS
from tests.faults.life import Worker
from tests.faults.portal import special_number
from tests.faults.stage import Stage

HOURS = 12
PER_S = 2
WAVES = 24
ODD = 20
"""One in so many requests meets one of the answers below."""
KINDS = (
    ("CONNECTION_ERROR", 1),
    ("bad number", None),
    ("reset, placed", 1),
    ("502 page", 1),
    ("bare 503", 2),
    ("QUERY_LIMIT_EXCEEDED", 1),
    ("Infocall failure, placed", 1),
    ("no CALL_ID, placed", None),
)
CALLS_SOONER = 60
TAIL_BYTES = 65_536
SETTLED_WITHIN_S = 300.0
WARM = 0.25
"""Of the waves: caches are full by then."""
MAY_GROW = {"memory_mb": 5.0, "descriptors": 6, "threads": 4, "tasks": 6, "ledger_bytes": 100}
"""From when it is warm to the end: the worker remembers when 25,000 things began.

Of the ledger: bytes for each request.
"""


@dataclass(frozen=True)
class Sample:
    """What a worker takes after a wave; *ledger_bytes* is for each request there was."""

    requests: int
    seconds: int
    memory_mb: float
    descriptors: int
    threads: int
    tasks: int
    ledger_bytes: int
    open_entries: int


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--share", default=1.0, show_default=True, help="Which part of the twelve hours.")
@click.option("--seed", default=4, show_default=True, help="Of all that is random.")
def main(share: float, seed: int) -> None:
    """Place twelve hours' calls, and see what grows."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    click.echo(f"logs and ledger: {folder}", err=True)
    with PrivateNode() as node:
        stage = Stage(node, None, full=True, seed=seed, folder=folder)
        samples, wrong = asyncio.run(_soak(stage, share))
    click.echo(table(samples))
    wrong += grown(samples)
    for text in wrong:
        click.echo(f"WRONG {text[:1000]}")
    click.echo(f"{samples[-1].requests} requests, {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)


async def _soak(stage: Stage, share: float) -> tuple[list[Sample], list[str]]:
    waves = max(4, round(WAVES * share))
    a_wave = round(HOURS * 3600 * PER_S * share / waves)
    samples, begun, turn = [], time.monotonic(), count()
    async with stage.bench("soak") as bench:
        bench.portal.patch({"call_speed": CALLS_SOONER})
        worker = await bench.start_trusted(flags=["--report-tasks"])
        for _ in range(waves):
            await _wave(bench, a_wave, turn)
            if not await bench.settled(SETTLED_WITHIN_S):
                bench.wrong.append("a wave was not settled in time")
            samples.append(_sample(bench, worker, begun))
            click.echo(f"wave {len(samples)} of {waves}: {samples[-1]}", err=True)
        await bench.close_books()
        return samples, bench.row("soak", 1).wrong


async def _wave(bench: Bench, requests: int, turn: "count[int]") -> None:
    odd = requests // ODD
    await bench.publish(requests - odd)
    for _ in range(odd):
        name, times = KINDS[next(turn) % len(KINDS)]
        await bench.publish(to=special_number(ANSWERS[name], times))


def _sample(bench: Bench, worker: Worker, begun: float) -> Sample:
    process = Path(f"/proc/{worker.process.pid}")
    pages = int((process / "statm").read_text().split()[1])
    requests = len(bench.ids)
    files = bench.folder.glob("ledger.db*")
    return Sample(
        requests,
        round(time.monotonic() - begun),
        round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1),
        len(list((process / "fd").iterdir())),
        len(list((process / "task").iterdir())),
        _tasks(worker.log),
        sum(file.stat().st_size for file in files if file.exists()) // requests,
        _open_entries(bench.ledger_file),
    )


def _tasks(log: Path) -> int:
    """Return how many tasks the worker said last that it has."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = file.read().splitlines()[1:]
    told = [json.loads(line) for line in lines if TASKS.encode() in line and line.endswith(b"}")]
    return int(told[-1]["number"]) if told else 0


def _open_entries(ledger: Path) -> int:
    with closing(sqlite3.connect(ledger)) as other:
        wanted = "SELECT count(*) FROM calls WHERE state NOT IN ('started', 'failed')"
        return int(other.execute(wanted).fetchone()[0])


def grown(samples: Sequence[Sample]) -> list[str]:
    """Say what grew after it was warm, and what stayed open."""
    warm, last = samples[int(len(samples) * WARM)], samples[-1]
    wrong = [
        f"{name} grew from {getattr(warm, name)} to {getattr(last, name)}"
        for name, most in MAY_GROW.items()
        if getattr(last, name) - getattr(warm, name) > most
    ]
    if last.open_entries:
        wrong.append(f"{last.open_entries} entries of the ledger are still open")
    return wrong


def table(samples: Sequence[Sample]) -> str:
    """Write *samples* as a table that Markdown can show too."""
    names = [field.name.replace("_", " ") for field in fields(Sample)]
    rows = [names, ["--:"] * len(names), *(list(map(str, astuple(each))) for each in samples)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()

"""A ledger of millions of settled requests, and a queue of a million that wait."""

import asyncio
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from consumer.ledger import Ledger
from tests.benchmarks.cost import cost_of
from tests.benchmarks.stage import WAIT_S, Stage, free_port, until_ready
from tests.benchmarks.subjects import OURS, request_id_in

LOOKED_UP = 1000
CALLS = 1000
_INDICES = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
_SETTLED = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :requests)
INSERT INTO calls (
    queue, request_id, state, attempt, replay, owner, first_seen_at, first_claimed_at, claimed_at,
    changed_at, due_at, call_id, confirmed_by, line, code, description, published, body_digest,
    target_digest, number_digest, version, completed_replay
)
SELECT
    :queue, 'settled-' || i, 'started', 1, 0, :owner, :now - i, :now - i, :now - i, :now - i, 0,
    'infocall.' || hex(randomblob(16)) || '.1773740701', 'answer', 'reg151083', '', '', TRUE,
    hex(randomblob(32)), hex(randomblob(32)), hex(randomblob(32)), 2, 0
FROM n
"""


@dataclass(frozen=True, slots=True)
class Scale:
    """What many requests cost, those that are settled and those that wait."""

    settled: int
    waiting: int
    start_s: float
    look_up_ms: float
    calls_per_s: float
    peak_mb: float


async def scale(stage: Stage, settled: int, waiting: int) -> Scale:
    """Fill a ledger and a queue, then start a worker, and let it place some of the calls."""
    async with stage.queues(OURS) as names:
        file = stage.folder / f"{names.queue}.db"
        await fill(file, names.queue, settled)
        look_up_ms = await _look_up_ms(file, names.queue, settled)
        await stage.publish(OURS, names, (f"r-{n}" for n in range(waiting)))
        await stage.api.expect(CALLS)
        port, begun = free_port(), time.monotonic()
        async with stage.working(OURS, names, 10, {"http_port": port}) as process:
            await until_ready(port)
            start_s = time.monotonic() - begun
            async with asyncio.timeout(WAIT_S):
                placed = await stage.api.all_calls()
            peak_mb = cost_of(process.pid).peak_mb
        file.unlink()
    rate = (CALLS - 1) / (placed[-1][0] - placed[0][0])
    if len({request_id_in(text) for _, text in placed}) != CALLS:
        raise AssertionError("a call was placed twice")
    return Scale(settled, waiting, start_s, look_up_ms, rate, peak_mb)


async def fill(file: Path, queue: str, requests: int) -> None:
    """Write *requests* settled requests, the oldest some months ago, into a new ledger."""
    ledger = Ledger(f"sqlite:///{file}", queue)
    await ledger.open()
    await ledger.begin()
    await ledger.close()
    await asyncio.to_thread(_fill, file, queue, requests)


def _fill(file: Path, queue: str, requests: int) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -500000")
        indices = db.execute(_INDICES).fetchall()
        for name, _ in indices:  # to sort millions once is faster than to insert each in its place
            db.execute(f"DROP INDEX {name}")
        values = {"requests": requests, "queue": queue, "owner": "bench", "now": time.time()}
        db.execute(_SETTLED, values)
        for _, statement in indices:
            db.execute(statement)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def _look_up_ms(file: Path, queue: str, settled: int) -> float:
    """Measure how long the ledger takes to say what it knows of a request."""
    ledger, taken = Ledger(f"sqlite:///{file}", queue), []
    await ledger.open()
    for n in range(LOOKED_UP):
        begun = time.perf_counter()
        found = await ledger.get(f"settled-{n * settled // LOOKED_UP + 1}")
        taken.append(time.perf_counter() - begun)
        if found is None:
            raise AssertionError("it was just written")
    await ledger.close()
    return 1000 * median(taken)

"""Ledgers that cannot be written for a while: nothing is dialled, and then it goes on."""

import asyncio
import contextlib
import sqlite3
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from tests.faults.account import Row
from tests.faults.bench import Bench
from tests.faults.outages import outage
from tests.faults.portal import text_of
from tests.faults.stage import Stage
from tests.faults.traffic import CONCURRENCY

MEGABYTES = 16
"""SQLite's log of changes alone may come to 4 before they are moved to the file."""


async def the_ledger_locked(stage: Stage) -> list[Row]:
    lasts_s = stage.times(20, 12)
    locked = _table_locked if stage.store == "PostgreSQL" else _file_locked
    async with stage.bench("locked") as bench:
        fault = f"ledger locked by another {lasts_s} s"
        return [await outage(bench, fault, lasts_s, locked, most_calls=0)]


@asynccontextmanager
async def _table_locked(bench: Bench) -> AsyncIterator[None]:
    """Lock it as maintenance does; what waits there holds connections that others need."""
    other = await asyncpg.connect(bench.ledger_url)
    try:
        async with other.transaction():
            await other.execute("LOCK TABLE call_consumer.calls IN ACCESS EXCLUSIVE MODE")
            yield
            connections = await other.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        if connections > 2 * CONCURRENCY:
            bench.wrong.append(f"{connections} connections wait for the lock")
    finally:
        await other.close()


@asynccontextmanager
async def _file_locked(bench: Bench) -> AsyncIterator[None]:
    with contextlib.closing(sqlite3.connect(bench.ledger_file, isolation_level=None)) as other:
        await _lock(other)
        yield
        other.execute("ROLLBACK")


async def _lock(other: sqlite3.Connection) -> None:
    for _ in range(1000):
        with contextlib.suppress(sqlite3.OperationalError):
            other.execute("BEGIN EXCLUSIVE")
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the ledger could not be locked")


async def the_ledger_out_of_reach(stage: Stage) -> list[Row]:
    @asynccontextmanager
    async def frozen(bench: Bench) -> AsyncIterator[None]:
        link = bench.home.ledger
        if link is None:
            raise AssertionError("a file cannot be out of reach")
        link.freeze()
        yield
        link.thaw()

    lasts_s = stage.times(20, 8)
    async with stage.bench("unreached") as bench:
        fault = f"ledger's link frozen {lasts_s} s"
        return [await outage(bench, fault, lasts_s, frozen, most_calls=0)]


async def the_ledgers_server_down(stage: Stage) -> list[Row]:
    lasts_s = stage.times(20, 5)
    async with stage.own_cluster() as cluster, stage.bench("down", cluster=cluster) as bench:

        @asynccontextmanager
        async def down(_: Bench) -> AsyncIterator[None]:
            await asyncio.to_thread(cluster.stop)
            yield
            await asyncio.to_thread(cluster.start)

        fault = f"ledger's server crashed, back after {lasts_s} s"
        return [await outage(bench, fault, lasts_s, down, most_calls=0)]


async def the_ledgers_disk_full(stage: Stage) -> list[Row]:
    @asynccontextmanager
    async def full(bench: Bench) -> AsyncIterator[None]:
        filler = bench.ledger_file.with_name("filler")
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
            return [Row(f"{fault} (left out: no right to mount one)", 0)]
        async with stage.bench("full", ledger_in=disk) as bench:
            return [await outage(bench, fault, lasts_s, full, most_calls=1_000_000)]


def _unclaimed(bench: Bench) -> list[str]:
    """Return the calls of which the ledger knows nothing."""
    with contextlib.closing(sqlite3.connect(bench.ledger_file)) as other:
        claimed = {row[0] for row in other.execute("SELECT request_id FROM calls")}
    called = {i for i in bench.ids if bench.portal.phoned()[text_of(i)]}
    return [f"called without a claim: {called - claimed}"] if called - claimed else []


def _small_disk(stack: contextlib.ExitStack) -> Path | None:
    folder = Path(tempfile.mkdtemp(prefix="disk-"))
    stack.callback(folder.rmdir)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "call-consumer", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    stack.callback(subprocess.run, ["umount", str(folder)], check=True)
    return folder

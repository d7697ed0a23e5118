"""A ledger in one SQLite file, or in memory. Several processes on one machine may share it."""

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from consumer import tracing
from consumer.ledger.store import MIGRATIONS, LedgerDown, Value, WrongLedger, statements_since

BUSY_S = 0.5
"""How long another process may hold the file; the event loop stands still meanwhile."""
PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
"""Errors that may be over in a while: another process holds the file, the disk is full."""
TURNS_EACH = 2
MOST_TURNS = 100
"""Turns of the event loop without a further write, after which what waits is written: two for each
request that may be at work, and so many at most.

To wait for the disk costs 200 us, a turn 20 us at most where nothing else is to be done. Requests
that waited together go on together, and wait together again: with 50 calls in flight, 24 turns
instead of 4 make half as many calls again a second, and 100 turns 3 % more. What does not wait for
the disk is written in the next turn, if it is alone.
"""


@dataclass(frozen=True, slots=True)
class _Write:
    statement: str
    values: Sequence[Value]
    durable: bool
    done: "asyncio.Future[int]"


class SqliteStore:
    """See `Store`.

    Changes that come soon after each other share a transaction: they wait for the disk together,
    and if it refuses one, it refuses all.

    Args:
        url: ``sqlite:///file``, ``sqlite:////absolute/file``, or ``sqlite://`` for memory.
        at_once: How many may wait for the disk at most: for more is not waited.
    """

    def __init__(self, url: str, at_once: int) -> None:
        self.place = urlsplit(url).path[1:] or ":memory:"
        self._at_once = at_once
        self._quiet_turns = min(TURNS_EACH * at_once, MOST_TURNS)
        self._db: sqlite3.Connection | None = None
        self._waiting: list[_Write] = []
        self._durably = True

    async def exists(self) -> bool:
        """Tell whether there is a file; in memory nothing stays."""
        return await asyncio.to_thread(self._is_file)

    def _is_file(self) -> bool:
        if not Path(self.place).resolve().parent.is_dir():
            raise LedgerDown(f"{self.place} has no folder")
        return Path(self.place).is_file()

    async def open(self) -> None:
        """Open or create the file."""
        with self._errors():
            db = sqlite3.connect(self.place, isolation_level=None, timeout=BUSY_S)
            self._db, self._durably = db, True
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            try:
                (done,) = db.execute("PRAGMA user_version").fetchone()
                for statement in statements_since(done, self.place):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise

    async def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._write()
            self._db.close()
            self._db = None

    async def fetch(self, statement: str, *values: Value) -> Sequence[Sequence[Any]]:
        """Return the rows that a query finds."""
        with self._errors(), tracing.querying("sqlite", statement):
            return self._opened().execute(_numbered(statement), values).fetchall()

    async def execute(self, statement: str, *values: Value, durable: bool = True) -> int:
        """Return how many rows a change touched, once it is written."""
        with self._errors(), tracing.querying("sqlite", statement):
            self._opened()
            loop = asyncio.get_running_loop()
            write = _Write(_numbered(statement), values, durable, loop.create_future())
            self._waiting.append(write)
            if self._at_once == 1:  # nobody can join it
                self._write()
            elif len(self._waiting) == 1:
                quiet_turns = self._quiet_turns if durable else 0
                loop.call_soon(self._write_when_quiet, loop, 1, quiet_turns)
            return await write.done

    def _write_when_quiet(
        self, loop: asyncio.AbstractEventLoop, known: int, quiet_turns: int
    ) -> None:
        if len(self._waiting) > known:
            quiet_turns = self._quiet_turns
        if quiet_turns and len(self._waiting) < self._at_once:
            loop.call_soon(self._write_when_quiet, loop, len(self._waiting), quiet_turns - 1)
        else:
            self._write()

    def _write(self) -> None:
        """Write all that waits, and tell each how it went; what failed is undone."""
        waiting, self._waiting = self._waiting, []
        if self._db is None or not waiting:
            return
        try:
            self._sync(self._db, durably=any(write.durable for write in waiting))
            self._db.execute("BEGIN IMMEDIATE")
            results = [_touched(self._db, write) for write in waiting]
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  # whatever it is, all that wait must hear of it
            with suppress(sqlite3.Error):
                self._db.rollback()
            results = [error] * len(waiting)
        for write, result in zip(waiting, results, strict=True):
            if write.done.done():
                pass  # who waited for it was cancelled
            elif isinstance(result, Exception):
                write.done.set_exception(result)
            else:
                write.done.set_result(result)

    def _sync(self, db: sqlite3.Connection, *, durably: bool) -> None:
        """Say whether the next transaction waits for the disk.

        The log is one file: what waits brings all along that did not.
        Source: https://www.sqlite.org/pragma.html#pragma_synchronous
        """
        if durably != self._durably:
            db.execute(f"PRAGMA synchronous = {'FULL' if durably else 'NORMAL'}")
            self._durably = durably

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            raise LedgerDown("the ledger is closed")
        return self._db

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # The upper bits tell more than is needed.
            passing = getattr(error, "sqlite_errorcode", 0) & 0xFF in PASSING
            kind = LedgerDown if passing else WrongLedger
            raise kind(f"{self.place}: {error}") from error


def _touched(db: sqlite3.Connection, write: _Write) -> int | Exception:
    """Return how many rows *write* touched, or why its values cannot be written."""
    try:
        return db.execute(write.statement, write.values).rowcount
    except sqlite3.IntegrityError:
        return 0
    except (OverflowError, ValueError) as error:
        return error


@cache
def _numbered(statement: str) -> str:
    return statement.replace("$", "?")

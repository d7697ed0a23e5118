"""A ledger in one SQLite file, or in memory. Several processes on one machine may share it."""

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from consumer.ledger.store import MIGRATIONS, LedgerDown, Value, statements_since

BUSY_S = 0.5
"""How long another process may hold the file; the event loop stands still meanwhile."""


class SqliteStore:
    """See `Store`.

    The changes of one turn of the event loop share a transaction: they wait for the disk together,
    and if one fails, they all do.

    Args:
        url: ``sqlite:///file``, ``sqlite:////absolute/file``, or ``sqlite://`` for memory.
    """

    def __init__(self, url: str) -> None:
        self.place = urlsplit(url).path[1:] or ":memory:"
        self._db: sqlite3.Connection | None = None
        self._waiting: list[asyncio.Future[None]] = []

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
            self._db = db
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
            self._commit()
            self._db.close()
            self._db = None

    async def fetch(self, statement: str, *values: Value) -> Sequence[Sequence[Any]]:
        """Return the rows that a query finds."""
        with self._errors():
            return self._opened().execute(_numbered(statement), values).fetchall()

    async def execute(self, statement: str, *values: Value) -> int:
        """Return how many rows a change touched, once it is on disk."""
        with self._errors():
            db, loop = self._opened(), asyncio.get_running_loop()
            try:
                if not db.in_transaction:
                    db.execute("BEGIN IMMEDIATE")
                    loop.call_soon(self._commit)
                touched = _touched(db, statement, values)
            except sqlite3.Error as error:
                self._tell(error)
                raise
            on_disk: asyncio.Future[None] = loop.create_future()
            self._waiting.append(on_disk)
            await on_disk
            return touched

    def _commit(self) -> None:
        try:
            if self._db is not None and self._db.in_transaction:
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._tell(error)
        else:
            self._tell(None)

    def _tell(self, error: sqlite3.Error | None) -> None:
        """Tell all that wait how it went; what failed is undone."""
        if self._db is not None and self._db.in_transaction:
            self._db.execute("ROLLBACK")
        waiting, self._waiting = self._waiting, []
        for on_disk in waiting:
            if on_disk.cancelled():
                continue
            if error is None:
                on_disk.set_result(None)
            else:
                on_disk.set_exception(error)

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            raise LedgerDown("the ledger is closed")
        return self._db

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerDown(f"{self.place}: {error}") from error


def _touched(db: sqlite3.Connection, statement: str, values: Sequence[Value]) -> int:
    try:
        return db.execute(_numbered(statement), values).rowcount
    except sqlite3.IntegrityError:
        return 0


@cache
def _numbered(statement: str) -> str:
    return statement.replace("$", "?")

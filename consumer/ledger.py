"""What was done for which request: the truth that every other record gives way to.

A store only keeps entries and swaps one version for the next; what may follow what is the worker's.
"""

import hmac
import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from consumer import metrics
from consumer.messages import ConfirmedBy, Reason
from consumer.metrics import timed

BUSY_S = 0.5
"""How long another process may hold the file; the event loop stands still meanwhile."""

State = Literal["placing", "started", "delayed", "failed"]
T = TypeVar("T")


class LedgerDown(RuntimeError):
    """Raised when the ledger cannot be read or written; nothing may be dialled then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """All that is known about one request; times are seconds since the epoch.

    Attributes:
        attempt: The attempt in the making or last made; when delayed, the next one to make.
        owner: Which life of which worker wrote this.
        first_claimed_at: When this replay was first about to dial, 0 before that.
        claimed_at: When the latest attempt was about to dial, 0 before that.
        changed_at: When the state was reached.
        due_at: When delayed: not before then.
        unsure_since: Since when the phone may have rung without our knowing.
        out: Whether the message that belongs to the state has been confirmed by the broker.
        body_digest: Of the fields as sent.
        target_digest: Of number and line.
        version: Grows with each change.
    """

    request_id: str
    state: State
    attempt: int
    replay: int
    owner: str
    first_seen_at: float
    first_claimed_at: float = 0.0
    claimed_at: float = 0.0
    changed_at: float
    due_at: float = 0.0
    call_id: str | None = None
    confirmed_by: ConfirmedBy | None = None
    unsure_since: float | None = None
    line: str | None = None
    reason: Reason | None = None
    code: str = ""
    description: str = ""
    http_status: int | None = None
    out: bool = False
    body_digest: str
    target_digest: str = ""
    version: int = 0


_COLUMNS = tuple(field.name for field in fields(Entry))
_MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE about (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE calls (
        queue TEXT NOT NULL,
        request_id TEXT NOT NULL,
        state TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        replay INTEGER NOT NULL,
        owner TEXT NOT NULL,
        first_seen_at REAL NOT NULL,
        first_claimed_at REAL NOT NULL,
        claimed_at REAL NOT NULL,
        changed_at REAL NOT NULL,
        due_at REAL NOT NULL,
        call_id TEXT,
        confirmed_by TEXT,
        unsure_since REAL,
        line TEXT,
        reason TEXT,
        code TEXT NOT NULL,
        description TEXT NOT NULL,
        http_status INTEGER,
        out INTEGER NOT NULL,
        body_digest TEXT NOT NULL,
        target_digest TEXT NOT NULL,
        version INTEGER NOT NULL,
        PRIMARY KEY (queue, request_id)
    ) WITHOUT ROWID;
    CREATE INDEX calls_by_call_id ON calls (call_id) WHERE call_id IS NOT NULL;
    CREATE UNIQUE INDEX calls_adopted_once ON calls (call_id) WHERE confirmed_by = 'history';
    CREATE INDEX calls_by_target ON calls (target_digest);
    CREATE INDEX calls_by_change ON calls (state, changed_at);
    """,
)
"""One script per schema version; PRAGMA user_version counts those that have run."""


class SqliteLedger:
    """A ledger in one SQLite file, or in memory.

    Several processes on one machine may share it. A write is on disk when its method returns.

    Args:
        url: ``sqlite:///file``, ``sqlite:////absolute/file``, or ``sqlite://`` for memory.
        queue: Which queue's requests: part of every key.
    """

    def __init__(self, url: str, queue: str) -> None:
        self._file = urlsplit(url).path[1:] or ":memory:"
        self._queue = queue
        self._db: sqlite3.Connection | None = None
        self._digest_key = b""
        self.created = False
        """Whether no worker has started with this ledger before: it knows nothing of what was."""

    async def open(self) -> None:
        """Open or create the file and bring it to the newest schema.

        Raises:
            LedgerDown: It cannot be written.
        """
        with self._errors("open"):
            self._db = self._connect()
            with self._transaction() as db:
                self._migrate(db)
                fresh = (secrets.token_bytes(32),)
                db.execute("INSERT OR IGNORE INTO about VALUES ('digest_key', ?)", fresh)
                row = db.execute("SELECT value FROM about WHERE name = 'digest_key'").fetchone()
            self._digest_key = row[0]

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._file, isolation_level=None, timeout=BUSY_S)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        return db

    def _migrate(self, db: sqlite3.Connection) -> None:
        (done,) = db.execute("PRAGMA user_version").fetchone()
        if done > len(_MIGRATIONS):
            raise LedgerDown(
                f"{self._file} was written by a newer version (schema {done}): upgrade this one"
            )
        for script in _MIGRATIONS[done:]:
            for statement in script.split(";"):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
        if done == 0:
            db.execute("INSERT INTO about VALUES ('new', '')")
        new = db.execute("SELECT 1 FROM about WHERE name = 'new'").fetchone()
        self.created = new is not None

    async def begin(self) -> None:
        """Note that a worker has started with this ledger: to the next start it is not new.

        Raises:
            LedgerDown: It cannot be written.
        """
        with self._errors("begin"), self._transaction() as db:
            db.execute("DELETE FROM about WHERE name = 'new'")

    async def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()
            self._db = None

    async def check_writable(self) -> None:
        """Write something.

        Raises:
            LedgerDown: That is not possible.
        """
        with self._errors("check_writable"), self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO about VALUES ('checked', '')")

    def digest(self, *parts: object) -> str:
        """Return a keyed digest: equal for equal parts, and of no use without this ledger."""
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hmac.new(self._digest_key, text.encode(), sha256).hexdigest()

    async def get(self, request_id: str) -> Entry | None:
        """Return what is known about a request."""
        with self._errors("get"):
            return next(self._select("request_id = ?", request_id), None)

    async def put(self, entry: Entry, was: Entry | None) -> Entry | None:
        """Write *entry* if the ledger still holds *was*; return it as written, or None if not.

        A call id adopted from the portal's history must be new to the ledger, else None too.
        """
        entry = replace(entry, version=(was.version if was else 0) + 1)
        with self._errors("put"), self._transaction() as db:
            if entry.confirmed_by == "history" and (was is None or was.call_id != entry.call_id):
                known = db.execute("SELECT 1 FROM calls WHERE call_id = ?", (entry.call_id,))
                if known.fetchone():
                    return None
            values = {name: getattr(entry, name) for name in _COLUMNS} | {"queue": self._queue}
            if was is None:
                names = ", ".join(f":{name}" for name in _COLUMNS)
                done = db.execute(
                    f"INSERT OR IGNORE INTO calls (queue, {', '.join(_COLUMNS)})"  # noqa: S608
                    f" VALUES (:queue, {names})",
                    values,
                )
            else:
                sets = ", ".join(f"{name} = :{name}" for name in _COLUMNS)
                done = db.execute(
                    f"UPDATE calls SET {sets}"  # noqa: S608
                    " WHERE queue = :queue AND request_id = :request_id AND version = :was",
                    values | {"was": was.version},
                )
            return entry if done.rowcount == 1 else None

    async def others_in_doubt(self, entry: Entry) -> list[Entry]:
        """Return other requests to the same number and line that an unknown call may belong to."""
        with self._errors("others_in_doubt"):
            found = self._select_any(
                "target_digest = ? AND (unsure_since IS NOT NULL OR state = 'placing'"
                " OR (state = 'started' AND call_id IS NULL))",
                entry.target_digest,
            )
            mine = (self._queue, entry.request_id)
            return [other for queue, other in found if (queue, other.request_id) != mine]

    async def known_call_ids(self, call_ids: Iterable[str]) -> set[str]:
        """Return those of *call_ids* that belong to a request of ours."""
        wanted = list(call_ids)
        marks = ", ".join("?" * len(wanted))
        with self._errors("known_call_ids"):
            rows = self._open_db().execute(
                f"SELECT call_id FROM calls WHERE call_id IN ({marks})",  # noqa: S608
                wanted,
            )
            return {row[0] for row in rows}

    async def recent_call_ids(self, before: float, limit: int) -> list[str]:
        """Return the call ids of requests started before a moment, the newest first."""
        with self._errors("recent_call_ids"):
            rows = self._open_db().execute(
                "SELECT call_id FROM calls WHERE state = 'started' AND changed_at < ?"
                " AND call_id IS NOT NULL ORDER BY changed_at DESC LIMIT ?",
                (before, limit),
            )
            return [row[0] for row in rows]

    async def oldest_failure(self) -> float:
        """Return when the oldest request failed that was not replayed since, 0 if there is none."""
        with self._errors("oldest_failure"):
            row = self._open_db().execute(
                "SELECT min(changed_at) FROM calls WHERE state = 'failed' AND queue = ?",
                (self._queue,),
            )
            return float(row.fetchone()[0] or 0.0)

    async def forget(self, entry: Entry) -> None:
        """Remove an entry, if it is still as given."""
        with self._errors("forget"), self._transaction() as db:
            db.execute(
                "DELETE FROM calls WHERE queue = ? AND request_id = ? AND version = ?",
                (self._queue, entry.request_id, entry.version),
            )

    async def forget_closed(self, before: float) -> int:
        """Remove entries closed before a moment, and return how many; open ones never expire."""
        with self._errors("forget_closed"), self._transaction() as db:
            return db.execute(
                "DELETE FROM calls WHERE state IN ('started', 'failed') AND changed_at < ?"
                " AND queue = ?",
                (before, self._queue),
            ).rowcount

    def _select(self, where: str, *values: object) -> Iterator[Entry]:
        found = self._select_any(f"{where} AND queue = ?", *values, self._queue)
        return (entry for _, entry in found)

    def _select_any(self, where: str, *values: object) -> Iterator[tuple[str, Entry]]:
        columns = ", ".join(_COLUMNS)
        rows = self._open_db().execute(
            f"SELECT queue, {columns} FROM calls WHERE {where}",  # noqa: S608
            values,
        )
        for queue, *row in rows.fetchall():
            known = dict(zip(_COLUMNS, row, strict=True))
            yield queue, Entry(**known | {"out": bool(known["out"])})

    def _open_db(self) -> sqlite3.Connection:
        if self._db is None:
            raise LedgerDown("the ledger is closed")
        return self._db

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._open_db()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    @contextmanager
    def _errors(self, operation: str) -> Iterator[None]:
        try:
            with timed(metrics.LEDGER.labels(operation)):
                yield
        except sqlite3.Error as error:
            raise LedgerDown(f"{self._file}: {error}") from error

"""What was done for which request: the truth that every other record gives way to.

It keeps entries, in a `Store`, and swaps one version for the next; what may follow what is the
worker's to know.
"""

import hmac
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from typing import Any, Literal

from consumer import metrics
from consumer.ledger.sqlite import SqliteStore
from consumer.ledger.store import LedgerDown, Store
from consumer.messages import ConfirmedBy, Reason

__all__ = ["Entry", "Ledger", "LedgerDown", "State"]

State = Literal["placing", "started", "delayed", "failed"]


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
_SELECT = f"SELECT queue, {', '.join(_COLUMNS)} FROM calls"  # noqa: S608
_INSERT = (
    f"INSERT INTO calls ({', '.join(_COLUMNS)}, queue)"  # noqa: S608
    f" VALUES ({', '.join(f'${n}' for n in range(1, len(_COLUMNS) + 2))}) ON CONFLICT DO NOTHING"
)
_UPDATE = (
    f"UPDATE calls SET {', '.join(f'{name} = ${n}' for n, name in enumerate(_COLUMNS, 1))}"  # noqa: S608
    f" WHERE queue = ${len(_COLUMNS) + 1} AND request_id = $1 AND version = ${len(_COLUMNS) + 2}"
    f" AND NOT EXISTS (SELECT 1 FROM calls WHERE call_id = ${len(_COLUMNS) + 3})"
)


class Ledger:
    """All entries of one queue, and what is known of other queues' calls.

    Every method that reads or writes raises `LedgerDown` where that is not possible. A write is
    durable when its method returns.

    Args:
        url: ``sqlite:///file``, ``sqlite:////absolute/file``, ``sqlite://`` for memory, or
            ``postgresql://user:password@host:5432/database``.
        queue: Which queue's requests: part of every key.
        connections: How many PostgreSQL is asked over at most.
    """

    def __init__(self, url: str, queue: str, connections: int = 1) -> None:
        self._store = _store(url, connections)
        self._queue = queue
        self._digest_key = b""
        self.created = False
        """Whether no worker has started with this ledger before: it knows nothing of what was."""

    @property
    def place(self) -> str:
        """What to call where it is, without a password."""
        return self._store.place

    async def exists(self) -> bool:
        """Tell whether it has been made; does not make it."""
        return await self._store.exists()

    async def open(self) -> None:
        """Open or create it, and bring it to the newest form."""
        with metrics.LEDGER.labels("open").time():
            await self._store.open()
            await self._store.execute(
                "INSERT INTO about VALUES ('digest_key', $1) ON CONFLICT DO NOTHING",
                secrets.token_bytes(32),
            )
            rows = await self._store.fetch("SELECT name, value FROM about")
        about = {row[0]: row[1] for row in rows}
        self._digest_key = about["digest_key"]
        self.created = "new" in about

    async def begin(self) -> None:
        """Note that a worker has started with this ledger: to the next start it is not new."""
        with metrics.LEDGER.labels("begin").time():
            await self._store.execute("DELETE FROM about WHERE name = 'new'")

    async def close(self) -> None:
        """Let go of the store; may be called again."""
        await self._store.close()

    async def check_writable(self) -> None:
        """Write something."""
        with metrics.LEDGER.labels("check_writable").time():
            await self._store.execute(
                "INSERT INTO about VALUES ('checked', $1)"
                " ON CONFLICT (name) DO UPDATE SET value = $1",
                b"",
            )

    def digest(self, *parts: object) -> str:
        """Return a keyed digest: equal for equal parts, and of no use without this ledger."""
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hmac.new(self._digest_key, text.encode(), sha256).hexdigest()

    async def get(self, request_id: str) -> Entry | None:
        """Return what is known about a request."""
        with metrics.LEDGER.labels("get").time():
            found = await self._select("queue = $1 AND request_id = $2", self._queue, request_id)
        return found[0][1] if found else None

    async def put(self, entry: Entry, was: Entry | None) -> Entry | None:
        """Write *entry* if the ledger still holds *was*; return it as written, or None if not.

        A call id adopted from the portal's history must be new to the ledger, else None too. To
        write the same again is one write: so it can be repeated where its answer was lost.
        """
        entry = replace(entry, version=(was.version if was else 0) + 1)
        values = [getattr(entry, name) for name in _COLUMNS]
        with metrics.LEDGER.labels("put").time():
            if was is None:
                done = await self._store.execute(_INSERT, *values, self._queue)
            else:
                adopts = entry.confirmed_by == "history" and was.call_id != entry.call_id
                adopted = entry.call_id if adopts else None
                done = await self._store.execute(
                    _UPDATE, *values, self._queue, was.version, adopted
                )
        return entry if done == 1 or await self.get(entry.request_id) == entry else None

    async def others_in_doubt(self, entry: Entry) -> list[Entry]:
        """Return other requests to the same number and line that an unknown call may belong to."""
        with metrics.LEDGER.labels("others_in_doubt").time():
            found = await self._select(
                "target_digest = $1 AND (unsure_since IS NOT NULL OR state = 'placing'"
                " OR (state = 'started' AND call_id IS NULL))",
                entry.target_digest,
            )
        mine = (self._queue, entry.request_id)
        return [other for queue, other in found if (queue, other.request_id) != mine]

    async def known_call_ids(self, call_ids: Iterable[str]) -> set[str]:
        """Return those of *call_ids* that belong to a request of ours."""
        wanted = list(call_ids)
        if not wanted:
            return set()
        marks = ", ".join(f"${n}" for n in range(1, len(wanted) + 1))
        with metrics.LEDGER.labels("known_call_ids").time():
            rows = await self._store.fetch(
                f"SELECT call_id FROM calls WHERE call_id IN ({marks})",  # noqa: S608
                *wanted,
            )
        return {row[0] for row in rows}

    async def recent_call_ids(self, before: float, limit: int) -> list[str]:
        """Return the call ids of requests started before a moment, the newest first."""
        with metrics.LEDGER.labels("recent_call_ids").time():
            rows = await self._store.fetch(
                "SELECT call_id FROM calls WHERE state = 'started' AND changed_at < $1"
                " AND call_id IS NOT NULL ORDER BY changed_at DESC LIMIT $2",
                before,
                limit,
            )
        return [row[0] for row in rows]

    async def oldest_failure(self) -> float:
        """Return when the oldest request failed that was not replayed since, 0 if there is none."""
        with metrics.LEDGER.labels("oldest_failure").time():
            rows = await self._store.fetch(
                "SELECT min(changed_at) FROM calls WHERE state = 'failed' AND queue = $1",
                self._queue,
            )
        return float(rows[0][0] or 0.0)

    async def forget(self, entry: Entry) -> None:
        """Remove an entry, if it is still as given."""
        with metrics.LEDGER.labels("forget").time():
            await self._store.execute(
                "DELETE FROM calls WHERE queue = $1 AND request_id = $2 AND version = $3",
                self._queue,
                entry.request_id,
                entry.version,
            )

    async def forget_closed(self, before: float) -> int:
        """Remove entries closed before a moment, and return how many; open ones never expire."""
        with metrics.LEDGER.labels("forget_closed").time():
            return await self._store.execute(
                "DELETE FROM calls WHERE state IN ('started', 'failed') AND changed_at < $1"
                " AND queue = $2",
                before,
                self._queue,
            )

    async def _select(self, where: str, *values: str) -> list[tuple[str, Entry]]:
        rows = await self._store.fetch(f"{_SELECT} WHERE {where}", *values)
        return [(queue, _entry(row)) for queue, *row in rows]


def _entry(row: list[Any]) -> Entry:
    known = dict(zip(_COLUMNS, row, strict=True))
    return Entry(**known | {"out": bool(known["out"])})  # SQLite knows numbers only


def _store(url: str, connections: int) -> Store:
    if url.startswith("sqlite:"):
        return SqliteStore(url)
    try:
        from consumer.ledger.postgres import PostgresStore  # noqa: PLC0415  # an optional extra
    except ImportError:
        text = "PostgreSQL needs the extra `postgres`: pip install 'call-consumer[postgres]'"
        raise LedgerDown(text) from None
    return PostgresStore(url, connections)

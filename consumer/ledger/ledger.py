"""Keeps entries, in a `Store`, and swaps one version for the next.

Which state may follow which is decided in `steps`.
"""

import hmac
import json
import secrets
import time
from collections.abc import Iterable
from dataclasses import fields, replace
from hashlib import sha256
from typing import Any

from consumer import metrics
from consumer.ledger.about import About
from consumer.ledger.earlier import Earlier
from consumer.ledger.entry import Entry
from consumer.ledger.sqlite import SqliteStore
from consumer.ledger.store import LedgerDown, Store, marks

HISTORY_BELIEVED_S = 7 * 86_400.0
"""For how long it is remembered that the portal's call history could be read."""

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
        self._about = About(self._store)
        self.earlier = Earlier(self._store, queue)
        self._queue = queue
        self._digest_key = b""
        self._begun = False
        self.identity = ""
        """Tells this ledger from any other; known once it is open."""

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
            await self._about.note_once("digest_key", secrets.token_bytes(32))
            await self._about.note_once("identity", secrets.token_hex(8).encode())
            about = await self._about.read("digest_key", "identity")
        self._digest_key = about["digest_key"]
        self.identity = about["identity"].decode()

    async def begin(self) -> None:
        """Note that a worker with this ledger has received a message that nobody had before.

        From then on whatever was handed to a worker was handed to one with this ledger.
        """
        if not self._begun:
            with metrics.LEDGER.labels("begin").time():
                await self._about.note_once(f"begun {self._queue}", b"")
            self._begun = True

    async def has_begun(self) -> bool:
        """Tell whether `begin` was called, by whichever worker."""
        if not self._begun:
            with metrics.LEDGER.labels("has_begun").time():
                self._begun = bool(await self._about.read(f"begun {self._queue}"))
        return self._begun

    async def begin_anew(self) -> None:
        """Note that workers with another ledger have the queue, or had it until now."""
        with metrics.LEDGER.labels("begin_anew").time():
            await self._store.execute("DELETE FROM about WHERE name = $1", f"begun {self._queue}")
        self._begun = False

    async def note_history_shown(self) -> None:
        """Note that the portal's call history has just shown a call of this queue's."""
        with metrics.LEDGER.labels("note_history_shown").time():
            await self._about.note(f"history {self._queue}", repr(time.time()).encode())

    async def has_seen_history(self) -> bool:
        """Tell whether the portal's call history could be read not long ago."""
        with metrics.LEDGER.labels("has_seen_history").time():
            about = await self._about.read(f"history {self._queue}")
        return any(time.time() - float(at) < HISTORY_BELIEVED_S for at in about.values())

    async def close(self) -> None:
        """Close the store; may be called again."""
        await self._store.close()

    async def check_writable(self) -> None:
        """Write something."""
        with metrics.LEDGER.labels("check_writable").time():
            await self._about.note("checked", b"")

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
            found += await self.earlier.doubts_about(entry.target_digest)
        mine = (self._queue, entry.request_id)
        return [other for queue, other in found if (queue, other.request_id) != mine]

    async def known_calls(self, call_ids: Iterable[str]) -> dict[str, float]:
        """Return when those of *call_ids* were claimed that belong to a request of ours."""
        wanted = list(call_ids)
        if not wanted:
            return {}
        with metrics.LEDGER.labels("known_calls").time():
            rows = await self._store.fetch(
                f"SELECT call_id, claimed_at FROM calls WHERE call_id IN ({marks(wanted)})",  # noqa: S608
                *wanted,
            )
            earlier = await self.earlier.calls(wanted)
        return {row[0]: row[1] for row in rows} | earlier

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
            await self.earlier.forget(before)
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
    return Entry(**known | {"published": bool(known["published"])})  # SQLite knows numbers only


def _store(url: str, connections: int) -> Store:
    if url.startswith("sqlite:"):
        return SqliteStore(url)
    try:
        from consumer.ledger.postgres import PostgresStore  # noqa: PLC0415  # an optional extra
    except ImportError:
        text = "PostgreSQL needs the extra `postgres`: pip install 'call-consumer[postgres]'"
        raise LedgerDown(text) from None
    return PostgresStore(url, connections)

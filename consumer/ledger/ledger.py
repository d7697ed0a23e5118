"""Keeps entries, in a `Store`, and swaps one version for the next.

Which state may follow which is decided in `steps`.
"""

import hmac
import json
import secrets
from dataclasses import replace
from operator import attrgetter

from consumer import metrics
from consumer.ledger.about import About, HistorySeen
from consumer.ledger.completions import Completions
from consumer.ledger.controls import ControlsTable
from consumer.ledger.earlier import Earlier
from consumer.ledger.entry import Entry
from consumer.ledger.letter_acts import LetterActs
from consumer.ledger.published import PublishedMarks
from consumer.ledger.search import Search
from consumer.ledger.sqlite import SqliteStore
from consumer.ledger.statements import (
    COLUMNS,
    INSERT,
    NOT_ADOPTED,
    SELECT,
    changed,
    entry_of,
    same_controls,
    update,
)
from consumer.ledger.store import LedgerDown, Store, Value
from consumer.ledger.tokens import TokenRows
from consumer.ledger.workers import WorkersTable

_TO_DIGEST = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


class Ledger:
    """All entries of one queue, and what is known of other queues' calls.

    Every method that reads or writes raises `LedgerDown` where that is not possible. A write is
    on disk when its method returns; what `put` writes survives the end of this process only.

    Args:
        url: ``sqlite:///file``, ``sqlite:////absolute/file``, ``sqlite://`` for memory, or
            ``postgresql://user:password@host:5432/database``.
        queue: Which queue's requests: part of every key.
        at_once: How many requests are worked on at once; so many connections PostgreSQL has.
    """

    def __init__(self, url: str, queue: str, at_once: int = 1) -> None:
        self._store = _store(url, at_once)
        self._about = About(self._store)
        self.completions = Completions(self._store, self._about, queue)
        self.earlier = Earlier(self._store, self.completions, queue)
        self.search = Search(self._store, self.earlier, queue)
        self.controls = ControlsTable(self._store, self._about, queue)
        self.workers = WorkersTable(self._store, queue)
        self.letter_acts = LetterActs(self._store, queue)
        self.history_seen = HistorySeen(self._about, queue)
        self.published = PublishedMarks(self._store, queue)
        self._queue = queue
        self._digest_key = b""
        self._begun = False
        self.identity = ""
        """Tells this ledger from any other; known once it is open."""

    @property
    def place(self) -> str:
        """What to call where it is, without a password."""
        return self._store.place

    def tokens(self, portal: str) -> TokenRows:
        """Return the place of a portal's tokens."""
        return TokenRows(self._store, portal)

    async def exists(self) -> bool:
        """Tell whether it has been made; does not make it."""
        return await self._store.exists()

    async def open(self) -> None:
        """Open or create it, and bring it to the newest form."""
        with metrics.LEDGER.labels("open").time():
            await self._store.open()
            await self._about.note_once("digest_key", secrets.token_bytes(32))
            await self._about.note_once("identity", secrets.token_hex(8).encode())
            await self._about.note_once(self.controls.version_name, b"")
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
            await self._about.forget(f"begun {self._queue}")
        self._begun = False

    async def close(self) -> None:
        """Close the store; may be called again."""
        await self.published.close()
        await self._store.close()

    async def check_writable(self) -> None:
        """Write something."""
        with metrics.LEDGER.labels("check_writable").time():
            await self._about.note("checked", b"")

    def digest(self, *parts: object) -> str:
        """Return a keyed digest: equal for equal parts, and of no use without this ledger."""
        return hmac.digest(self._digest_key, _TO_DIGEST.encode(parts).encode(), "sha256").hex()

    async def get(self, request_id: str) -> Entry | None:
        """Return what is known about a request."""
        with metrics.LEDGER.labels("get").time():
            rows = await self._store.fetch(
                f"{SELECT} WHERE queue = $1 AND request_id = $2", self._queue, request_id
            )
        return entry_of(rows[0][1:]) if rows else None

    async def put(self, entry: Entry, was: Entry | None) -> Entry | None:
        """Write *entry* if the ledger still holds *was*; return it as written, or None if not.

        A call id adopted from the portal's history must be new to the ledger, else None too. To
        write the same again is one write: so it can be repeated where its answer was lost.

        A loss of power may undo it, as far back as the latest claim: then there is a doubt.
        """
        entry = replace(entry, version=(was.version if was else 0) + 1)
        with metrics.LEDGER.labels("put").time():
            if was is None:
                done = await self._insert(entry, "TRUE", durable=False)
            else:
                adopts = entry.confirmed_by == "history" and was.call_id != entry.call_id
                adopted = entry.call_id if adopts else None
                done = await self._update(entry, was, NOT_ADOPTED, adopted, durable=False)
        return entry if done == 1 or await self._holds(entry) else None

    async def claim(self, entry: Entry, was: Entry | None, controls: bytes) -> Entry | None:
        """Write a claim as `put` does, but only where nobody has forbidden it.

        Args:
            entry: The attempt about to be made.
            was: What the ledger held.
            controls: Their version, as the caller knows it: operators may have said more since.
        """
        entry = replace(entry, version=(was.version if was else 0) + 1)
        seen = (self.controls.version_name, controls)
        with metrics.LEDGER.labels("claim").time():
            if was is None:
                done = await self._insert(entry, same_controls(len(COLUMNS) + 2), *seen)
            else:
                allowed = f"cancelled_at = 0 AND {same_controls(4)}"
                done = await self._update(entry, was, allowed, *seen)
        return entry if done == 1 or await self._holds(entry) else None

    async def cancel(self, unseen: Entry) -> Entry:
        """Note that a request is taken back, and return its entry; *unseen* if it has none yet.

        From then on it cannot be claimed. Its state stays as it is.
        """
        while True:
            with metrics.LEDGER.labels("cancel").time():
                await self._store.execute(
                    "UPDATE calls SET cancelled_at = $3, cancelled_for = $4"
                    " WHERE queue = $1 AND request_id = $2 AND cancelled_at = 0",
                    self._queue,
                    unseen.request_id,
                    unseen.cancelled_at,
                    unseen.cancelled_for,
                )
                entry, first = await self.get(unseen.request_id), replace(unseen, version=1)
                if entry is None and await self._insert(first, "TRUE"):
                    return first
            if entry is not None and entry.cancelled_at:
                return entry

    async def _insert(
        self, entry: Entry, condition: str, *values: Value, durable: bool = True
    ) -> int:
        written = attrgetter(*COLUMNS)(entry)
        return await self._store.execute(
            INSERT.format(condition), *written, self._queue, *values, durable=durable
        )

    async def _update(
        self, entry: Entry, was: Entry, condition: str, *values: Value, durable: bool = True
    ) -> int:
        columns = changed(entry, was)
        key = (self._queue, was.request_id, was.version, *values)
        statement = update(columns, condition, len(key) + 1)
        written = attrgetter(*columns)(entry)
        return await self._store.execute(statement, *key, *written, durable=durable)

    async def _holds(self, entry: Entry) -> bool:
        """Tell whether *entry* is what the ledger holds, taken back or not."""
        held = await self.get(entry.request_id)
        return held is not None and held == replace(
            entry, cancelled_at=held.cancelled_at, cancelled_for=held.cancelled_for
        )

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
            await self.letter_acts.forget(before)
            return await self._store.execute(
                "DELETE FROM calls WHERE state IN ('started', 'failed') AND changed_at < $1"
                " AND queue = $2",
                before,
                self._queue,
            )


def _store(url: str, at_once: int) -> Store:
    if url.startswith("sqlite:"):
        return SqliteStore(url, at_once)
    try:
        from consumer.ledger.postgres import PostgresStore  # noqa: PLC0415  # an optional extra
    except ImportError:
        text = "PostgreSQL needs the extra `postgres`: pip install '.[postgres]'"
        raise LedgerDown(text) from None
    return PostgresStore(url, at_once)

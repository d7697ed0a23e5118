"""Notes that the events of started calls are out, written a moment later, many at once.

These writes are the ones that wait for the disk after a call: with them its outcome is there, too.
"""

import asyncio
from collections.abc import Sequence
from contextvars import Context

import structlog

from consumer import metrics
from consumer.ledger.entry import Entry
from consumer.ledger.store import LedgerDown, Store, Value

SOON_S = 0.2
"""For so long notes are gathered: a loss of power forgets the outcomes of no more than that."""
AGAIN_S = 1.0
"""After so long what could not be written is tried again."""
MOST_WAITING = 10_000
"""Notes, while the ledger cannot be written."""
AT_ONCE = 200
"""SQLite takes 32,766 values in a statement."""

log = structlog.get_logger(__name__)


class PublishedMarks:
    """What is to be noted; nothing depends on it but what `show` tells, and when an end is told."""

    def __init__(self, store: Store, queue: str) -> None:
        self._store = store
        self._queue = queue
        self._waiting: list[Entry] = []
        self._writing: asyncio.Task[None] | None = None
        self._failing = False

    def add(self, entry: Entry) -> None:
        """Note soon that the broker has the event of *entry*, as the ledger holds it now."""
        self._waiting.append(entry)
        if self._writing is None or self._writing.done():
            # In a context of its own: it is no part of what is done about one of the requests.
            self._writing = asyncio.create_task(self._write_soon(), context=Context())

    async def _write_soon(self) -> None:
        while self._waiting:
            await asyncio.sleep(AGAIN_S if self._failing else SOON_S)
            await self.flush()

    async def close(self) -> None:
        """Write what waits, at once."""
        if self._writing is not None:
            self._writing.cancel()
        await self.flush()

    async def flush(self) -> None:
        """Write what waits; what cannot be written now waits on, but for the oldest of too many."""
        try:
            while self._waiting:
                some = self._waiting[:AT_ONCE]
                await self.write(some)
                del self._waiting[: len(some)]
                self._failing = False
        except LedgerDown:
            if not self._failing:
                log.warning("ledger.not_marked")  # a copy of the message publishes it once more
            self._failing = True
            del self._waiting[:-MOST_WAITING]

    async def write(self, entries: Sequence[Entry]) -> None:
        """Note that the events of *entries* are out, unless a newer version has come since."""
        ids = [f"${2 * n}" for n in range(1, len(entries) + 1)]
        pairs = (f"(${2 * n}, CAST(${2 * n + 1} AS INTEGER))" for n in range(1, len(entries) + 1))
        values: list[Value] = [v for e in entries for v in (e.request_id, e.version)]
        with metrics.LEDGER.labels("note_published").time():
            await self._store.execute(
                "UPDATE calls SET published = TRUE WHERE queue = $1"  # noqa: S608  # marks only
                f" AND request_id IN ({', '.join(ids)})"  # or SQLite would read all of the queue
                f" AND (request_id, version) IN (VALUES {', '.join(pairs)})",
                self._queue,
                *values,
            )

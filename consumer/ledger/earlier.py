"""What a request did before its present attempt: calls it placed, calls that are still in doubt.

An entry tells of the latest attempt only. A person may have edited the number since, or asked for
a second call.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from consumer import metrics
from consumer.ledger.completions import Completions
from consumer.ledger.entry import Entry
from consumer.ledger.store import Store, marks


class Earlier:
    """Each method raises `LedgerDown` where the store cannot be used."""

    def __init__(self, store: Store, completions: Completions, queue: str) -> None:
        self._store = store
        self._completions = completions
        self._queue = queue

    async def remember_call(self, entry: Entry) -> None:
        """Keep the call of *entry* known, though another call is about to take its place."""
        with metrics.LEDGER.labels("remember_call").time():
            await self._store.execute(
                "INSERT INTO earlier_calls (call_id, claimed_at, queue, request_id, number_digest)"
                " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
                self._name_of_call(entry),
                entry.claimed_at,
                self._queue,
                entry.request_id,
                entry.number_digest,
            )
        if entry.call_id is not None:
            await self._completions.keep_open(entry, entry.call_id)

    def _name_of_call(self, entry: Entry) -> str:
        """Return the call id or, where the portal told none, what no portal would."""
        return entry.call_id or f"{self._queue} {entry.request_id} {entry.replay}"

    async def calls_of(self, entries: Sequence[Entry]) -> Counter[str]:
        """Count, by request id, the calls of requests before those that *entries* tell of."""
        if not entries:
            return Counter()
        rows = await self._store.fetch(
            "SELECT request_id, call_id FROM earlier_calls"  # noqa: S608
            f" WHERE queue = $1 AND request_id IN ({marks(entries, after=1)})",
            self._queue,
            *(entry.request_id for entry in entries),
        )
        latest = {(entry.request_id, self._name_of_call(entry)) for entry in entries}
        return Counter(row[0] for row in rows if tuple(row) not in latest)

    async def calls(self, call_ids: Sequence[str]) -> dict[str, float]:
        """Return when those of *call_ids* were claimed that are kept here."""
        rows = await self._store.fetch(
            f"SELECT call_id, claimed_at FROM earlier_calls WHERE call_id IN ({marks(call_ids)})",  # noqa: S608
            *call_ids,
        )
        return {row[0]: row[1] for row in rows}

    async def remember_doubt(self, entry: Entry) -> None:
        """Keep the call in doubt of *entry* known, though a replay is about to take its place."""
        with metrics.LEDGER.labels("remember_doubt").time():
            await self._store.execute(
                "INSERT INTO earlier_doubts VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                self._queue,
                entry.request_id,
                entry.replay,
                entry.target_digest,
                entry.claimed_at,
                json.dumps(asdict(entry)),
            )

    async def doubts_of(self, request_id: str) -> list[Entry]:
        """Return the calls in doubt that replays of one request have taken the place of."""
        with metrics.LEDGER.labels("doubts_of").time():
            rows = await self._store.fetch(
                "SELECT entry FROM earlier_doubts WHERE queue = $1 AND request_id = $2"
                " ORDER BY replay DESC",
                self._queue,
                request_id,
            )
        return [Entry(**json.loads(row[0])) for row in rows]

    async def doubts_about(self, target_digest: str) -> list[tuple[str, Entry]]:
        """Return the calls in doubt to one number and line, each with its queue.

        Where a request is back at that number, its entry has taken the doubt over.
        """
        rows = await self._store.fetch(
            "SELECT queue, entry FROM earlier_doubts WHERE target_digest = $1 AND NOT EXISTS"
            " (SELECT 1 FROM calls WHERE calls.queue = earlier_doubts.queue"
            " AND calls.request_id = earlier_doubts.request_id AND calls.target_digest = $1)",
            target_digest,
        )
        return [(row[0], Entry(**json.loads(row[1]))) for row in rows]

    async def forget(self, before: float) -> None:
        """Remove what was claimed before a moment."""
        for table in ("earlier_calls", "earlier_doubts"):
            await self._store.execute(f"DELETE FROM {table} WHERE claimed_at < $1", before)  # noqa: S608
        await self._completions.forget(before)

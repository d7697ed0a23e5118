"""What a request did before its present attempt: calls it placed, calls that are still in doubt.

An entry tells of the latest attempt only. A person may have edited the number since, or asked for
a second call.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict

from consumer import metrics
from consumer.ledger.entry import Entry
from consumer.ledger.store import Store, marks


class Earlier:
    """Each method raises `LedgerDown` where the store cannot be used."""

    def __init__(self, store: Store, queue: str) -> None:
        self._store = store
        self._queue = queue

    async def remember_call(self, entry: Entry) -> None:
        """Keep the call id of *entry* known, though another call is about to take its place."""
        if entry.call_id is not None:
            with metrics.LEDGER.labels("remember_call").time():
                await self._store.execute(
                    "INSERT INTO earlier_calls VALUES ($1, $2) ON CONFLICT DO NOTHING",
                    entry.call_id,
                    entry.claimed_at,
                )

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

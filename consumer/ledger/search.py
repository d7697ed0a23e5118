"""Questions about many requests at once."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import get_args

from consumer import metrics
from consumer.ledger.earlier import Earlier
from consumer.ledger.entry import Entry, State
from consumer.ledger.statements import SELECT, entry_of
from consumer.ledger.store import Store, marks


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits for a later moment.

    Attributes:
        scheduled: Requests that wait for their `not_before` or for the calling hours.
        next_due_at: When the first of them is due, in seconds since the epoch.
        retrying: Requests that wait for their next attempt.
        in_doubt: Calls that may have rung, and are looked up.
    """

    scheduled: int = 0
    next_due_at: float | None = None
    retrying: int = 0
    in_doubt: int = 0


class Search:
    """Each method raises `LedgerDown` where the store cannot be used."""

    def __init__(self, store: Store, earlier: Earlier, queue: str) -> None:
        self._store = store
        self._earlier = earlier
        self._queue = queue

    async def entries(self, request_ids: Collection[str]) -> dict[str, Entry]:
        """Return the entries of those of *request_ids* that have one; some hundreds at a time."""
        if not request_ids:
            return {}
        with metrics.LEDGER.labels("entries").time():
            rows = await self._store.fetch(
                f"{SELECT} WHERE queue = $1 AND request_id IN ({marks(request_ids, after=1)})",
                self._queue,
                *request_ids,
            )
        return {entry.request_id: entry for entry in (entry_of(row[1:]) for row in rows)}

    async def entries_to_number(self, number_digest: str) -> list[Entry]:
        """Return the entries of requests to one number, the oldest first."""
        with metrics.LEDGER.labels("entries_to_number").time():
            rows = await self._store.fetch(
                f"{SELECT} WHERE queue = $1 AND number_digest = $2 ORDER BY first_seen_at",
                self._queue,
                number_digest,
            )
        return [entry_of(row[1:]) for row in rows]

    async def waiting(self) -> Waiting:
        """Count what waits for a later moment."""
        with metrics.LEDGER.labels("waiting").time():
            rows = await self._store.fetch(
                "SELECT CASE WHEN unsure_since IS NOT NULL THEN 'in_doubt'"
                " WHEN scheduled IS NOT NULL THEN 'scheduled' ELSE 'retrying' END AS kind,"
                " count(*), min(due_at) FROM calls WHERE queue = $1 AND state = 'delayed'"
                " GROUP BY 1",
                self._queue,
            )
        counts = {row[0]: row[1] for row in rows}
        next_due_at = next((row[2] for row in rows if row[0] == "scheduled"), None)
        return Waiting(**counts, next_due_at=next_due_at)

    async def outcomes(self, since: float) -> dict[str, int]:
        """Count what requests have come to since a moment: `started`, or a reason to fail.

        Those that started come first, then the most frequent reason.
        """
        with metrics.LEDGER.labels("outcomes").time():
            rows = await self._store.fetch(
                "SELECT coalesce(reason, state), count(*) FROM calls"
                " WHERE state IN ('started', 'failed') AND changed_at >= $1 AND queue = $2"
                " GROUP BY 1",
                since,
                self._queue,
            )
        by_count = sorted(rows, key=lambda row: (row[0] != "started", -row[1], row[0]))
        return {row[0]: row[1] for row in by_count}

    async def outcomes_by_hour(self, since: float) -> dict[int, dict[str, int]]:
        """Count as `outcomes` does, by the hours since a moment, from 0."""
        with metrics.LEDGER.labels("outcomes_by_hour").time():
            rows = await self._store.fetch(
                "SELECT CAST(changed_at - $1 AS INTEGER) / 3600, coalesce(reason, state), count(*)"
                " FROM calls WHERE state IN ('started', 'failed') AND changed_at >= $1"
                " AND queue = $2 GROUP BY 1, 2",
                since,
                self._queue,
            )
        hours: dict[int, dict[str, int]] = {}
        for hour, outcome, count in rows:
            hours.setdefault(hour, {})[outcome] = count
        return hours

    async def next_due(self, limit: int) -> list[Entry]:
        """Return entries that wait for a later moment, the next due first."""
        with metrics.LEDGER.labels("next_due").time():
            rows = await self._store.fetch(
                f"{SELECT} WHERE queue = $1 AND state = 'delayed' ORDER BY due_at LIMIT $2",
                self._queue,
                limit,
            )
        return [entry_of(row[1:]) for row in rows]

    async def dialled(self, since: float) -> tuple[int, float]:
        """Count the requests that were dialled since a moment, and tell when the first was."""
        # Asked for all states at once, SQLite would read every entry of the queue.
        of_state = (
            "SELECT count(*) AS entries, min(claimed_at) AS first FROM calls"
            " WHERE state = '{}' AND changed_at >= $1"
            " AND claimed_at >= $1 AND queue = $2"
        )
        states = " UNION ALL ".join(map(of_state.format, get_args(State)))
        with metrics.LEDGER.labels("dialled").time():
            rows = await self._store.fetch(
                f"SELECT sum(entries), min(first) FROM ({states}) AS by_state",  # noqa: S608
                since,
                self._queue,
            )
        return int(rows[0][0]), float(rows[0][1] or since)

    async def calls_to_number(self, entry: Entry, since: float) -> int:
        """Return how many calls the number of *entry* has had since a moment, of any queue's.

        Those of *entry* itself count where they started: a person may want a second one.
        """
        with metrics.LEDGER.labels("calls_to_number").time():
            rows = await self._store.fetch(
                "SELECT (SELECT count(*) FROM calls WHERE number_digest = $1 AND claimed_at >= $2"
                " AND (state = 'started' OR ((state = 'placing' OR unsure_since IS NOT NULL)"
                " AND NOT (queue = $3 AND request_id = $4))))"
                " + (SELECT count(*) FROM earlier_calls WHERE number_digest = $1"
                " AND claimed_at >= $2 AND NOT EXISTS (SELECT 1 FROM calls"
                " WHERE calls.call_id = earlier_calls.call_id AND calls.state = 'started'))",
                entry.number_digest,
                since,
                self._queue,
                entry.request_id,
            )
        return int(rows[0][0])

    async def open_claims(self) -> set[tuple[str, int]]:
        """Return id and version of each request of this queue that is about to be dialled.

        Whose answer is awaited is among them.
        """
        with metrics.LEDGER.labels("open_claims").time():
            rows = await self._store.fetch(
                "SELECT request_id, version FROM calls WHERE state = 'placing' AND queue = $1",
                self._queue,
            )
        return {(row[0], row[1]) for row in rows}

    async def others_in_doubt(self, entry: Entry) -> list[Entry]:
        """Return other requests to the same number and line that an unknown call may belong to."""
        with metrics.LEDGER.labels("others_in_doubt").time():
            rows = await self._store.fetch(
                f"{SELECT} WHERE target_digest = $1 AND (unsure_since IS NOT NULL"
                " OR state = 'placing' OR (state = 'started' AND call_id IS NULL))",
                entry.target_digest,
            )
            found = [(row[0], entry_of(row[1:])) for row in rows]
            found += await self._earlier.doubts_about(entry.target_digest)
        mine = (self._queue, entry.request_id)
        return [other for queue, other in found if (queue, other.request_id) != mine]

    async def in_doubt(self, target_digest: str) -> list[Entry]:
        """Return the requests to one number and line that wait for a look into the history."""
        with metrics.LEDGER.labels("in_doubt").time():
            rows = await self._store.fetch(
                f"{SELECT} WHERE queue = $1 AND target_digest = $2 AND state = 'delayed'"
                " AND unsure_since IS NOT NULL",
                self._queue,
                target_digest,
            )
        return [entry_of(row[1:]) for row in rows]

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
            earlier = await self._earlier.calls(wanted)
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

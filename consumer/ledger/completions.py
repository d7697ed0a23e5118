"""What became of the calls that the portal accepted: which are open, and how others ended."""

import time
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass, fields, replace
from typing import Any

from consumer import metrics
from consumer.ledger.about import About
from consumer.ledger.entry import Entry
from consumer.ledger.follow_lease import FollowLease
from consumer.ledger.statements import ENDED, NOTE_ENDING, OPEN_CALLS, OPEN_EARLIER
from consumer.ledger.store import Store, Value, marks
from consumer.messages.endings import CallOutcome, Ending

FOLLOWED_BEFORE_S = 3600.0
"""Calls of so long before it was turned on are followed too: hosts' clocks differ."""
ANNOUNCED_BY_NOW_S = 3600.0
"""After so long a `call.started` is taken to be out, though nobody could note it."""
AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call that the portal accepted, and of whose end nothing is known.

    Attributes:
        started_at: When that was learnt, in seconds since the epoch, by some host's clock.
        clock_offset_s: How far the portal's clock was ahead of that clock; None if unknown.
    """

    request_id: str
    replay: int
    call_id: str
    started_at: float
    clock_offset_s: float | None


@dataclass(frozen=True, slots=True)
class Completion:
    """A call that has ended, and how; *completed_at* is when that was learnt.

    *traceparent* is that of its attempt, unless another call has taken its place.
    """

    request_id: str
    replay: int
    call_id: str
    started_at: float
    completed_at: float
    ending: Ending
    traceparent: str | None = None


class Completions:
    """Each method raises `LedgerDown` where the store cannot be used.

    A call is known by its request and replay. It is open from its start on; the request may start
    another one meanwhile, if a person asks for that.
    """

    def __init__(self, store: Store, about: About, queue: str) -> None:
        self._store = store
        self._about = about
        self._queue = queue
        self.lease = FollowLease(store, queue)

    async def follow(self) -> None:
        """Note that calls are followed from now on, if that is new."""
        since = time.time() - FOLLOWED_BEFORE_S
        await self._about.note_once(self._followed, repr(since).encode())

    async def stop_following(self) -> None:
        """Note that calls are not followed: those of this time never will be."""
        await self._about.forget(self._followed)

    @property
    def _followed(self) -> str:
        return f"followed {self._queue}"

    async def _since(self) -> float:
        about = await self._about.read(self._followed)
        return float(about.get(self._followed, b"inf"))

    async def something_open(self) -> bool:
        """Tell whether a row of the history is waited for, by a call that started or may have."""
        doubts = (
            "SELECT 1 FROM calls WHERE queue = $1 AND state = 'delayed'"
            " AND unsure_since IS NOT NULL LIMIT 1"
        )
        with metrics.LEDGER.labels("something_open").time():
            since = await self._since()
            for calls in (OPEN_CALLS, OPEN_EARLIER):
                if await self._store.fetch(f"{calls} LIMIT 1", self._queue, since):
                    return True
            return bool(await self._store.fetch(doubts, self._queue))

    async def open_calls(self, limit: int) -> list[OpenCall]:
        """Return open calls, those first that are open longest."""
        with metrics.LEDGER.labels("open_calls").time():
            values = (self._queue, await self._since(), limit)
            rows = [
                *await self._store.fetch(f"{OPEN_CALLS} ORDER BY changed_at LIMIT $3", *values),
                *await self._store.fetch(f"{OPEN_EARLIER} ORDER BY began_at LIMIT $3", *values),
            ]
        return _once_each(rows)

    async def open_among(self, call_ids: Sequence[str]) -> list[OpenCall]:
        """Return those open calls that have one of *call_ids*."""
        if not call_ids:
            return []
        with metrics.LEDGER.labels("open_among").time():
            among = marks(call_ids, after=2)
            values: list[Value] = [self._queue, await self._since(), *call_ids]
            rows = [
                *await self._store.fetch(f"{OPEN_CALLS} AND call_id IN ({among})", *values),
                *await self._store.fetch(f"{OPEN_EARLIER} AND of_call IN ({among})", *values),
            ]
        return _once_each(rows)

    async def note(self, call: OpenCall, ending: Ending, now: float) -> None:
        """Note how a call ended, unless that is known, or somebody else has the lease.

        Args:
            call: Which one.
            ending: How it ended.
            now: Seconds since the epoch.
        """
        with metrics.LEDGER.labels("note_completion").time():
            await self._store.execute(
                NOTE_ENDING,
                self._queue,
                call.request_id,
                call.replay,
                call.call_id,
                call.started_at,
                *astuple(ending),
                now,
                *self.lease.fence,
            )
            await self._store.execute(
                "UPDATE calls SET completed_replay = $3 WHERE queue = $1 AND request_id = $2"
                " AND completed_replay < $3 AND EXISTS (SELECT 1 FROM completions WHERE queue = $1"
                " AND request_id = $2 AND replay = $3 AND outcome IS NOT NULL)",
                self._queue,
                call.request_id,
                call.replay,
            )

    async def to_announce(self, now: float) -> list[Completion]:
        """Return what has ended and is not announced, where `call.started` is out."""
        with metrics.LEDGER.labels("to_announce").time():
            rows = await self._store.fetch(
                "SELECT CASE calls.replay WHEN c.replay THEN traceparent END,"  # noqa: S608
                f" {ENDED} FROM completions c JOIN calls ON calls.queue = c.queue"
                " AND calls.request_id = c.request_id"
                " WHERE c.queue = $1 AND c.announced = FALSE AND c.outcome IS NOT NULL"
                " AND (calls.replay > c.replay OR calls.published OR calls.changed_at < $2)"
                " LIMIT $3",
                self._queue,
                now - ANNOUNCED_BY_NOW_S,
                AT_ONCE,
            )
        return [replace(_completion(ended), traceparent=trace) for trace, *ended in rows]

    async def latest(self, request_ids: Collection[str]) -> dict[str, Completion]:
        """Return of each request how the latest call ended of which that is known.

        Args:
            request_ids: Some, at least one.
        """
        with metrics.LEDGER.labels("latest_completions").time():
            rows = await self._store.fetch(
                f"SELECT {ENDED} FROM completions c WHERE c.queue = $1 AND c.outcome IS NOT NULL"  # noqa: S608
                f" AND c.request_id IN ({marks(request_ids, after=1)}) ORDER BY c.replay",
                self._queue,
                *request_ids,
            )
        return {row[0]: _completion(row) for row in rows}

    async def note_announced(self, completion: Completion) -> None:
        """Note that the broker has the event."""
        with metrics.LEDGER.labels("note_announced").time():
            await self._store.execute(
                "UPDATE completions SET announced = TRUE"
                " WHERE queue = $1 AND request_id = $2 AND replay = $3",
                self._queue,
                completion.request_id,
                completion.replay,
            )

    async def outcomes_since(self, moment: float) -> dict[CallOutcome, int]:
        """Count how the calls ended of which that was learnt since a moment."""
        with metrics.LEDGER.labels("outcomes_since").time():
            rows = await self._store.fetch(
                "SELECT outcome, count(*) FROM completions"
                " WHERE queue = $1 AND completed_at >= $2 GROUP BY outcome ORDER BY 2 DESC",
                self._queue,
                moment,
            )
        return {row[0]: int(row[1]) for row in rows}

    async def keep_open(self, entry: Entry, call_id: str) -> None:
        """Keep the call of *entry* open, though another call is about to take its place."""
        await self._store.execute(
            "INSERT INTO completions (queue, request_id, replay, of_call, began_at)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            self._queue,
            entry.request_id,
            entry.replay,
            call_id,
            entry.changed_at,
        )

    async def forget(self, before: float) -> None:
        """Remove what started before a moment, and had ended by then or never did."""
        for which in ("completed_at < $2", "outcome IS NULL"):  # each has an index
            await self._store.execute(
                f"DELETE FROM completions WHERE queue = $1 AND began_at < $2 AND {which}",  # noqa: S608
                self._queue,
                before,
            )


def _once_each(rows: Sequence[Sequence[Any]]) -> list[OpenCall]:
    calls = [OpenCall(*row) for row in rows]
    return list({(call.request_id, call.replay): call for call in calls}.values())


def _completion(row: Sequence[Any]) -> Completion:
    request_id, replay, call_id, started_at, completed_at, *ended = row
    names = (field.name for field in fields(Ending))
    ending = Ending(**dict(zip(names, ended, strict=True)))
    return Completion(request_id, replay, call_id, started_at, completed_at, ending)

"""Which workers run, and how each is: every worker writes a row of its own."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Literal

from consumer import metrics
from consumer.ledger.store import Store

GONE_AFTER_S = 30.0
"""A worker that has written nothing for so long has ended, or cannot reach the ledger."""
KEPT_S = 3600.0
"""The row of a worker that is gone is removed after so long, by any other worker."""
Phase = Literal["starting", "calling", "disconnected", "paused", "stopping"]
Role = Literal["active", "standby", "ready", "starting", "disconnected", "paused", "stopping"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """How a worker is; times are seconds since the epoch.

    Attributes:
        phase: `calling` where it takes what the broker hands it, if that is anything.
        pauses: What is wrong, in words, by the reason for a pause or the step of the start.
        breaker: The state of its circuit breaker, in words.
        probes_at: When it probes the portal next, where that is why it is paused.
        blocked_until: Until when the portal's operating limit allows no call, 0 if it does.
        rate_per_s: How many calls a second it may place, 0 for no limit.
        policies: What policies of the broker have done to our queues, and to which.
    """

    phase: Phase
    pauses: Mapping[str, str] = field(default_factory=dict)
    breaker: str = "closed"
    probes_at: float | None = None
    blocked_until: float = 0.0
    rate_per_s: float = 0.0
    policies: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """A worker as the ledger has it; times are seconds since the epoch, by its host's clock.

    Attributes:
        owner: Tells it from all others; new with each start.
        handled_at: When its latest message came, 0 before the first.
    """

    owner: str
    host: str
    started_at: float
    seen_at: float
    handled_at: float
    state: WorkerState


class WorkersTable:
    """Each method raises `LedgerDown` where the store cannot be used."""

    def __init__(self, store: Store, queue: str) -> None:
        self._store = store
        self._queue = queue

    async def write(self, row: WorkerRow) -> None:
        """Write a worker's row over the one that was there; remove those that nobody writes."""
        with metrics.LEDGER.labels("write_worker").time():
            await self._store.execute(
                "INSERT INTO workers"
                " (queue, owner, host, started_at, seen_at, handled_at, detail)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (queue, owner)"
                " DO UPDATE SET seen_at = $5, handled_at = $6, detail = $7",
                self._queue,
                row.owner,
                row.host,
                row.started_at,
                row.seen_at,
                row.handled_at,
                json.dumps(asdict(row.state)),
            )
            await self._store.execute(
                "DELETE FROM workers WHERE queue = $1 AND seen_at < $2",
                self._queue,
                row.seen_at - KEPT_S,
            )

    async def remove(self, owner: str) -> None:
        """Remove a worker's row."""
        await self._store.execute(
            "DELETE FROM workers WHERE queue = $1 AND owner = $2", self._queue, owner
        )

    async def running(self) -> list[WorkerRow]:
        """Return the workers that run, in the order of their starts."""
        rows = await self._store.fetch(
            "SELECT owner, host, started_at, seen_at, handled_at, detail FROM workers"
            " WHERE queue = $1 AND seen_at >= $2 ORDER BY started_at, owner",
            self._queue,
            time.time() - GONE_AFTER_S,
        )
        return [_row_of(*row) for row in rows]


def _row_of(  # noqa: PLR0913, PLR0917  # one for each column
    owner: str, host: str, started_at: float, seen_at: float, handled_at: float, detail: str
) -> WorkerRow:
    """Read a row; a worker of another version may know other things to say."""
    known = {each.name for each in fields(WorkerState)}
    told = {k: v for k, v in json.loads(detail).items() if k in known}
    told["policies"] = tuple(told.get("policies", ()))
    state = WorkerState(**told)
    return WorkerRow(
        owner=owner,
        host=host,
        started_at=started_at,
        seen_at=seen_at,
        handled_at=handled_at,
        state=state,
    )


def roles(workers: Sequence[WorkerRow]) -> list[Role]:
    """Say of each worker whether the broker hands it the requests.

    The broker chooses one consumer and tells nobody which: the one that got a message last. Where
    several are there and none got any, each is `ready`.
    """
    calling = [worker for worker in workers if worker.state.phase == "calling"]
    latest = max(calling, key=lambda worker: worker.handled_at, default=None)
    known = latest is not None and (latest.handled_at > 0 or len(calling) == 1)

    def role(worker: WorkerRow) -> Role:
        if worker.state.phase != "calling":
            return worker.state.phase
        if not known:
            return "ready"
        return "active" if worker is latest else "standby"

    return list(map(role, workers))

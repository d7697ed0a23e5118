"""A worker's sign of life in the ledger, for whoever asks how the workers are."""

import asyncio
import math
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from consumer.housekeeping import keep_running
from consumer.ledger import LedgerDown
from consumer.ledger.workers import Phase, WorkerRow, WorkersTable, WorkerState
from consumer.limits.rate_limiter import RateLimiter
from consumer.readiness import Readiness
from consumer.shutdown import end

LOOK_S = 1.0
"""How often a worker looks whether its state has changed."""
BEAT_S = 5.0
"""How often it writes where nothing has changed."""


class Heartbeat:
    """Writes how this worker is, until it stops; says nothing where the ledger is down.

    Args:
        owner: Tells this worker from all others.
        table: Where to write.
        handled_at: Tells when the latest message came, in seconds since the epoch.
        readiness: Knows why none is taken.
        rate_limiter: Knows how fast calls may be placed.
        started: Whether the start is over, and no stop has begun.
        stopping: Whether a stop has begun.
    """

    def __init__(  # noqa: PLR0913  # all that there is to tell
        self,
        *,
        owner: str,
        table: WorkersTable,
        handled_at: Callable[[], float],
        readiness: Readiness,
        rate_limiter: RateLimiter,
        started: Callable[[], bool],
        stopping: Callable[[], bool],
    ) -> None:
        self._owner = owner
        self._table = table
        self._handled_at = handled_at
        self._readiness = readiness
        self._rate_limiter = rate_limiter
        self._started = started
        self._stopping = stopping
        self._began_at = time.time()
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Write from now on."""
        self._beating = asyncio.create_task(keep_running("heartbeat", self._beat))

    async def close(self) -> None:
        """Write no more, and remove what was written."""
        if self._beating is not None:
            await end([self._beating])
        with suppress(LedgerDown):
            await self._table.remove(self._owner)

    async def _beat(self) -> None:
        written, written_at = None, -math.inf
        while True:
            state = self.state()
            if state != written or time.monotonic() - written_at >= BEAT_S:
                with suppress(LedgerDown):
                    await self._table.write(self._row(state))
                # Also where it is down: to try may hold up the calls.
                written, written_at = state, time.monotonic()
            await asyncio.sleep(LOOK_S)

    def _row(self, state: WorkerState) -> WorkerRow:
        return WorkerRow(
            owner=self._owner,
            host=socket.gethostname(),
            started_at=self._began_at,
            seen_at=time.time(),
            handled_at=self._handled_at(),
            state=state,
        )

    def state(self) -> WorkerState:
        """Say how this worker is now."""
        pauses = self._readiness.pauses()
        blocked_s = self._rate_limiter.blocked_s
        breaker = self._readiness.breaker
        return WorkerState(
            phase=self._phase(paused=bool(pauses)),
            pauses=pauses,
            breaker=breaker.detail,
            probes_at=breaker.probes_at,
            blocked_until=round(time.time() + blocked_s) if blocked_s > 0 else 0.0,
            rate_per_s=self._rate_limiter.rate_per_s,
            policies=self._readiness.policies.recent,
        )

    def _phase(self, *, paused: bool) -> Phase:
        if self._stopping():
            return "stopping"
        if not self._started():
            return "starting"
        if paused:
            return "paused"
        return "calling" if self._readiness.subscription.consuming else "disconnected"

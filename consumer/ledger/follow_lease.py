"""Which of all replicas follows up calls: a lease with a fencing number, and how far it has read.

Hosts' clocks are not compared. A holder that lives writes a new beat every few seconds; who sees
the same beat for `STALE_S` takes the lease over. Each taking has a higher number (the fence), and a
write under an older one does nothing.
"""

import time

from consumer import metrics
from consumer.ledger.store import Store

STALE_S = 30.0
"""For so long one beat must have been seen before another worker takes the lease over."""
VALID_S = STALE_S / 2
"""For so long after its last beat a holder relies on its lease."""


class FollowLease:
    """Each method raises `LedgerDown` where the store cannot be used."""

    def __init__(self, store: Store, queue: str) -> None:
        self._store = store
        self.name = f"follow {queue}"
        self._fence = 0
        self._beaten_at = float("-inf")
        self._seen: tuple[int, int] | None = None
        self._seen_at = 0.0

    @property
    def held(self) -> bool:
        """Whether it is ours, as far as can be told without asking."""
        return time.monotonic() - self._beaten_at < VALID_S

    @property
    def fence(self) -> tuple[str, int]:
        """The lease's name, and its number when we took it."""
        return self.name, self._fence

    async def beat(self, holder: str, *, at_once: bool) -> None:
        """Keep the lease, or take it if nobody keeps it.

        Args:
            holder: Who we are.
            at_once: Take it from another holder, though that one lives: only we place calls now,
                and who reads the history must know how many requests that takes.
        """
        asked_at = time.monotonic()
        with metrics.LEDGER.labels("follow_lease").time():
            done = await self._keep(holder) or await self._take(holder, at_once=at_once)
        self._beaten_at = asked_at if done else float("-inf")

    async def _keep(self, holder: str) -> bool:
        kept = "UPDATE leases SET beat = beat + 1 WHERE name = $1 AND fence = $2 AND holder = $3"
        return await self._store.execute(kept, *self.fence, holder) == 1

    async def _take(self, holder: str, *, at_once: bool) -> bool:
        rows = await self._store.fetch(
            "SELECT fence, beat, holder FROM leases WHERE name = $1", self.name
        )
        if not rows:
            await self._store.execute(
                "INSERT INTO leases VALUES ($1, '', 0, 0, NULL) ON CONFLICT DO NOTHING", self.name
            )
            rows = [(0, 0, "")]
        fence, beat, held_by = rows[0]
        if (fence, beat) != self._seen:
            self._seen, self._seen_at = (fence, beat), time.monotonic()
        stale = not held_by or time.monotonic() - self._seen_at >= STALE_S
        if not stale and not at_once:
            return False
        taken = (
            "UPDATE leases SET holder = $2, fence = $3 + 1, beat = 0"
            " WHERE name = $1 AND fence = $3 AND (beat = $4 OR $5)"
        )
        if await self._store.execute(taken, self.name, holder, fence, beat, at_once) == 0:
            return False
        self._fence = fence + 1
        return True

    async def release(self, holder: str) -> None:
        """Give it back, if it is ours, so that another worker need not wait."""
        self._beaten_at = float("-inf")
        if not self._fence:
            return
        await self._store.execute(
            "UPDATE leases SET holder = '' WHERE name = $1 AND fence = $2 AND holder = $3",
            *self.fence,
            holder,
        )

    async def cursor(self) -> int | None:
        """Return the id of the last row that was read; None before the first."""
        rows = await self._store.fetch("SELECT cursor FROM leases WHERE name = $1", self.name)
        return rows[0][0] if rows else None

    async def move_cursor(self, row_id: int) -> None:
        """Note that all rows up to one are read, if the lease is ours still."""
        with metrics.LEDGER.labels("move_cursor").time():
            await self._store.execute(
                "UPDATE leases SET cursor = $3 WHERE name = $1 AND fence = $2", *self.fence, row_id
            )

"""When the next dead letter may go, and how long dead letters may be held unacknowledged."""

import asyncio

HOLD_S = 60.0
"""How long dead letters are held at most where no rate makes us wait; the broker has a limit."""
HOLD_WAITING_S = 2.0
"""How long, while a rate makes us wait."""


class Turns:
    """Keeps to a rate, and holds dead letters only for short times.

    Args:
        rate_per_s: At most so many letters a second; None for as fast as can be.
    """

    def __init__(self, rate_per_s: float | None) -> None:
        self._clock = asyncio.get_running_loop().time
        self._interval_s = 1 / rate_per_s if rate_per_s else 0.0
        self._hold_s = HOLD_WAITING_S if rate_per_s else HOLD_S
        self._due = self._taken_at = self._clock()
        self._hold_until: float | None = None

    async def wait(self) -> None:
        """Wait for the next turn, however long that takes."""
        await asyncio.sleep(self._due - self._clock())

    def take_in_hand(self) -> None:
        """Remember since when dead letters are held."""
        self._taken_at = self._clock()
        self._hold_until = None

    async def next(self) -> bool:
        """Wait for the next turn; False if dead letters would be held for too long."""
        now = self._clock()
        if self._hold_until is None:
            # To take many takes a while, so it must be worth it.
            self._hold_until = now + max(self._hold_s, 2 * (now - self._taken_at))
        self._due = max(self._due + self._interval_s, now)
        if self._due > self._hold_until:
            return False
        await self.wait()
        return True

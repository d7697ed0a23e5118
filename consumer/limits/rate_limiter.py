"""The portal's rate limit, kept on our side so that the portal does not have to refuse."""

import asyncio
import time
from collections.abc import Awaitable, Callable

MOST_OWED = 10
"""Requests; with a burst of 20 the portal, which forgives 50, does not mind."""
YIELDING_S = 0.1
"""How often a request that lets others go first looks whether its turn has come."""


class RateLimiter:
    """A leaky bucket like the portal's own: so many requests a second, and a short burst.

    The allowance is empty when the first request asks for it: whoever called before us, a worker
    that was stopped or the active one of two, may just have used it.

    Source: https://apidocs.bitrix24.com/limits.html

    Args:
        rate_per_s: Requests a second; 0 turns the limit off.
        burst: The most that idle time can save up.
        clock: Seconds that only grow.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        rate_per_s: float,
        burst: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self._allowance = 0.0
        self._counted_at: float | None = None
        self._blocked_until = float("-inf")
        self._asking = 0
        self.calls = 0
        """How many calls have asked for their turn."""

    async def acquire(self) -> None:
        """Wait until one more request is allowed, in the order of asking, and take it."""
        self._asking += 1
        try:
            async with self._turn:
                while (delay_s := self._delay_s()) > 0:
                    await self._sleep(delay_s)
                self._allowance -= 1
        finally:
            self._asking -= 1

    async def acquire_after_others(self, longest_s: float) -> None:
        """Do as `acquire`, but let all others go first, for *longest_s* seconds at most."""
        until = self._clock() + longest_s
        while (self._asking or self._delay_s() > 0) and self._clock() < until:
            await self._sleep(YIELDING_S)
        await self.acquire()

    async def borrow(self) -> None:
        """Take one more request before all that wait, and owe it: those wait longer.

        For a request that was sent before, and must be sent again soon or not at all.
        """
        while (delay_s := self._delay_s(owing=MOST_OWED)) > 0:
            await self._sleep(delay_s)
        self._allowance -= 1

    async def acquire_for_call(self) -> None:
        """Do as `acquire`, but not while calls are blocked."""
        self.calls += 1
        self._refill()  # what is saved up counts from here
        await self._unblocked()
        await self.acquire()
        while self.blocked_s > 0:  # since this request began to wait for its turn
            self._allowance += 1
            await self._unblocked()
            await self.acquire()

    def is_free(self) -> bool:
        """Tell whether a call would not have to wait for its turn."""
        return not self._turn.locked() and self.blocked_s <= 0 and self._delay_s() <= 0

    def empty(self) -> None:
        """Forget the saved allowance: the portal's bucket is full, or somebody else may fill it."""
        self._refill()
        self._allowance = min(self._allowance, 0.0)

    def block_for(self, seconds: float) -> None:
        """Allow no call for so many seconds; other requests are not affected."""
        self._blocked_until = max(self._blocked_until, self._clock() + seconds)

    async def _unblocked(self) -> None:
        while (blocked_s := self.blocked_s) > 0:
            await self._sleep(blocked_s)

    @property
    def blocked_s(self) -> float:
        """For how many seconds no call is allowed yet; not above 0 where calls are."""
        return self._blocked_until - self._clock()

    def _delay_s(self, owing: int = 0) -> float:
        self._refill()
        missing = 1 - self._allowance - owing
        return missing / self.rate_per_s if self.rate_per_s and missing > 0 else 0.0

    def _refill(self) -> None:
        now = self._clock()
        if self._counted_at is not None:
            earned = (now - self._counted_at) * self.rate_per_s
            self._allowance = min(self._allowance + earned, float(self._burst))
        self._counted_at = now

"""A portal's two limits: how often one asks, and for how long that keeps it busy."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.sandbox.request import RestRequest
    from consumer.sandbox.switches import Switches


class LeakyBucket:
    """The request counter of one client: one more per request, and less once per second.

    Refused requests count too: nobody knows, and it is the reading that forgives least.
    """

    def __init__(self, now: float) -> None:
        self._count = 0.0
        self._since = now

    def admits(self, now: float, rate_per_s: float, threshold: float) -> bool:
        ticks = int(now - self._since)
        self._since += ticks
        self._count = max(0.0, self._count - ticks * rate_per_s) + 1
        return self._count <= threshold


class OperatingTime:
    """How long a method ran in the last ten minutes, in buckets of one minute."""

    def __init__(self) -> None:
        self._buckets: deque[tuple[float, float]] = deque()  # first run (Unix), seconds

    def add(self, now: float, ran_s: float) -> None:
        if ran_s <= 0.1:  # noqa: PLR2004  # portals do not count these
            return
        if self._buckets and now - self._buckets[-1][0] < 60:  # noqa: PLR2004  # a minute
            first, total = self._buckets.pop()
            self._buckets.append((first, total + ran_s))
        else:
            self._buckets.append((now, ran_s))

    def total_s(self, now: float) -> float:
        while self._buckets and self._buckets[0][0] + 600 <= now:
            self._buckets.popleft()
        return sum(seconds for _, seconds in self._buckets)

    def reset_at(self, now: float) -> float:
        """Tell when the oldest bucket drops out, in Unix seconds."""
        return (self._buckets[0][0] if self._buckets else now) + 600


class Limits:
    """How much of both limits each client and each method has used.

    Args:
        monotonic: The clock of the rate limit, in seconds.
        wall: The clock of the operating time, in Unix seconds.
    """

    def __init__(self, monotonic: Callable[[], float], wall: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._buckets: dict[str, LeakyBucket] = {}
        self._operating: dict[str, OperatingTime] = {}

    def within_rate(self, switches: Switches, request: RestRequest) -> bool:
        rate, now = switches.rate_per_s, self._monotonic()
        bucket = self._buckets.setdefault(request.client, LeakyBucket(now))
        if rate == 0:
            return True
        threshold = 25 * rate if switches.threshold is None else switches.threshold
        return bucket.admits(now, rate, threshold)

    def within_operating(self, switches: Switches, request: RestRequest) -> bool:
        spent_s = self.operating_of(request.method).total_s(self._wall())
        return spent_s <= switches.operating_limit_s

    def operating_of(self, method: str) -> OperatingTime:
        return self._operating.setdefault(method, OperatingTime())

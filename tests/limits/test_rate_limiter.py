"""The portal's limits, kept on our side: against a clock of our own and a portal's own bucket."""

import asyncio
from dataclasses import dataclass, field
from math import floor

import pytest

from consumer.limits.rate_limiter import RateLimiter


@dataclass
class Clock:
    """Time that passes only while somebody sleeps."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        # No real clock stands still, however short the sleep.
        self.now += max(seconds, 1e-6)
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def paced(clock: Clock, rate_per_s: float = 2.0, burst: int = 20) -> RateLimiter:
    return RateLimiter(rate_per_s, burst, clock=clock, sleep=clock.sleep)


async def times_of(pace: RateLimiter, clock: Clock, requests: int) -> list[float]:
    """Say when each of so many requests was allowed, in seconds from now."""
    began = clock.now
    times = []
    for _ in range(requests):
        await pace.acquire_for_call()
        times.append(round(clock.now - began, 3))
    return times


async def test_nothing_is_saved_up_at_first(clock: Clock) -> None:
    assert await times_of(paced(clock), clock, 4) == [0.5, 1.0, 1.5, 2.0]


async def test_the_time_before_the_first_request_saves_nothing_up(clock: Clock) -> None:
    pace = paced(clock)
    clock.now += 3600

    assert await times_of(pace, clock, 2) == [0.5, 1.0]


async def test_idle_time_saves_up_a_burst_and_no_more(clock: Clock) -> None:
    pace = paced(clock, burst=3)
    await pace.acquire_for_call()
    clock.now += 3600

    assert await times_of(pace, clock, 5) == [0.0, 0.0, 0.0, 0.5, 1.0]


async def test_a_short_idle_time_saves_up_what_it_is_worth(clock: Clock) -> None:
    pace = paced(clock)
    await pace.acquire_for_call()
    clock.now += 1.25

    assert await times_of(pace, clock, 4) == [0.0, 0.0, 0.25, 0.75]


async def test_slow_requests_are_not_slowed_down_further(clock: Clock) -> None:
    pace = paced(clock)
    await pace.acquire_for_call()
    clock.slept.clear()

    for _ in range(10):
        clock.now += 0.5
        await pace.acquire_for_call()

    assert clock.slept == []


async def test_a_rate_below_one_a_second_is_kept_too(clock: Clock) -> None:
    assert await times_of(paced(clock, rate_per_s=0.25, burst=1), clock, 3) == [4.0, 8.0, 12.0]


async def test_a_rate_of_0_is_no_limit(clock: Clock) -> None:
    assert await times_of(paced(clock, rate_per_s=0), clock, 1000) == [0.0] * 1000
    assert clock.slept == []


async def test_those_who_asked_first_come_first(clock: Clock) -> None:
    pace = paced(clock)
    came: list[int] = []

    async def ask(number: int) -> None:
        await pace.acquire_for_call()
        came.append(number)

    async with asyncio.TaskGroup() as asking:
        for number in range(20):
            asking.create_task(ask(number))

    assert came == list(range(20))
    assert clock.now == pytest.approx(1010.0)


async def test_who_stops_waiting_takes_nothing(clock: Clock) -> None:
    asleep = asyncio.Event()

    async def sleep_on(_: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    pace = RateLimiter(2.0, 20, clock=clock, sleep=sleep_on)
    waiting = asyncio.create_task(pace.acquire_for_call())
    await asleep.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    clock.now += 0.5

    await pace.acquire_for_call()  # it would sleep on for ever

    assert clock.now == 1000.5


async def test_emptied_it_begins_anew(clock: Clock) -> None:
    pace = paced(clock)
    await pace.acquire_for_call()
    clock.now += 3600

    pace.empty()

    assert await times_of(pace, clock, 2) == [0.5, 1.0]


async def test_emptying_counts_the_time_until_then(clock: Clock) -> None:
    pace = paced(clock)
    await pace.acquire_for_call()
    pace.empty()
    clock.now += 0.25

    assert await times_of(pace, clock, 2) == [0.25, 0.75]


async def test_it_may_be_emptied_before_it_is_used(clock: Clock) -> None:
    pace = paced(clock)

    pace.empty()

    assert await times_of(pace, clock, 1) == [0.5]


async def test_held_it_allows_nothing_and_then_what_was_saved_up(clock: Clock) -> None:
    pace = paced(clock, burst=3)
    await pace.acquire_for_call()

    pace.block_for(60)

    assert await times_of(pace, clock, 4) == [60.0, 60.0, 60.0, 60.5]


async def test_a_shorter_hold_does_not_end_a_longer_one(clock: Clock) -> None:
    pace = paced(clock)
    pace.block_for(60)

    pace.block_for(1)

    assert await times_of(pace, clock, 1) == [60.0]


async def test_a_hold_of_nothing_is_none(clock: Clock) -> None:
    pace = paced(clock)

    pace.block_for(0)

    assert await times_of(pace, clock, 1) == [0.5]


async def test_without_a_rate_a_hold_still_holds(clock: Clock) -> None:
    pace = paced(clock, rate_per_s=0)

    pace.block_for(60)

    assert await times_of(pace, clock, 3) == [60.0, 60.0, 60.0]


async def test_a_hold_reaches_those_who_wait_already(clock: Clock) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        if not slept:
            pace.block_for(60)
        slept.append(seconds)
        clock.now += seconds

    pace = RateLimiter(2.0, 20, clock=clock, sleep=sleep)

    await pace.acquire_for_call()

    assert slept == [0.5, 59.5]


async def test_by_the_real_clock_the_rate_is_kept() -> None:
    pace = RateLimiter(200.0, 1)
    loop = asyncio.get_running_loop()
    began = loop.time()

    for _ in range(10):
        await pace.acquire_for_call()

    assert 0.045 <= loop.time() - began < 1


# --- against a portal


@dataclass
class Bucket:
    """The portal's: each request adds one, the rate leaks once a second, too full is refused.

    Source: https://apidocs.bitrix24.com/limits.html
    """

    rate_per_s: int
    leaks_at: float
    level: int = 0
    leaked: int = 0
    refused: int = 0
    served: int = 0

    def ask(self, now: float) -> None:
        seconds = floor(now - self.leaks_at)
        self.level = max(0, self.level - self.rate_per_s * (seconds - self.leaked))
        self.leaked = seconds
        self.level += 1
        if self.level > 25 * self.rate_per_s:
            self.refused += 1
        else:
            self.served += 1


RATES = pytest.mark.parametrize(("rate_per_s", "burst"), [(2, 20), (5, 20), (20, 20), (2, 48)])
PHASES = pytest.mark.parametrize("phase", [0.0, 0.25, 0.999])
TEN_MINUTES = 600.0


@RATES
@PHASES
async def test_a_busy_worker_uses_the_whole_rate_and_is_never_refused(
    rate_per_s: int, burst: int, phase: float, clock: Clock
) -> None:
    pace = paced(clock, rate_per_s, burst)
    bucket = Bucket(rate_per_s, leaks_at=clock.now - phase)
    ends = clock.now + TEN_MINUTES

    while clock.now < ends:
        await pace.acquire_for_call()
        bucket.ask(clock.now)

    assert bucket.refused == 0
    assert bucket.served >= 0.99 * rate_per_s * TEN_MINUTES


@RATES
@PHASES
async def test_a_worker_that_idles_and_bursts_is_never_refused(
    rate_per_s: int, burst: int, phase: float, clock: Clock
) -> None:
    pace = paced(clock, rate_per_s, burst)
    bucket = Bucket(rate_per_s, leaks_at=clock.now - phase)
    ends = clock.now + TEN_MINUTES
    gaps_s = (0.0, 3.0, 60.0, 0.4, 11.0, 120.0)

    turn = 0
    while clock.now < ends:
        for _ in range(3 * burst):
            await pace.acquire_for_call()
            bucket.ask(clock.now)
        clock.now += gaps_s[turn % len(gaps_s)]
        turn += 1

    assert bucket.refused == 0


@pytest.mark.parametrize("rate_per_s", [2, 5, 20])
async def test_a_worker_that_takes_over_from_a_full_burst_is_not_refused(
    rate_per_s: int, clock: Clock
) -> None:
    bucket = Bucket(rate_per_s, leaks_at=clock.now)
    for _ in range(20):
        bucket.ask(clock.now)
    pace = paced(clock, rate_per_s)

    for _ in range(rate_per_s * 60):
        await pace.acquire_for_call()
        bucket.ask(clock.now)

    assert bucket.refused == 0


# --- a request that is sent again


async def test_what_is_borrowed_comes_first_and_is_paid_back_by_who_waits(clock: Clock) -> None:
    pace = paced(clock)
    waiting = asyncio.create_task(times_of(pace, clock, 1))
    await asyncio.sleep(0)
    borrowed_at = clock.now
    await pace.borrow()
    await pace.borrow()

    assert clock.now == borrowed_at
    assert await waiting == [1.5]


async def test_no_more_is_owed_than_a_portal_forgives(clock: Clock) -> None:
    pace = paced(clock)
    for _ in range(10):
        await pace.borrow()
    assert clock.slept == []

    await pace.borrow()

    assert clock.slept == [0.5]


async def test_without_a_limit_nothing_is_owed(clock: Clock) -> None:
    pace = paced(clock, rate_per_s=0)
    for _ in range(30):
        await pace.borrow()

    assert clock.slept == []


async def order_of(limiter: RateLimiter, longest_s: float) -> list[str]:
    """Return in which order a request that yields and calls that never cease have their turn."""
    turns: list[str] = []

    async def yielding() -> None:
        await limiter.acquire_after_others(longest_s)
        turns.append("read")

    async def calls() -> None:
        for _ in range(5):
            await limiter.acquire_for_call()
            turns.append("call")

    await asyncio.gather(yielding(), calls(), calls())
    return turns


async def test_calls_go_before_who_yields(clock: Clock) -> None:
    assert await order_of(paced(clock), 60.0) == [*["call"] * 10, "read"]


async def test_who_has_yielded_long_enough_waits_in_the_order_of_asking(clock: Clock) -> None:
    turns = await order_of(paced(clock), 2.0)

    assert 3 <= turns.index("read") <= 7


async def test_who_yields_does_not_wait_where_nobody_asks(clock: Clock) -> None:
    limiter = paced(clock)
    await limiter.acquire()
    clock.now += 10

    await limiter.acquire_after_others(60.0)

    assert clock.slept == [0.5]

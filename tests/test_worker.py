"""Messages in, acknowledgements out, with stand-ins for all around it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from aiormq.exceptions import AMQPConnectionError

from consumer.caller import GivenBack
from consumer.delivery import Unreadable
from consumer.limits.circuit_breaker import CircuitBreaker
from consumer.messages import Defaults
from consumer.worker import Worker
from tests.canary import TEXT
from tests.fakes import NUMBER, FakeSubscription

if TYPE_CHECKING:
    from consumer.delivery import Delivery

CHANNEL = object()


@dataclass
class FakeRaw:
    """A message as aio-pika hands it out."""

    body: bytes
    redelivered: bool = False
    message_id: str | None = None
    channel: object = CHANNEL
    consumer_tag: str = "ctag"
    exchange: str = "calls"
    routing_key: str = "call.requested"
    headers: dict[str, Any] = field(default_factory=dict)
    timestamp: datetime | None = None


@dataclass
class FakeMessage:
    """A message as FastStream hands it out."""

    raw_message: Any
    settled: list[str] = field(default_factory=list)
    lost: bool = False

    async def ack(self) -> None:
        self._settle("ack")

    async def reject(self, *, requeue: bool) -> None:
        self._settle("requeue" if requeue else "reject")

    async def nack(self, *, requeue: bool) -> None:
        self._settle("requeue" if requeue else "reject")

    def _settle(self, how: str) -> None:
        if self.lost:
            raise AMQPConnectionError
        self.settled.append(how)


def message(request_id: str = "r-1", **changes: Any) -> Any:  # noqa: ANN401
    body = {"request_id": request_id, "to_number": NUMBER, "text_to_pronounce": TEXT}
    return FakeMessage(FakeRaw(json.dumps(body).encode(), **changes))


@dataclass
class FakeProcessor:
    """Finishes when it may."""

    may_finish: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    seen: list[Delivery | Unreadable] = field(default_factory=list)

    async def process(self, delivery: Delivery | Unreadable) -> None:
        self.seen.append(delivery)
        await self.may_finish.wait()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        pass


@dataclass
class FakeWaits:
    """Remembers what was to be cancelled."""

    interrupted: list[object] = field(default_factory=list)

    def cancel(self, task: asyncio.Task[None]) -> None:
        self.interrupted.append(task)


@dataclass
class FakeLimiter:
    emptied: int = 0

    def empty(self) -> None:
        self.emptied += 1


@dataclass
class Counter:
    """A worker and its neighbours."""

    processor: FakeProcessor = field(default_factory=FakeProcessor)
    waits: FakeWaits = field(default_factory=FakeWaits)
    limiter: FakeLimiter = field(default_factory=FakeLimiter)

    def __post_init__(self) -> None:
        async def well(*_: object) -> bool:
            return False

        self.breaker = CircuitBreaker(2, FakeSubscription(), well, None)
        neighbours: dict[str, Any] = {
            "processor": self.processor,
            "waits": self.waits,
            "rate_limiter": self.limiter,
        }
        self.worker = Worker(
            subscription=FakeSubscription(),
            breaker=self.breaker,
            defaults=Defaults(line="reg1"),
            **neighbours,
        )

    def handle(self, each: Any) -> asyncio.Task[None]:  # noqa: ANN401
        return asyncio.create_task(self.worker.handle(each))

    async def begun(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.processor.seen) < count:  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0)


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def quick(counter: Counter) -> Counter:
    counter.processor.may_finish.set()
    return counter


async def test_a_message_is_acknowledged_once_it_is_done_with(counter: Counter) -> None:
    ours = message()
    handling = counter.handle(ours)
    await counter.begun(1)
    assert ours.settled == []

    counter.processor.may_finish.set()
    await handling

    assert ours.settled == ["ack"]


async def test_what_comes_back_while_it_is_worked_on_joins(counter: Counter) -> None:
    first, again = message(), message(redelivered=True)
    handling = counter.handle(first)
    await counter.begun(1)
    joined = counter.handle(again)
    await asyncio.sleep(0)

    counter.processor.may_finish.set()
    await asyncio.gather(handling, joined)

    assert len(counter.processor.seen) == 1
    assert again.settled == ["ack"]


async def test_another_copy_comes_after_it(counter: Counter) -> None:
    handling = [counter.handle(message(message_id=str(n))) for n in range(2)]
    await counter.begun(1)
    await asyncio.sleep(0)
    assert len(counter.processor.seen) == 1

    counter.processor.may_finish.set()
    await asyncio.gather(*handling)

    assert len(counter.processor.seen) == 2


async def test_what_was_done_and_not_acknowledged_is_not_done_again(quick: Counter) -> None:
    unacked, again = message(), message(redelivered=True)
    unacked.lost = True
    await quick.worker.handle(unacked)

    await quick.worker.handle(again)

    assert len(quick.processor.seen) == 1
    assert again.settled == ["ack"]


async def test_a_link_that_drops_gives_up_who_waits_and_leaves_the_call(counter: Counter) -> None:
    handling = counter.handle(message())
    await counter.begun(1)

    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling

    (task,) = counter.waits.interrupted
    assert isinstance(task, asyncio.Task)
    assert not task.done()
    counter.processor.may_finish.set()
    await task


async def test_what_is_given_back_is_no_doubt_when_it_comes_again(quick: Counter) -> None:
    quick.processor.error = GivenBack()
    back, again = message(), message(redelivered=True)
    await quick.worker.handle(back)
    quick.processor.error = None

    await quick.worker.handle(again)

    assert (back.settled, again.settled) == (["requeue"], ["ack"])
    assert [delivery.redelivered for delivery in quick.processor.seen] == [False, False]


async def test_a_bug_leaves_the_message_to_the_broker_and_opens_the_breaker(
    quick: Counter,
) -> None:
    quick.processor.error = KeyError("state")
    first, second = message("r-1"), message("r-2")

    await quick.worker.handle(first)
    await quick.worker.handle(second)

    assert (first.settled, second.settled) == (["reject"], ["reject"])
    assert quick.breaker.is_open


@pytest.mark.parametrize(
    ("body", "settled"), [(b"garbage", "reject"), (b"x" * 70_000, "reject"), (b"[]", "ack")]
)
async def test_what_cannot_be_read_is_left_to_the_broker(
    quick: Counter, body: bytes, settled: str
) -> None:
    unreadable: Any = FakeMessage(FakeRaw(body))

    await quick.worker.handle(unreadable)

    (seen,) = quick.processor.seen
    assert isinstance(seen, Unreadable)
    assert unreadable.settled == [settled]


async def test_a_new_consumer_starts_without_savings(quick: Counter) -> None:
    for channel, tag in ((CHANNEL, "a"), (CHANNEL, "a"), (CHANNEL, "b"), (object(), "b")):
        await quick.worker.handle(
            message(str(datetime.now(UTC).timestamp()), channel=channel, consumer_tag=tag)
        )

    assert quick.limiter.emptied == 3


async def test_a_drain_waits_for_what_is_begun_and_begins_nothing(counter: Counter) -> None:
    handling = counter.handle(message("r-1"))
    await counter.begun(1)
    draining = asyncio.create_task(counter.worker.drain())
    await asyncio.sleep(0)
    late = counter.handle(message("r-2"))
    with pytest.raises(asyncio.CancelledError):
        await late
    assert not draining.done()

    counter.processor.may_finish.set()
    await asyncio.gather(draining, handling)

    assert len(counter.processor.seen) == 1

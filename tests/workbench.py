"""Exchange and queues of a test's own, what is published to them, what comes out."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aio_pika

from consumer.app import App
from consumer.messages import COMPLETED, REQUESTED
from consumer.rabbitmq.topology import topology_of
from consumer.settings import Settings
from tests.canary import TEXT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from aio_pika.abc import AbstractChannel, AbstractIncomingMessage


WITHIN_S = 20.0
"""How long a test waits for what should come at once."""


@dataclass(frozen=True)
class Seen:
    """A message that the test has received, and the fields of its body if that is an object."""

    message: AbstractIncomingMessage

    @property
    def headers(self) -> Mapping[str, Any]:
        return self.message.headers

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        return json.loads(self.message.body)[name]

    @property
    def fields(self) -> Any:  # noqa: ANN401
        return json.loads(self.message.body)


@dataclass
class Bench:
    """An exchange and queues of a test's own, what is published to them, what comes out."""

    given: dict[str, Any]
    channel: AbstractChannel
    heard: list[Seen] = field(default_factory=list)
    completions: list[Seen] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def settings(self, **changes: object) -> Settings:
        """Return settings for this bench, quick and without a rate limit."""
        settings = Settings.model_validate(self.given | changes)
        topology = topology_of(settings)
        for queue in topology.queues:
            self.used.add(queue.name)
        self.used.add(f"{settings.queue}.ledger")
        return settings

    @property
    def queue(self) -> str:
        return str(self.given["queue"])

    @property
    def exchange(self) -> str:
        return str(self.given["exchange"])

    @asynccontextmanager
    async def running(self, **changes: object) -> AsyncIterator[App]:
        """Run a worker in this loop; it drains at the end of the block."""
        app = App(self.settings(**changes))
        task = asyncio.create_task(app.run())
        try:
            await self.until(
                lambda: app.subscription.consuming or app.controls.paused or task.done()
            )
            yield app
        finally:
            app.stop()
            async with asyncio.timeout(WITHIN_S):
                await task

    async def publish(
        self,
        body: bytes | Mapping[str, object],
        headers: Mapping[str, Any] | None = None,
        *,
        to_queue: bool = False,
        key: str = REQUESTED,
        **properties: Any,  # noqa: ANN401
    ) -> None:
        """Publish as upstream does, or *to_queue* through the default exchange, as an operator."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        message = aio_pika.Message(content, headers=dict(headers or {}), **properties)
        if to_queue:
            await self.channel.default_exchange.publish(message, self.queue)
        else:
            exchange = await self.channel.get_exchange(self.exchange, ensure=False)
            await exchange.publish(message, key)

    async def ask(self, number: str = "+12025550100", **fields: object) -> str:
        """Publish a request as upstream does, and return its id."""
        request = self.request(number, **fields)
        await self.publish(request)
        return str(request["request_id"])

    @staticmethod
    def request(number: str = "+12025550100", **fields: object) -> dict[str, object]:
        needed = {"request_id": str(uuid4()), "to_number": number, "text_to_pronounce": TEXT}
        return needed | fields

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until *holds*."""
        async with asyncio.timeout(WITHIN_S):
            while not holds():  # noqa: ASYNC110  # neither sandbox nor worker tells of all it does
                await asyncio.sleep(0.01)

    def events_of(self, request_id: str | None) -> list[Seen]:
        """Return the events so far about one request."""
        return [event for event in self.heard if event["request_id"] == request_id]

    async def events(self, request_id: str | None, count: int = 1) -> list[Seen]:
        """Wait for so many events about one request."""
        await self.until(lambda: len(self.events_of(request_id)) >= count)
        return self.events_of(request_id)

    async def event(self, request_id: str | None) -> Seen:
        """Wait for the first event about a request."""
        return (await self.events(request_id))[0]

    async def take(self, queue: str, count: int = 1, *, put_back: bool = False) -> list[Seen]:
        """Take so many messages from a queue, waiting for them; perhaps only to look at them."""
        taken: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        source = await self.channel.get_queue(queue)
        await self.channel.set_qos(prefetch_count=count)
        tag = await source.consume(taken.put)
        try:
            async with asyncio.timeout(WITHIN_S):
                messages = [await taken.get() for _ in range(count)]
        finally:
            await source.cancel(tag)
        for message in messages:
            await (message.nack() if put_back else message.ack())
        return [Seen(message) for message in messages]

    async def dead_letters(self, count: int = 1) -> list[Seen]:
        """Take so many dead letters, waiting for them."""
        return await self.take(f"{self.queue}.dlq", count)

    async def waiting(self, delay_s: int, count: int = 1) -> list[Seen]:
        """Take so many requests out of a delay queue, waiting for them."""
        return await self.take(f"{self.queue}.delay.{delay_s}s", count)

    async def count(self, queue: str) -> int:
        """Count the messages that are ready in a queue."""
        found = await self.channel.declare_queue(queue, passive=True)
        return found.declaration_result.message_count or 0

    async def until_count(self, queue: str, count: int) -> None:
        """Wait until so many messages are ready in a queue."""
        async with asyncio.timeout(WITHIN_S):
            while await self.count(queue) != count:  # noqa: ASYNC110  # the broker tells nobody
                await asyncio.sleep(0.01)

    async def note(self, message: AbstractIncomingMessage) -> None:
        await message.ack()
        heard = self.completions if message.type == COMPLETED else self.heard
        heard.append(Seen(message))

    def completed(self, request_id: str) -> list[Seen]:
        """Return what was told so far of how a request's calls ended."""
        return [event for event in self.completions if event["request_id"] == request_id]

    async def completion(self, request_id: str, count: int = 1) -> Seen:
        """Wait for so many such events about one request, and return the last of them."""
        await self.until(lambda: len(self.completed(request_id)) >= count)
        return self.completed(request_id)[count - 1]

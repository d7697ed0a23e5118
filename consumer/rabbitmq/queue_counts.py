"""How many messages a queue has ready, and how many the broker has evicted from it."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from aio_pika.abc import AbstractConnection
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity
from pamqp.commands import Queue

from consumer.rabbitmq.connection import connect
from consumer.rabbitmq.declaration import explained
from consumer.rabbitmq.losses import link_losses


@dataclass(frozen=True, slots=True)
class QueueCount:
    """How many messages are ready, and how many consumers are registered."""

    messages: int
    consumers: int


async def count_queues(url: str, queues: Iterable[str]) -> dict[str, QueueCount]:
    """Count what those of *queues* hold that are there and may be seen.

    Raises:
        BrokerUnavailable: The broker cannot be asked.
    """
    counts = {}
    connection = await connect(url, "counts")
    async with connection:
        for name in queues:
            with link_losses(), suppress(ChannelNotFoundEntity, ChannelAccessRefused):
                async with connection.channel() as channel:
                    queue = await channel.declare_queue(name, passive=True)
                found = queue.declaration_result
                counts[name] = QueueCount(found.message_count or 0, found.consumer_count or 0)
    return counts


class QueueCounts:
    """Counts what a queue holds, anew at each question.

    Args:
        connection: Where to ask.
        queue: The queue.
        evicted: Where the broker puts what it takes out of *queue*, if anywhere.
    """

    def __init__(
        self, connection: AbstractConnection, queue: str, evicted: str | None = None
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._evicted = evicted

    async def now(self) -> Queue.DeclareOk:
        """Return how many messages are ready in the queue, and how many consumers it has.

        Raises:
            WrongTopology: The queue is not there, or may not be seen.
        """
        async with self._connection.channel() as channel:
            with explained(f"queue {self._queue}"):
                queue = await channel.declare_queue(self._queue, passive=True)
            return queue.declaration_result

    async def ready(self) -> int:
        """Return how many messages are ready in the queue."""
        return (await self.now()).message_count or 0

    async def aside(self) -> tuple[int, int]:
        """Count what the broker has evicted, and the workers that bring it back, if we may see."""
        if self._evicted is None:
            return 0, 0
        try:
            async with self._connection.channel() as channel:
                queue = await channel.declare_queue(self._evicted, passive=True)
        except (ChannelNotFoundEntity, ChannelAccessRefused):
            return 0, 0
        found = queue.declaration_result
        return found.message_count or 0, found.consumer_count or 0

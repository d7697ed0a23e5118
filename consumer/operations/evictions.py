"""Bring back dead letters that the broker evicted because of a policy, while a worker runs."""

import asyncio
from collections.abc import Iterable

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from consumer.operations.deaths import evicted_for, id_of, own_headers
from consumer.rabbitmq.connection import connect
from consumer.rabbitmq.declaration import WrongTopology, explained
from consumer.rabbitmq.losses import BrokerUnavailable, NotPublished, link_losses
from consumer.rabbitmq.outgoing import build_message
from consumer.rabbitmq.policies import BY_DEATH, Policies
from consumer.rabbitmq.publisher import Publisher
from consumer.rabbitmq.topology import Topology

LOOK_S = 5.0
IN_HAND = 1000
"""An unacknowledged message does not expire, even if a policy sets a message-ttl."""
BATCH = 50
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0

log = structlog.get_logger(__name__)


class Evictions:
    """Moves evicted dead letters back to the dead-letter queue, built anew.

    Args:
        url: The broker.
        topology: Whose dead letters.
        publisher: For the dead letters.
        policies: Told of each eviction.
        declares: Whether the queue may be declared where it is missing.
    """

    def __init__(
        self,
        url: str,
        topology: Topology,
        publisher: Publisher,
        policies: Policies,
        *,
        declares: bool,
    ) -> None:
        self._url = url
        self._topology = topology
        self._publisher = publisher
        self._policies = policies
        self._declares = declares
        self._backoff_s = FIRST_BACKOFF_S

    async def run(self) -> None:
        """Bring back what comes, for ever. Nothing waits for this, so errors are only logged."""
        while True:
            try:
                with link_losses():
                    await self._watch()
            except* (WrongTopology, NotPublished, BrokerUnavailable) as errors:
                why = str(errors.exceptions[0])
                log.info("evictions.retry", reason=why, retry_s=self._backoff_s)
            await asyncio.sleep(self._backoff_s)
            self._backoff_s = min(self._backoff_s * 2, LONGEST_BACKOFF_S)

    async def _watch(self) -> None:
        """Consume until the queue or the link is gone, or the dead letters are full."""
        arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        async with await connect(self._url, "evicted dead letters") as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=IN_HAND)
            await (await self._declared(channel)).consume(arrived.put)
            while True:
                try:
                    async with asyncio.timeout(LOOK_S):
                        first = await arrived.get()
                except TimeoutError:
                    if not (await self._found(channel)).declaration_result.consumer_count:
                        return  # deleted and declared anew, which the broker tells no one
                else:
                    await self._bring_back(_batch(first, arrived))
                self._backoff_s = FIRST_BACKOFF_S

    async def _found(self, channel: AbstractChannel) -> AbstractQueue:
        with explained(f"queue {self._topology.evicted.name}"):
            return await channel.declare_queue(self._topology.evicted.name, passive=True)

    async def _declared(self, channel: AbstractChannel) -> AbstractQueue:
        if not self._declares:
            return await self._found(channel)
        evicted = self._topology.evicted
        with explained(f"queue {evicted.name}"):
            return await channel.declare_queue(
                evicted.name, durable=True, arguments=evicted.arguments
            )

    async def _bring_back(self, messages: Iterable[AbstractIncomingMessage]) -> None:
        async with asyncio.TaskGroup() as group:
            for message in messages:
                group.create_task(self._move(message))

    async def _move(self, message: AbstractIncomingMessage) -> None:
        queue = self._topology.dead_letters.name
        if (setting := BY_DEATH.get(evicted_for(message))) is not None:
            self._policies.seen(setting, queue)
        try:
            await self._publisher.publish(self._anew(message), "", queue)
        except NotPublished as error:
            if error.reason == "nacked":
                self._policies.seen("max-length", queue)
            raise
        await message.ack()

    def _anew(self, message: AbstractIncomingMessage) -> aio_pika.Message:
        """Build the dead letter anew; its id and age are kept, for it is the same one."""
        anew = build_message(
            message.body,
            own_headers(message, self._topology.requests.name),
            correlation_id=message.correlation_id,
        )
        anew.message_id = id_of(message)
        anew.timestamp = message.timestamp or anew.timestamp
        return anew


def _batch(
    first: AbstractIncomingMessage, arrived: asyncio.Queue[AbstractIncomingMessage]
) -> list[AbstractIncomingMessage]:
    """Return some messages with different ids: twice in flight, aiormq would lose one."""
    batch = {id_of(first): first}
    while len(batch) < BATCH and not arrived.empty():
        message = arrived.get_nowait()
        if id_of(message) in batch:
            arrived.put_nowait(message)
            break
        batch[id_of(message)] = message
    return list(batch.values())

"""Messages that a consumer holds without reading them, so that nobody else gets them meanwhile."""

import asyncio
from contextlib import suppress

import aiormq
from aiormq.abc import DeliveredMessage
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

from consumer.rabbitmq.connection import address_of
from consumer.rabbitmq.losses import ConnectionLost, link_losses


class Unread(TransportFactory):
    """Messages assigned to a consumer that does not read them: to take them costs next to nothing.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    async def create(
        self, url: URL, **kwargs: object
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, and remember the stream, which aiormq keeps to itself."""
        secure = url.scheme == "amqps"
        factory = TLSTransportFactory() if secure else TCPTransportFactory()
        reader, self._writer = await factory.create(url, **kwargs)
        return reader, self._writer

    async def take(self, url: str, queue: str) -> None:
        """Let the broker assign the messages."""
        address = address_of(url, "dead letters, held")
        self._connection = aiormq.Connection(address, transport_factory=self)
        await self._connection.connect()
        channel = await self._connection.channel()
        await channel.basic_qos(prefetch_count=self.count)
        await channel.basic_consume(queue, _ignore)
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def let_go(self) -> None:
        """Cut the connection: to close it in order, all would have to be read first."""
        self._writer.transport.abort()
        with suppress(ConnectionLost), link_losses():
            await self._connection.close()


async def _ignore(_: DeliveredMessage) -> None:
    pass

"""The link that messages are published over: it consumes nothing, and confirms."""

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import ChannelNotFoundEntity

from consumer.rabbitmq.connection import connect
from consumer.rabbitmq.losses import BrokerUnavailable, ConnectionLost, link_losses

log = structlog.get_logger(__name__)


class ConfirmingLink:
    """A connection with one channel, opened when it is needed.

    After a failure the connection is given up: late confirms would look like new ones.

    Args:
        url: The broker.
        renew_every_s: How long the last channel but one has to end what is in flight, and a new
            one to open.
    """

    def __init__(self, url: str, renew_every_s: float) -> None:
        self._url = url
        self._renew_every_s = renew_every_s
        self._opening = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._retired: AbstractChannel | None = None
        self._renewed_at = float("-inf")

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as can be told without using it."""
        return self._channel is not None and not self._channel.is_closed

    async def open(self) -> AbstractChannel:
        """Return the channel, over a new connection if there is none."""
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                await self.give_up(self._channel)
                connection = await connect(self._url, "publisher")
                try:
                    channel = await connection.channel(on_return_raises=True)
                except BaseException:  # or each try would leave a connection behind
                    await _close(connection)
                    raise
                self._connection, self._channel = connection, channel
            return self._channel

    async def close(self) -> None:
        """Close the connection."""
        await self.give_up(self._channel)

    async def depths(self, queues: Iterable[str]) -> dict[str, int]:
        """Return how many messages are ready in each of *queues* that is there.

        Raises:
            BrokerUnavailable: The connection was given up meanwhile.
        """
        await self.open()
        connection = self._connection  # which a failed publish may give up meanwhile
        if connection is None:
            raise BrokerUnavailable("the connection is gone")
        found = {}
        for name in queues:
            channel = await connection.channel()
            with suppress(ChannelNotFoundEntity):  # which closes the channel
                queue = await channel.declare_queue(name, passive=True)
                found[name] = queue.declaration_result.message_count or 0
            await channel.close()  # where a call was cut short, aiormq has closed it
        return found

    async def renew(self, channel: AbstractChannel | None) -> None:
        """Go on over a new channel: RabbitMQ 3.10 refuses over the old one for ever.

        So it does once a queue was full and a policy no longer limits it, and where the node that
        led a queue was stopped. What is in flight over the old channel has its deadline to end.
        """
        now = time.monotonic()
        if channel is not self._channel or now - self._renewed_at < self._renew_every_s:
            return
        self._renewed_at = now
        with suppress(BrokerUnavailable), link_losses():
            async with asyncio.timeout(self._renew_every_s):
                if self._retired is not None:
                    await self._retired.close()
                if self._connection is not None:
                    anew = await self._connection.channel(on_return_raises=True)
                    self._retired, self._channel = channel, anew

    async def give_up(self, channel: AbstractChannel | None) -> None:
        """Close *channel*'s connection, unless another failure has done so already."""
        if channel is None or channel is not self._channel or self._connection is None:
            return
        connection, self._connection, self._channel = self._connection, None, None
        await _close(connection)


async def _close(connection: AbstractConnection) -> None:
    try:
        with link_losses():
            async with asyncio.timeout(1):
                await connection.close()
    except ConnectionLost:
        log.debug("publisher.close_failed")

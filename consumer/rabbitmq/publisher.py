"""Publish a message, built anew, and know whether the broker has it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from uuid import uuid4

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import DeliveryError
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity
from pamqp import commands

from consumer import metrics
from consumer.rabbitmq.confirming_link import ConfirmingLink
from consumer.rabbitmq.last_tries import LastTries
from consumer.rabbitmq.losses import BrokerUnavailable, NotPublished, link_losses, words_of
from consumer.rabbitmq.outgoing import Outgoing, traced

DEADLINE_S = 5.0
SLOWEST_LINK_BYTES_PER_S = 8_000
FIRST_BACKOFF_S = 1.0
SHORT_BACKOFF_S = 8.0
"""The longest wait in the first minute: a short outage is not to cost a long silence."""
LONGEST_BACKOFF_S = 60.0

log = structlog.get_logger(__name__)


class Publisher:
    """Publishes over a link of its own, opened when it is needed.

    Args:
        url: The broker.
        deadline_s: How long one publish may take, connecting included, beside the time that all
            that is being published needs on the slowest link.
        on_full: Told of each queue of ours that refuses a message.
    """

    def __init__(
        self,
        url: str,
        *,
        deadline_s: float = DEADLINE_S,
        on_full: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._link = ConfirmingLink(url, deadline_s)
        self._on_full = on_full
        self._deadline_s = deadline_s
        self._failing_since: float | None = None
        self._bytes_under_way = 0
        self._last_tries = LastTries()

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as can be told without using it."""
        return self._link.connected

    @property
    def stuck_s(self) -> float:
        """For how many seconds publishing has failed without a success between; 0 if it works."""
        return 0.0 if self._failing_since is None else time.monotonic() - self._failing_since

    async def connect(self) -> None:
        """Connect now, if that has not been done.

        Raises:
            BrokerUnavailable: It cannot be done.
        """
        with link_losses():
            async with asyncio.timeout(self._deadline_s):
                await self._link.open()

    def stop_repeating(self) -> None:
        """Let no message wait longer than `LAST_TRIES_S` for the broker from now on."""
        self._last_tries.begin()

    async def publish(
        self,
        message: aio_pika.Message,
        exchange: str,
        routing_key: str,
        *,
        mandatory: bool | None = None,
    ) -> None:
        """Publish once, and return when the broker has confirmed it.

        Args:
            message: Built anew, by `build_message`.
            exchange: Empty for the default one, whose routing keys are queues.
            routing_key: Where to.
            mandatory: Whether some queue must take it. None: yes for our own queues, no for events.

        Raises:
            NotPublished: It has not been confirmed.
        """
        channel: AbstractChannel | None = None
        try:
            with link_losses():
                async with self._deadline(len(message.body)):
                    channel = await self._link.open()
                    needs_queue = not exchange if mandatory is None else mandatory
                    await _publish(channel, message, exchange, routing_key, mandatory=needs_queue)
        except NotPublished as error:
            if error.reason == "nacked":
                await self._link.renew(channel)
            raise
        except BrokerUnavailable as error:
            await self._link.give_up(channel)
            sent = channel is not None
            if isinstance(error.__cause__, TimeoutError):
                raise NotPublished("timed_out", routing_key, sent=sent) from None
            if isinstance(error.__cause__, ChannelAccessRefused):
                raise NotPublished("forbidden", words_of(error.__cause__)) from None
            raise NotPublished("disconnected", str(error), sent=sent) from None

    @asynccontextmanager
    async def _deadline(self, length: int) -> AsyncIterator[None]:
        """Limit the time of a publish: what is sent at the same time shares the link."""
        self._bytes_under_way += length
        try:
            async with asyncio.timeout(
                self._deadline_s + self._bytes_under_way / SLOWEST_LINK_BYTES_PER_S
            ):
                yield
        finally:
            self._bytes_under_way -= length

    async def send(self, outgoing: Outgoing) -> None:
        """Publish *outgoing* until the broker confirms it."""
        with traced(outgoing) as message:
            await self.publish_until_confirmed(message, outgoing.exchange, outgoing.routing_key)

    async def publish_until_confirmed(
        self, message: aio_pika.Message, exchange: str, routing_key: str
    ) -> None:
        """Publish again and again, with a growing wait between, until it is confirmed.

        Raises:
            CancelledError: The worker stops first. What the message is about is in the ledger, and
                is published when the request comes again.
        """
        async with self._last_tries.limited():
            await self._repeat(message, exchange, routing_key)

    async def _repeat(self, message: aio_pika.Message, exchange: str, routing_key: str) -> None:
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                await self.publish(message, exchange, routing_key)
            except NotPublished as error:
                self._failing_since = self._failing_since or time.monotonic()
                metrics.PUBLISH_FAILURES.labels(error.reason).inc()
                if error.reason == "nacked" and not exchange:
                    self._on_full(routing_key)
                log.warning(
                    "publish.failed",
                    routing_key=routing_key,
                    reason=error.reason,
                    retry_s=backoff_s,
                )
                await asyncio.sleep(backoff_s)
                just_begun = self.stuck_s < LONGEST_BACKOFF_S
                backoff_s = min(backoff_s * 2, SHORT_BACKOFF_S if just_begun else LONGEST_BACKOFF_S)
                message.message_id = str(uuid4())
            else:
                self._failing_since = None
                return

    async def depths(self, queues: Iterable[str]) -> dict[str, int]:
        """Return how many messages are ready in each of *queues* that is there.

        Raises:
            BrokerUnavailable: It cannot be told now.
        """
        with link_losses():
            async with asyncio.timeout(self._deadline_s):
                return await self._link.depths(queues)

    async def depth(self, queue: str) -> int:
        """Return how many messages are ready in one queue; 0 if it is not there.

        Raises:
            BrokerUnavailable: It cannot be told now.
        """
        return (await self.depths([queue])).get(queue, 0)

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()


async def _publish(
    channel: AbstractChannel,
    message: aio_pika.Message,
    exchange: str,
    routing_key: str,
    *,
    mandatory: bool,
) -> None:
    """Publish over *channel*.

    Raises:
        NotPublished: The broker refuses it, or has nowhere to put it.
    """
    try:
        target = (
            await channel.get_exchange(exchange, ensure=False)
            if exchange
            else channel.default_exchange
        )
        await target.publish(message, routing_key, mandatory=mandatory)
    except DeliveryError as error:
        nacked = isinstance(error.frame, commands.Basic.Nack)
        raise NotPublished("nacked" if nacked else "unroutable", routing_key) from None
    except ChannelNotFoundEntity:
        raise NotPublished("unroutable", f"there is no exchange {exchange}") from None

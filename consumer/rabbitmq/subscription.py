"""Take messages from a queue, unless there is a reason to pause.

All that is known of FastStream is here. It connects, keeps the connection and hands each message to
our handler, as raw bytes: it would parse JSON first, and a body that is none would miss our
dead-letter path. We take over what it has no public way for: several brokers' addresses, stopping
and resuming the consumer (its own `stop` drops what arrives meanwhile), the prefetch, and whether a
consumer is registered at all (its `ping` knows the connection only). Acknowledging is the worker's:
FastStream's policies would settle a message whose call is not yet recorded.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

import structlog
from aio_pika.abc import AbstractConnection, AbstractRobustQueue
from faststream import AckPolicy
from faststream.rabbit import Channel, RabbitBroker, RabbitMessage, RabbitQueue

from consumer.rabbitmq.connection import (
    CONNECT_TIMEOUT_S,
    RPC_TIMEOUT_S,
    RobustConnection,
    addresses_of,
)
from consumer.rabbitmq.losses import ConnectionLost, LossLog, link_losses
from consumer.shutdown import LAST_S, within

RECONNECT_S = 1.0
ALIGN_WITHIN_S = 15.0
RETRY_S = 1.0
STOP_WITHIN_S = 1.0

log = structlog.get_logger(__name__)

Message: TypeAlias = RabbitMessage


class Subscription:
    """The consumer of one queue, to be paused, resumed and slowed down.

    FastStream's own `stop` marks the subscriber stopped before it cancels the consumer; what
    arrives between would stay unacknowledged. So the consumer is cancelled here, first.

    Args:
        urls: The broker, or several with commas between.
        queue: Which queue; it is there already.
        prefetch: How many messages are handed out at once at most.
        name: The connection's, for people who look at the broker.
    """

    def __init__(self, urls: str, queue: str, prefetch: int, name: str = "worker") -> None:
        self.queue = queue
        self._broker = _broker(urls, prefetch, name)
        self._subscriber = self._broker.subscriber(
            RabbitQueue(queue, declare=False),
            decoder=_undecoded,
            ack_policy=AckPolicy.MANUAL,
            no_reply=True,
        )
        self.connection: AbstractConnection | None = None
        self._has_handler = False
        self._full = prefetch
        self._wanted = prefetch
        self._prefetch = prefetch
        self._reasons: set[str] = set()
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._stale = False
        self._failing = False

    async def connect(self) -> None:
        """Connect.

        Raises:
            BrokerUnavailable: It cannot be done now.
        """
        with link_losses():
            self.connection = await self._broker.connect()

    async def start(self, handle: Callable[[RabbitMessage], Awaitable[None]]) -> None:
        """Hand each message to *handle* from now on; may be tried again."""
        if not self._has_handler:
            self._subscriber(handle)
            self._has_handler = True
        await self._broker.start()

    async def leave(self, *, answers: bool) -> None:
        """Close the connection, within limits; *answers*: whether the broker just did."""
        if answers:
            await within(STOP_WITHIN_S, "broker", self._broker.stop())
        if self.connection is not None:  # which would try to come back for ever
            await within(LAST_S, "connection", self.connection.close())

    @property
    def paused_by(self) -> set[str]:
        """The reasons why no messages are taken now."""
        return set(self._reasons)

    @property
    def consuming(self) -> bool:
        """Whether a consumer is registered on an open channel."""
        queue, tag = self._queue, self._tag
        if queue is None or tag is None or queue.channel.is_closed:
            return False
        underlay = getattr(queue.channel, "_channel", None)
        channel = getattr(underlay, "channel", None)
        return channel is not None and not channel.is_closed and tag in channel.consumers

    def pause(self, reason: str) -> None:
        """Take no more messages, until *reason* is released."""
        if reason not in self._reasons:
            self._reasons.add(reason)
            self._changed.set()
            log.warning("subscription.paused", reason=reason)

    def resume(self, reason: str) -> None:
        """Take messages again, unless there is another reason to pause."""
        if reason in self._reasons:
            self._reasons.discard(reason)
            self._changed.set()
            log.info("subscription.resumed", reason=reason, still_held_by=sorted(self._reasons))

    def set_prefetch(self, prefetch: int | None) -> None:
        """Take at most so many messages at once; None for as many as at first."""
        self._wanted = prefetch or self._full
        self._changed.set()

    def renew(self) -> None:
        """Consume anew, on a new channel: the broker may have forgotten this consumer."""
        self._stale = True
        self._changed.set()

    async def until_idle(self) -> None:
        """Wait until the consumer is cancelled: what is given back before comes again at once."""
        await self._idle.wait()

    async def run(self) -> None:
        """Bring the consumer in line with the reasons, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                # aio-pika waits for a link that is away, for ever.
                with link_losses():
                    async with asyncio.timeout(ALIGN_WITHIN_S):
                        await self._align()
                self._failing = False
            except ConnectionLost as error:
                # The link is down: aio-pika is restoring it, and perhaps the consumer too.
                if not self._failing:
                    log.warning("subscription.retry", reason=str(error))
                self._failing = True
                await asyncio.sleep(RETRY_S)
                self._stale = self._stale or isinstance(error.__cause__, TimeoutError)
                self._changed.set()

    async def close(self) -> None:
        """Cancel the consumer for good; what was not acknowledged goes back with the channel."""
        self._reasons.add("closed")
        try:
            with link_losses():
                await self._align()
        except ConnectionLost as error:
            log.info("subscription.lost", reason=str(error))

    async def _align(self) -> None:
        queue = self._queue
        if queue is None:
            return
        if self._stale:
            # aiormq closes a channel on which a call timed out. One opened anew consumes as before.
            await queue.channel.close()
            await queue.channel.reopen()
            self._stale = False
        if self._tag is not None and (self._reasons or self._wanted != self._prefetch):
            # aio-pika restores no consumer once its cancel is asked for, whatever comes of that.
            tag, self._tag = self._tag, None
            await queue.cancel(tag, timeout=RPC_TIMEOUT_S)
        if self._tag is None:
            self._idle.set()
        if self._tag is None and not self._reasons:
            # A prefetch counts for the consumers that come after it.
            await queue.channel.set_qos(prefetch_count=self._wanted, timeout=RPC_TIMEOUT_S)
            self._prefetch = self._wanted
            self._idle.clear()
            self._tag = await queue.consume(
                self._subscriber.consume,  # type: ignore[arg-type]  # as FastStream itself has it
                timeout=RPC_TIMEOUT_S,
            )

    # FastStream has no public way to a subscriber's consumer.

    @property
    def _queue(self) -> AbstractRobustQueue | None:
        return self._subscriber._queue_obj  # noqa: SLF001

    @property
    def _tag(self) -> str | None:
        return self._subscriber._consumer_tag  # noqa: SLF001

    @_tag.setter
    def _tag(self, tag: str | None) -> None:
        self._subscriber._consumer_tag = tag  # noqa: SLF001


def _broker(urls: str, prefetch: int, name: str) -> RabbitBroker:
    losses = LossLog()
    broker = RabbitBroker(
        addresses_of(urls).first,
        timeout=CONNECT_TIMEOUT_S,
        reconnect_interval=RECONNECT_S,
        default_channel=Channel(prefetch_count=prefetch),
        graceful_timeout=1.0,  # the worker has drained before
        apply_types=False,
        logger=None,  # it would add a handler of its own, with tracebacks for each lost link
        on_close=[losses.lost],
        on_reconnected=[losses.back],
    )
    broker._connection_kwargs["connection_class"] = partial(  # noqa: SLF001  # several addresses
        RobustConnection, urls, name
    )
    return broker


async def _undecoded(message: RabbitMessage) -> RabbitMessage:
    return message

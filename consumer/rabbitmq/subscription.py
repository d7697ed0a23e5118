"""Take messages from the queue, as long as nothing speaks against it."""

import asyncio

import structlog
from aio_pika.abc import AbstractRobustQueue
from faststream.rabbit.subscriber import RabbitSubscriber

from consumer.rabbitmq.connection import RPC_TIMEOUT_S, ConnectionLost, link_losses

ALIGN_WITHIN_S = 15.0
RETRY_S = 1.0

log = structlog.get_logger(__name__)


class Subscription:
    """The consumer of a FastStream subscriber, to be stopped, resumed and slowed down.

    FastStream's own `stop` marks the subscriber stopped before it cancels the consumer; what
    arrives between would stay unacknowledged. So the consumer is cancelled here, first.

    Args:
        subscriber: Started elsewhere.
        prefetch: How many messages are in hand at most.
    """

    def __init__(self, subscriber: RabbitSubscriber, prefetch: int) -> None:
        self._subscriber = subscriber
        self._full = prefetch
        self._wanted = prefetch
        self._prefetch = prefetch
        self._reasons: set[str] = set()
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._stale = False
        self._failing = False

    @property
    def paused_by(self) -> set[str]:
        """Why no messages are taken, if anything speaks against it."""
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
        """Take messages again, unless something else speaks against it."""
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

"""Messages in, acknowledgements out: one task per request id, which redeliveries join."""

import asyncio
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Protocol

import structlog

from consumer import tracing
from consumer.caller import GivenBack
from consumer.delivery import Delivery, Identity, Unreadable, read_delivery
from consumer.interruptible import Interruptible
from consumer.limits.circuit_breaker import Call, CircuitBreaker
from consumer.limits.rate_limiter import RateLimiter
from consumer.messages import Defaults
from consumer.processor import Processor
from consumer.rabbitmq.losses import ConnectionLost, link_losses
from consumer.rabbitmq.subscription import Message

REMEMBERED = 1000

log = structlog.get_logger(__name__)


class Subscription(Protocol):
    """Where messages come from."""

    queue: str

    async def until_idle(self) -> None:
        """Wait until no message is handed out: what is given back before comes again at once."""


class Worker:
    """Handles requests, as many at once as the broker hands out, one at a time of each id."""

    def __init__(  # noqa: PLR0913  # what a message meets, from its arrival to its ack
        self,
        *,
        processor: Processor,
        waits: Interruptible,
        subscription: Subscription,
        rate_limiter: RateLimiter,
        breaker: CircuitBreaker,
        defaults: Defaults,
    ) -> None:
        self._processor = processor
        self._waits = waits
        self._subscription = subscription
        self._rate_limiter = rate_limiter
        self._breaker = breaker
        self._defaults = defaults
        self._running: dict[str, tuple[Identity, asyncio.Task[None]]] = {}
        self._finished: OrderedDict[Identity, None] = OrderedDict()
        self._given_back: OrderedDict[Identity, None] = OrderedDict()
        self._consumer: tuple[object, str | None] = (None, None)
        self._draining = False
        self.handled_at = 0.0
        """When the latest message came, in seconds since the epoch; 0 before the first."""

    async def handle(self, message: Message) -> None:
        """Do what *message* asks for, then acknowledge it.

        When the link drops, aiormq cancels this handler in mid-call and the same message comes back
        at once. So a task that no channel owns does the work, and what comes back joins it.
        """
        self.handled_at = time.time()
        self._see_consumer(message)
        epoch, key = self._breaker.epoch, ""
        try:
            delivery = read_delivery(message.raw_message, self._defaults)
            key = _key_of(delivery)
            with structlog.contextvars.bound_contextvars(
                request_id=delivery.request_id if isinstance(delivery, Delivery) else None,
                attempt=delivery.headers.attempt if isinstance(delivery, Delivery) else 0,
                replay=delivery.headers.replay,
            ):
                await self._take(delivery, key, message)
        except Exception as error:
            # A bug. Put back it would come again at once; the broker keeps it as a dead letter.
            log.exception("worker.bug")
            self._breaker.record_bug(error, Call(key, None, epoch))
            with suppress(ConnectionLost), link_losses():
                await message.reject(requeue=False)

    def _see_consumer(self, message: Message) -> None:
        """Notice the first message of a new consumer: another worker may have called until now."""
        channel, tag = message.raw_message.channel, message.raw_message.consumer_tag
        if channel is not self._consumer[0] or tag != self._consumer[1]:
            self._consumer = (channel, tag)
            self._rate_limiter.empty()

    async def _take(self, delivery: Delivery | Unreadable, key: str, message: Message) -> None:
        task: asyncio.Task[None] | None = None
        try:
            if not (delivery.redelivered and delivery.identity in self._finished):
                task = await self._task_for(delivery, key)
                await asyncio.shield(task)
        except GivenBack:
            await self._subscription.until_idle()
            with suppress(ConnectionLost), link_losses():
                await message.nack(requeue=True)
            return
        except asyncio.CancelledError:
            # The link is gone, and with it the message, to another worker perhaps.
            if task is not None:
                self._waits.cancel(task)
            raise
        try:
            with link_losses():
                if isinstance(delivery, Unreadable) and delivery.left_to_broker:
                    await message.reject(requeue=False)
                else:
                    await message.ack()
        except ConnectionLost as error:
            log.warning("ack.lost", reason=str(error))

    @property
    def idle(self) -> bool:
        """Whether no message is being worked on."""
        return not self._running

    def stop(self) -> None:
        """Begin nothing more, and give up what only waits for its turn; may be called again."""
        self._draining = True
        self._processor.stop()

    async def drain(self) -> None:
        """Stop, and finish the calls that are begun."""
        self.stop()
        tasks = [task for _, task in self._running.values()]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _task_for(self, delivery: Delivery | Unreadable, key: str) -> asyncio.Task[None]:
        """Return the task that works on *delivery*, after any other of the same request."""
        while (running := self._running.get(key)) is not None:
            identity, task = running
            if delivery.redelivered and identity == delivery.identity:
                return task
            await asyncio.wait([task])
        if self._draining:
            raise asyncio.CancelledError  # its message goes back with the channel
        task = asyncio.create_task(self._work(delivery))
        self._running[key] = (delivery.identity, task)
        task.add_done_callback(partial(self._done, delivery, key))
        return task

    def _done(self, delivery: Delivery | Unreadable, key: str, task: asyncio.Task[None]) -> None:
        del self._running[key]
        if task.cancelled() or isinstance(task.exception(), GivenBack):
            _remember(self._given_back, delivery.identity)
        elif task.exception() is None:
            # If its acknowledgement is lost, the message comes back though nothing is left to do.
            _remember(self._finished, delivery.identity)

    async def _work(self, delivery: Delivery | Unreadable) -> None:
        # What we gave back ourselves comes back as redelivered, and nobody dialled it.
        handed_out = delivery.redelivered and delivery.identity not in self._given_back
        headers = delivery.headers
        with tracing.processing(
            self._subscription.queue,
            delivery.came_by,
            delivery.request_id if isinstance(delivery, Delivery) else None,
            dict(headers.trace),
            anew=headers.sent_back,
            expected=GivenBack,
            attempt=headers.attempt,
            replay=headers.replay,
        ):
            if handed_out != delivery.redelivered:
                delivery = replace(delivery, redelivered=handed_out)
            await self._processor.process(delivery)


def _key_of(delivery: Delivery | Unreadable) -> str:
    """Only one of each key is worked on at a time."""
    return delivery.request_id if isinstance(delivery, Delivery) else delivery.identity[0]


def _remember(known: OrderedDict[Identity, None], identity: Identity) -> None:
    known[identity] = None
    if len(known) > REMEMBERED:
        known.popitem(last=False)

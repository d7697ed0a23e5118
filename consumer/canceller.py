"""Cancellations in: the ledger decides whether each came before the call."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

import structlog

from consumer import tracing
from consumer.delivery import read_headers
from consumer.ledger import Entry, LedgerDown
from consumer.ledger.changes import cancel_unseen
from consumer.ledger.recovery import Recovery
from consumer.messages import CallCancel, Invalid, read_cancel
from consumer.rabbitmq.declaration import explained
from consumer.rabbitmq.losses import ConnectionLost, link_losses
from consumer.rabbitmq.subscription import Message, Subscription
from consumer.recorder import Recorder

START_WITHIN_S = 20.0
CAUGHT_UP_WITHIN_S = 5.0
LOOK_S = 0.05

log = structlog.get_logger(__name__)


class Canceller:
    """Takes requests back. Every replica does so, whichever of them dials.

    Args:
        owner: This process.
    """

    def __init__(self, owner: str, recorder: Recorder, recovery: Recovery) -> None:
        self._owner = owner
        self._recorder = recorder
        self._recovery = recovery
        self._busy = 0
        self._queue = ""

    async def handle(self, message: Message) -> None:
        """Do what a message asks for, then acknowledge it; nothing that it can hold raises."""
        self._busy += 1
        try:
            await self._take_back(message)
        except Exception:
            log.exception("cancel.bug")
        finally:
            self._busy -= 1
        with suppress(ConnectionLost), link_losses():
            await message.ack()

    async def start(
        self, subscription: Subscription, waiting: Callable[[], Awaitable[int]]
    ) -> None:
        """Take cancellations, and wait until those from before are noted, but not for long.

        Args:
            subscription: To their queue.
            waiting: Asks how many wait on the broker.
        """
        self._queue = subscription.queue
        with link_losses(), explained(f"queue {self._queue}"):
            async with asyncio.timeout(START_WITHIN_S):
                await subscription.connect()
                await subscription.start(self.handle)
            with suppress(TimeoutError):
                async with asyncio.timeout(CAUGHT_UP_WITHIN_S):
                    while self._busy or await waiting():  # noqa: ASYNC110  # the broker does not tell
                        await asyncio.sleep(LOOK_S)

    async def _take_back(self, message: Message) -> None:
        body = message.raw_message.body
        cancellation = read_cancel(body)
        if isinstance(cancellation, Invalid):
            if cancellation.request_id is None:
                await self._recorder.refuse_cancellation(body, cancellation)
                return
            # Whatever else is wrong with it: nobody is to be phoned.
            log.warning("cancel.invalid", description=cancellation.description)
            cancellation = CallCancel(request_id=cancellation.request_id)
        with structlog.contextvars.bound_contextvars(request_id=cancellation.request_id):
            await self._note(cancellation, message)

    async def _note(self, cancellation: CallCancel, message: Message) -> None:
        headers = read_headers(message.raw_message.headers, ours=False, now=datetime.now(UTC))
        unseen = cancel_unseen(
            cancellation.request_id, self._owner, cancellation.reason, time.time()
        )
        raw = message.raw_message
        with tracing.processing(
            self._queue,
            f"{raw.exchange}:{raw.routing_key}",
            cancellation.request_id,
            dict(headers.trace),
        ):
            await self._take(unseen, headers.trace)

    async def _take(self, unseen: Entry, trace: tuple[tuple[str, str], ...]) -> None:
        while True:
            try:
                entry = await self._recorder.take_back(unseen, trace)
            except LedgerDown as error:
                await self._recovery.wait(error)
            else:
                log.info("cancel.noted", state=entry.state, reason=entry.reason)
                return

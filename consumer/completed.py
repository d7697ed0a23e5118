"""Publishes `call.completed`, from what the ledger knows."""

import asyncio
import time
from dataclasses import asdict

import structlog

from consumer import metrics
from consumer.announcer import Announcer
from consumer.events import CallCompleted, event_id
from consumer.ledger import LedgerDown
from consumer.ledger.completions import Completion, Completions
from consumer.messages import COMPLETED, rfc3339_at
from consumer.rabbitmq.losses import NotPublished
from consumer.rabbitmq.outgoing import traced
from consumer.rabbitmq.publisher import Publisher

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 300.0

log = structlog.get_logger(__name__)


class CompletedPublisher:
    """Publishes each such event, once the call's `call.started` is out.

    A broker that refuses just these events must not keep requests waiting, as one does that refuses
    the others.
    """

    def __init__(
        self, completions: Completions, announcer: Announcer, publisher: Publisher
    ) -> None:
        self._completions = completions
        self._announcer = announcer
        self._publisher = publisher
        self._next_at = float("-inf")
        self._backoff_s = FIRST_BACKOFF_S

    async def publish(self) -> None:
        """Publish what has ended, and note then that it is out; later, if the broker refuses.

        The first one goes alone: with each one that it refuses, the broker closes the channel.

        Raises:
            LedgerDown: It cannot be told what has ended, or be noted what is out.
        """
        if time.monotonic() < self._next_at:
            return
        try:
            while completions := await self._completions.to_announce(time.time()):
                await self._send(completions[0])
                self._backoff_s = FIRST_BACKOFF_S
                async with asyncio.TaskGroup() as group:
                    for completion in completions[1:]:
                        group.create_task(self._send(completion))
        except* NotPublished as errors:
            self._put_off(errors.exceptions[0])
        except* LedgerDown as errors:
            raise LedgerDown(str(errors.exceptions[0])) from None

    def _put_off(self, error: BaseException) -> None:
        log.warning(
            "publish.failed", routing_key=COMPLETED, reason=str(error), retry_s=self._backoff_s
        )
        self._next_at = time.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, LONGEST_BACKOFF_S)

    async def _send(self, completion: Completion) -> None:
        event = _event_of(completion)
        trace = (("traceparent", completion.traceparent),) if completion.traceparent else ()
        outgoing = self._announcer.event(event, trace)
        with traced(outgoing) as message:
            await self._publisher.publish(message, outgoing.exchange, outgoing.routing_key)
        await self._completions.note_announced(completion)
        metrics.COMPLETED.labels(event.outcome).inc()
        if event.outcome == "answered":
            metrics.CALL_DURATION.observe(event.duration_s)
        log.info(
            "call.completed",
            request_id=event.request_id,
            replay=event.replay,
            call_id=event.call_id,
            outcome=event.outcome,
            code=event.code or None,
            duration_s=event.duration_s,
        )


def _event_of(completion: Completion) -> CallCompleted:
    """Return what tells how a call ended; its message is gone by then."""
    return CallCompleted(
        event_id=event_id(completion.request_id, completion.replay, COMPLETED),
        request_id=completion.request_id,
        call_id=completion.call_id,
        replay=completion.replay,
        started_at=rfc3339_at(completion.started_at),
        completed_at=rfc3339_at(completion.completed_at),
        **asdict(completion.ending),
    )

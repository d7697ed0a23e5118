"""Which message belongs to which state: events, delayed requests, dead letters, each logged."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog

from consumer import metrics
from consumer.delivery import Delivery, MessageHeaders, Unreadable
from consumer.events import (
    CallFailed,
    CallStarted,
    Event,
    cloud_event_headers,
    event_id,
    event_type,
    invalid_event_id,
    to_json,
)
from consumer.ledger import Entry
from consumer.messages import ConfirmedBy, Invalid, rfc3339
from consumer.rabbitmq.publisher import Publisher, build_message
from consumer.rabbitmq.topology import Topology

GRACE_S = 0.5

log = structlog.get_logger(__name__)


class Announcer:
    """Publishes what belongs to the states that requests reach, until the broker confirms it."""

    def __init__(self, publisher: Publisher, topology: Topology) -> None:
        self._publisher = publisher
        self._topology = topology
        self._source = f"/call-consumer/{topology.requests.name}"

    async def started(
        self, entry: Entry, delivery: Delivery, confirmed_by: ConfirmedBy | None = None
    ) -> None:
        """Announce that the portal accepted the call."""
        event = CallStarted(
            event_id=event_id(entry.request_id, entry.replay, "call.started"),
            request_id=entry.request_id,
            call_id=entry.call_id,
            to_number=delivery.number or "",
            from_line=entry.line or "",
            voice=delivery.call.voice if delivery.call else None,
            attempt=entry.attempt,
            replay=entry.replay,
            requested_at=_time(entry.first_seen_at),
            started_at=_time(entry.changed_at),
            confirmed_by=confirmed_by or entry.confirmed_by or "answer",
            metadata=delivery.call.metadata if delivery.call else None,
        )
        await self._announce(event, delivery.headers)
        log.info("call.started", call_id=entry.call_id, confirmed_by=event.confirmed_by)

    async def postponed(
        self, delivery: Delivery, wait_s: float, entry: Entry | None = None
    ) -> None:
        """Put a request into the delay queue nearest to *wait_s* seconds."""
        headers = delivery.headers.as_amqp() | {"x-reason": "not_before"}
        if entry is not None:
            headers = replace(
                delivery.headers,
                attempt=entry.attempt,
                # Made use of: where the ledger is lost, it would be taken for another.
                redial=delivery.headers.redial and delivery.headers.replay > entry.replay,
                unsure_since=None if entry.unsure_since is None else _moment(entry.unsure_since),
            ).as_amqp() | _trouble(entry)
        # What was to be 30 s when it was recorded shall not become six times 5 s a moment later.
        queue = self._topology.delay_for(wait_s + (GRACE_S if entry is not None else 0.0))
        message = build_message(delivery.body, headers, correlation_id=delivery.request_id)
        await self._publisher.publish_until_confirmed(message, "", queue.name)
        delay = next(d for d, known in self._topology.delays.items() if known is queue)
        metrics.DELAYED.labels(delay).inc()
        log.info(
            "call.delayed",
            queue=queue.name,
            wait_s=round(max(wait_s, 0.0), 1),
            code=entry.code if entry else None,
            cause=_cause(entry),
            unsure=bool(entry and entry.unsure_since is not None),
        )

    async def dead_letter(self, entry: Entry, delivery: Delivery) -> None:
        """Keep a request that failed."""
        headers = replace(
            delivery.headers,
            attempt=entry.attempt,
            replay=entry.replay,
            redial=False,
            unsure_since=None if entry.unsure_since is None else _moment(entry.unsure_since),
        )
        failed = _trouble(entry) | {"x-failed-at": _time(entry.changed_at)}
        message = build_message(
            delivery.body, headers.as_amqp() | failed, correlation_id=entry.request_id
        )
        queue = self._topology.dead_letters.name
        await self._publisher.publish_until_confirmed(message, "", queue)
        metrics.DEAD_LETTERS.labels(entry.reason).inc()

    async def failed(self, entry: Entry, delivery: Delivery) -> None:
        """Announce that no call will come of a request."""
        event = CallFailed(
            event_id=event_id(entry.request_id, entry.replay, "call.failed"),
            request_id=entry.request_id,
            reason=entry.reason or "refused",
            code=entry.code,
            description=entry.description,
            http_status=entry.http_status,
            attempt=entry.attempt,
            replay=entry.replay,
            failed_at=_time(entry.changed_at),
            to_number=delivery.number,
            from_line=entry.line,
            metadata=delivery.call.metadata if delivery.call else None,
        )
        await self._announce(event, delivery.headers)
        log.warning("call.failed", reason=event.reason, code=event.code, cause=_cause(entry))

    async def invalid(self, message: Delivery | Unreadable, error: Invalid) -> None:
        """Announce a message that is no request, and keep it; it has no entry in the ledger.

        A body that is not even JSON of a size that we allow is kept by the broker itself, once its
        message is rejected: nothing of that size is sent back over the link.
        """
        failed_at = rfc3339(datetime.now(UTC))
        headers = replace(message.headers, attempt=0, redial=False, unsure_since=None)
        if isinstance(message, Delivery) or message.parsed:
            told = headers.as_amqp() | {
                "x-reason": "invalid",
                "x-code": error.code,
                "x-description": error.description,
                "x-failed-at": failed_at,
            }
            kept = build_message(message.body, told, correlation_id=error.request_id)
            queue = self._topology.dead_letters.name
            await self._publisher.publish_until_confirmed(kept, "", queue)
        metrics.DEAD_LETTERS.labels("invalid").inc()
        event = CallFailed(
            event_id=invalid_event_id(message.body),
            request_id=error.request_id,
            reason="invalid",
            code=error.code,
            description=error.description,
            attempt=0,
            replay=headers.replay,
            failed_at=failed_at,
        )
        await self._announce(event, headers)
        told = {"reason": "invalid", "code": error.code, "description": error.description}
        log.warning("call.failed", attempt=0, **told)  # none was made, whatever the message says

    async def _announce(self, event: Event, headers: MessageHeaders) -> None:
        kind = event_type(event)
        message = build_message(
            to_json(event),
            cloud_event_headers(event, self._source) | dict(headers.trace),
            kind=kind,
            correlation_id=event.request_id,
        )
        await self._publisher.publish_until_confirmed(message, self._topology.exchange, kind)


def _cause(entry: Entry | None) -> str | None:
    """Say why nothing was heard of the portal, in our own words: its own may quote the request."""
    return entry.description or None if entry and entry.http_status is None else None


def _trouble(entry: Entry) -> dict[str, Any]:
    """Return the headers that tell people what went wrong."""
    told = {
        "x-reason": entry.reason or ("unavailable" if entry.unsure_since is None else "unsure"),
        "x-code": entry.code or None,
        "x-description": entry.description or None,
        "x-http-status": entry.http_status,
    }
    return {name: value for name, value in told.items() if value is not None}


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _time(seconds: float) -> str:
    return rfc3339(_moment(seconds))

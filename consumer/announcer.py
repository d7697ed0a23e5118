"""Which messages belong to which state: events, delayed requests, dead letters. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, assert_never

from consumer import metrics
from consumer.delivery import Delivery, Unreadable
from consumer.events import (
    CallFailed,
    CallStarted,
    Event,
    cloud_event_headers,
    event_id,
    event_type,
    invalid_event,
    invalid_event_id,
    to_json,
)
from consumer.ledger import Entry
from consumer.messages import Invalid, rfc3339_at
from consumer.rabbitmq.outgoing import Announcement, Outgoing
from consumer.rabbitmq.topology import Queue, Topology

GRACE_S = 0.5


class Announcer:
    """Says which messages belong to a state. The first of them is the one that must not be lost."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._source = f"/call-consumer/{topology.requests.name}"

    def announcements(
        self, entry: Entry, delivery: Delivery, *, asked_again: bool = False
    ) -> list[Announcement]:
        """Return what belongs to the state of *entry*, in order.

        Args:
            entry: As the ledger has it.
            delivery: The message that the request came in.
            asked_again: Whether a person asked for it once more.
        """
        match entry.state:
            case "started":
                return [self._started(entry, delivery, asked_again=asked_again)]
            case "delayed":
                return [self.postponed(delivery, entry.due_at - entry.changed_at, entry)]
            case "failed" if entry.reason == "cancelled":
                return [self.cancelled(entry, delivery.headers.trace)]
            case "failed" if entry.published:
                return [self._failed(entry, delivery)]
            case "failed":
                return [self._dead_letter(entry, delivery), self._failed(entry, delivery)]
            case "placing":
                return []
        assert_never(entry.state)

    def postponed(self, delivery: Delivery, wait_s: float, entry: Entry) -> Announcement:
        """Return the request, for the delay queue nearest to *wait_s* seconds."""
        headers = replace(
            delivery.headers,
            attempt=entry.attempt,
            # Made use of: where the ledger is lost, it would be taken for another.
            redial=delivery.headers.redial and delivery.headers.replay > entry.replay,
            unsure_since=_unsure_since(entry),
        ).as_amqp() | _trouble(entry)
        # What was to be 30 s when it was recorded shall not become six times 5 s a moment later.
        queue = self._topology.delay_for(wait_s + GRACE_S)
        delay = next(d for d, known in self._topology.delays.items() if known is queue)
        return Announcement(
            _again(delivery, headers, queue),
            "call.delayed",
            fields={
                "queue": queue.name,
                "wait_s": round(max(wait_s, 0.0), 1),
                "code": entry.code or None,
                "cause": _cause(entry),
                "unsure": entry.unsure_since is not None,
            },
            counter=metrics.DELAYED.labels(delay),
        )

    def let_pass(self, delivery: Delivery) -> Announcement:
        """Return the request as it came, for the end of its queue."""
        headers = delivery.headers.as_amqp()
        return Announcement(_again(delivery, headers, self._topology.requests))

    def cancelled(self, entry: Entry, trace: tuple[tuple[str, str], ...] = ()) -> Announcement:
        """Return what belongs to a request that was taken back: no dead letter.

        Where it was waiting, its message is in a delay queue still: so the event tells what the
        ledger knows, whenever it is published.
        """
        event = _failed_event(entry)
        counter = None if entry.published else metrics.CANCELLED
        fields = {"reason": event.reason, "code": event.code}
        return Announcement(self.event(event, trace), "call.failed", "info", fields, counter)

    def unreadable_cancellation(self, body: bytes, error: Invalid) -> Announcement:
        """Return what tells upstream that nothing was taken back."""
        unread = replace(error, description=f"call.cancel: {error.description}", request_id=None)
        outgoing = self.event(invalid_event(invalid_event_id(body), unread))
        fields = {"code": error.code, "description": error.description}
        return Announcement(outgoing, "cancel.invalid", "warning", fields)

    def invalid(self, message: Delivery | Unreadable, error: Invalid) -> list[Announcement]:
        """Return what belongs to a message that is no request; it has no entry in the ledger.

        What is left to the broker becomes a dead letter once its message is rejected.
        """
        headers = replace(message.headers, attempt=0, redial=False, unsure_since=None)
        id_ = invalid_event_id(message.body)
        event = invalid_event(id_, error, headers.replay)
        # No attempt was made, whatever the message says.
        told = {"reason": "invalid", "code": error.code, "description": error.description}
        announced = Announcement(
            self.event(event, headers.trace), "call.failed", "warning", told | {"attempt": 0}
        )
        counter = metrics.DEAD_LETTERS.labels("invalid")
        if isinstance(message, Unreadable) and message.left_to_broker:
            return [replace(announced, counter=counter)]
        kept = headers.as_amqp() | {f"x-{name}": text for name, text in told.items()}
        letter = self._to_dead_letters(
            message.body, kept | {"x-failed-at": event.failed_at}, error.request_id
        )
        return [Announcement(letter, counter=counter), announced]

    def _started(self, entry: Entry, delivery: Delivery, *, asked_again: bool) -> Announcement:
        event = CallStarted(
            event_id=event_id(entry.request_id, entry.replay, "call.started"),
            request_id=entry.request_id,
            call_id=entry.call_id,
            to_number=delivery.number or "",
            from_line=entry.line or "",
            voice=delivery.call.voice if delivery.call else None,
            attempt=entry.attempt,
            replay=entry.replay,
            requested_at=rfc3339_at(entry.first_seen_at),
            started_at=rfc3339_at(entry.changed_at),
            confirmed_by="ledger" if asked_again else entry.confirmed_by or "answer",
            metadata=delivery.call.metadata if delivery.call else None,
        )
        fields = {"call_id": entry.call_id, "confirmed_by": event.confirmed_by}
        return Announcement(
            self.event(event, delivery.headers.trace), "call.started", fields=fields
        )

    def _dead_letter(self, entry: Entry, delivery: Delivery) -> Announcement:
        headers = replace(
            delivery.headers,
            attempt=entry.attempt,
            replay=entry.replay,
            redial=False,
            unsure_since=_unsure_since(entry),
        )
        failed = _trouble(entry) | {"x-failed-at": rfc3339_at(entry.changed_at)}
        letter = self._to_dead_letters(delivery.body, headers.as_amqp() | failed, entry.request_id)
        return Announcement(letter, counter=metrics.DEAD_LETTERS.labels(entry.reason))

    def _failed(self, entry: Entry, delivery: Delivery) -> Announcement:
        event = replace(
            _failed_event(entry),
            to_number=delivery.number,
            metadata=delivery.call.metadata if delivery.call else None,
        )
        fields = {"reason": event.reason, "code": event.code, "cause": _cause(entry)}
        outgoing = self.event(event, delivery.headers.trace)
        return Announcement(outgoing, "call.failed", "warning", fields)

    def _to_dead_letters(
        self, body: bytes, headers: Mapping[str, Any], request_id: str | None
    ) -> Outgoing:
        return Outgoing(
            body=body,
            headers=headers,
            routing_key=self._topology.dead_letters.name,
            correlation_id=request_id,
        )

    def event(self, event: Event, trace: tuple[tuple[str, str], ...] = ()) -> Outgoing:
        """Return the message that carries *event*, with the trace headers that are passed on."""
        kind = event_type(event)
        return Outgoing(
            body=to_json(event),
            headers=cloud_event_headers(event, self._source) | dict(trace),
            routing_key=kind,
            exchange=self._topology.exchange,
            kind=kind,
            correlation_id=event.request_id,
        )


def _again(delivery: Delivery, headers: Mapping[str, Any], queue: Queue) -> Outgoing:
    return Outgoing(
        body=delivery.body,
        headers=headers,
        routing_key=queue.name,
        correlation_id=delivery.request_id,
    )


def _failed_event(entry: Entry) -> CallFailed:
    return CallFailed(
        event_id=event_id(entry.request_id, entry.replay, "call.failed"),
        request_id=entry.request_id,
        reason=entry.reason or "refused",
        code=entry.code,
        description=entry.description,
        http_status=entry.http_status,
        attempt=entry.attempt,
        replay=entry.replay,
        failed_at=rfc3339_at(entry.changed_at),
        from_line=entry.line,
    )


def _cause(entry: Entry | None) -> str | None:
    """Say why nothing was heard of the portal, in our own words: its own may quote the request."""
    return entry.description or None if entry and entry.http_status is None else None


def _trouble(entry: Entry) -> dict[str, Any]:
    """Return the headers that tell people what went wrong."""
    told = {
        "x-reason": entry.reason or entry.scheduled or _waits_for(entry),
        "x-code": entry.code or None,
        "x-description": entry.description or None,
        "x-http-status": entry.http_status,
    }
    return {name: value for name, value in told.items() if value is not None}


def _waits_for(entry: Entry) -> str:
    return "unavailable" if entry.unsure_since is None else "unsure"


def _unsure_since(entry: Entry) -> datetime | None:
    at = entry.unsure_since
    return None if at is None else datetime.fromtimestamp(at, UTC)

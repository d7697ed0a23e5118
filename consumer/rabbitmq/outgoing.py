"""A message to publish: built of its parts, never of a received one; what to tell of it then."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

import aio_pika
from prometheus_client import Counter

from consumer import tracing

APP_ID = "call-consumer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message to publish.

    Attributes:
        exchange: Empty for the default one, whose routing keys are queues.
        kind: Its AMQP type.
    """

    body: bytes = field(repr=False)
    headers: Mapping[str, Any]
    routing_key: str
    exchange: str = ""
    kind: str | None = None
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Announcement:
    """A message to publish, and what to log and count once the broker has it.

    Attributes:
        event: The log line's; empty for none.
        level: How severe that is.
    """

    outgoing: Outgoing
    event: str = ""
    level: Literal["info", "warning"] = "info"
    fields: Mapping[str, object] = field(default_factory=dict)
    counter: Counter | None = None


def build_message(
    body: bytes,
    headers: Mapping[str, Any],
    *,
    kind: str | None = None,
    correlation_id: str | None = None,
) -> aio_pika.Message:
    """Build a persistent JSON message of just these parts.

    Properties copied from a received message would lose or multiply this one (`expiration`, `CC`).
    The message id is new each time: twice in flight on one channel, it makes aiormq lose one.
    """
    return aio_pika.Message(
        body,
        headers=dict(headers),
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=str(uuid4()),
        correlation_id=correlation_id,
        type=kind,
        timestamp=datetime.now(UTC),
        app_id=APP_ID,
    )


@contextmanager
def traced(outgoing: Outgoing) -> Iterator[aio_pika.Message]:
    """Trace a publish; yield the message to send, with the trace in it that goes on there."""
    to = (outgoing.exchange, outgoing.routing_key)
    with tracing.sending(*to, outgoing.correlation_id, outgoing.headers):
        yield build_message(
            outgoing.body,
            tracing.onward(outgoing.headers),
            kind=outgoing.kind,
            correlation_id=outgoing.correlation_id,
        )

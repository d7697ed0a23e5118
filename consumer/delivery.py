"""A received message, read once."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from aio_pika.abc import AbstractIncomingMessage

from consumer.messages import (
    CallRequested,
    Defaults,
    Invalid,
    read_json,
    read_moment,
    read_request,
    readable_id,
    rfc3339,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageHeaders:
    """What our own headers say of a message's life so far.

    Attributes:
        attempt: The attempt about to be made, counting from 1.
        replay: How often a person has sent the request back, counting from 0.
        redial: Whether that person wants it dialled even if it was started before.
        unsure_since: Since when the phone may have rung.
        first_seen_at: When upstream published it, where it says so, else when we first saw it.
        trace: W3C trace headers, carried through.
        sent_back: Whether a person has just sent the request back: a new trace begins.
    """

    attempt: int = 1
    replay: int = 0
    redial: bool = False
    unsure_since: datetime | None = None
    first_seen_at: datetime
    trace: tuple[tuple[str, str], ...] = ()
    sent_back: bool = False

    def as_amqp(self) -> dict[str, Any]:
        """Return them as AMQP headers, for the next message."""
        headers = {
            "x-attempt": self.attempt,
            "x-replay": self.replay,
            "x-first-seen-at": rfc3339(self.first_seen_at),
            **dict(self.trace),
        }
        if self.redial:
            headers["x-redial"] = True
        if self.unsure_since is not None:
            headers["x-unsure-since"] = rfc3339(self.unsure_since)
        return headers


_COUNT_LIMIT = 1_000_000
_TRACESTATE_LIMIT = 512
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


def read_headers(
    headers: Mapping[str, Any], *, ours: bool, now: datetime, published_at: datetime | None = None
) -> MessageHeaders:
    """Read our headers; malformed ones are ignored, all ``x-`` ones unless the message is *ours*.

    Args:
        headers: AMQP headers as received.
        ours: Whether the message came through the default exchange, as those from our queues do.
            One that the broker dead-lettered and somebody moved back tells how it came before.
        now: For a message that has none of them yet.
        published_at: The AMQP timestamp, if there is one.
    """
    first_seen = published_at if published_at is not None and published_at < now else now
    fresh = MessageHeaders(first_seen_at=first_seen, trace=_trace(headers))
    if not ours or came_from_upstream(headers):
        return fresh
    # A dead letter that somebody moved back with the broker's own tools is the next replay.
    moved = read_moment(headers.get("x-failed-at")) is not None
    return replace(
        fresh,
        attempt=1 if moved else max(1, _count(headers.get("x-attempt"), 1)),
        replay=_count(headers.get("x-replay"), 0) + moved,
        redial=headers.get("x-redial") is True,
        unsure_since=read_moment(headers.get("x-unsure-since")),
        first_seen_at=read_moment(headers.get("x-first-seen-at")) or first_seen,
        sent_back=moved or headers.get("x-sent-back") is True,
    )


def deaths(headers: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what the broker wrote down each time it dead-lettered a message, the latest first.

    Source: https://www.rabbitmq.com/docs/dlx#effects
    """
    found = headers.get("x-death")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def came_from_upstream(headers: Mapping[str, Any]) -> bool:
    """Tell whether a dead-lettered message came through a named exchange, with upstream's headers.

    Whatever we publish to our queues goes through the default exchange, whose name is empty.
    """
    return any(death.get("exchange") for death in deaths(headers))


def _count(value: object, default: int) -> int:
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _COUNT_LIMIT
    return value if fits and isinstance(value, int) else default


def _trace(headers: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the W3C trace headers that are well-formed.

    Source: https://www.w3.org/TR/trace-context/
    """
    parent, state = headers.get("traceparent"), headers.get("tracestate")
    if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent):
        return ()
    if not isinstance(state, str) or len(state) > _TRACESTATE_LIMIT or not state.isascii():
        return (("traceparent", parent),)
    return (("traceparent", parent), ("tracestate", state))


Identity = tuple[str, int, int, str | None]
"""Tells a message from a copy of it."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request as it came.

    Attributes:
        body: Byte for byte.
        fields: The body as parsed.
        request_id: Readable even where *request* is not.
        request: The request, or what is wrong with it.
        headers: What its headers say.
        redelivered: Whether the broker has handed it out before.
        came_by: Exchange and routing key, with a colon between.
    """

    body: bytes = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False)
    request_id: str
    request: CallRequested | Invalid
    headers: MessageHeaders
    identity: Identity
    redelivered: bool = False
    came_by: str = ""

    @property
    def call(self) -> CallRequested | None:
        """The request, if it is one."""
        return self.request if isinstance(self.request, CallRequested) else None

    @property
    def number(self) -> str | None:
        """The number, in E.164 where it can be read."""
        if self.call is not None:
            return self.call.to_number
        number = self.fields.get("to_number")
        return number if isinstance(number, str) else None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message without a request id.

    Attributes:
        body: Byte for byte.
        error: What is wrong with it.
        headers: What its headers say.
        left_to_broker: Whether it is rejected, so that the broker makes the dead letter: a body
            that is no JSON of a size that we allow is not sent back over the link.
    """

    body: bytes = field(repr=False)
    error: Invalid
    headers: MessageHeaders
    identity: Identity
    left_to_broker: bool
    redelivered: bool = False
    came_by: str = ""


def read_delivery(raw: AbstractIncomingMessage, defaults: Defaults) -> Delivery | Unreadable:
    """Read a message; nothing that it can hold raises.

    Args:
        raw: As received.
        defaults: What a request need not say.
    """
    headers = read_headers(
        raw.headers, ours=not raw.exchange, now=datetime.now(UTC), published_at=raw.timestamp
    )
    digest = hashlib.sha256(raw.body).hexdigest()
    identity = (digest, headers.attempt, headers.replay, raw.message_id)
    redelivered, came_by = bool(raw.redelivered), f"{raw.exchange}:{raw.routing_key}"
    fields = read_json(raw.body)
    if isinstance(fields, Invalid):
        return Unreadable(
            raw.body,
            fields,
            headers,
            identity,
            # RabbitMQ 3.10 stops dead-lettering for all queues where it cannot add to an x-death.
            left_to_broker="x-death" not in raw.headers,
            redelivered=redelivered,
            came_by=came_by,
        )
    request = read_request(fields, defaults)
    request_id = readable_id(fields)
    if request_id is not None:
        return Delivery(
            raw.body, fields, request_id, request, headers, identity, redelivered, came_by
        )
    error = request if isinstance(request, Invalid) else Invalid("invalid_field", "request_id")
    return Unreadable(
        raw.body,
        error,
        headers,
        identity,
        left_to_broker=False,
        redelivered=redelivered,
        came_by=came_by,
    )

"""A received message, read once."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aio_pika.abc import AbstractIncomingMessage

from consumer.messages import (
    CallRequested,
    Defaults,
    Invalid,
    MessageHeaders,
    read_headers,
    read_json,
    read_request,
    readable_id,
)

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
    """

    body: bytes = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False)
    request_id: str
    request: CallRequested | Invalid
    headers: MessageHeaders
    identity: Identity
    redelivered: bool = False

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
        parsed: Whether it is JSON of a size that we allow.
    """

    body: bytes = field(repr=False)
    error: Invalid
    headers: MessageHeaders
    identity: Identity
    parsed: bool
    redelivered: bool = False


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
    redelivered = bool(raw.redelivered)
    fields = read_json(raw.body)
    if isinstance(fields, Invalid):
        return Unreadable(
            raw.body, fields, headers, identity, parsed=False, redelivered=redelivered
        )
    request = read_request(fields, defaults)
    request_id = readable_id(fields)
    if request_id is not None:
        return Delivery(raw.body, fields, request_id, request, headers, identity, redelivered)
    error = request if isinstance(request, Invalid) else Invalid("invalid_field", "request_id")
    return Unreadable(raw.body, error, headers, identity, parsed=True, redelivered=redelivered)

"""What we publish for all who listen: `call.started`, `call.failed`, `call.completed`.

The contract is `schemas/`; this module mirrors it, and a test holds the two together.
"""

import hashlib
import json
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import assert_never
from uuid import UUID, uuid5

from consumer.messages import (
    COMPLETED,
    FAILED,
    STARTED,
    CallOutcome,
    ConfirmedBy,
    Invalid,
    Reason,
    rfc3339,
)

EVENT_IDS = UUID("5a0fa0c3-7ad0-5c5b-a4b1-5e1c6f1a2b9d")
"""The UUIDv5 namespace of every `event_id`; changing it would make old events look new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted:
    """``call.started``: the portal accepted the call. It does not mean that anyone picked up."""

    event_id: str
    request_id: str
    call_id: str | None
    to_number: str = field(repr=False)
    from_line: str
    voice: str | None = None
    attempt: int
    replay: int
    requested_at: str | None = None
    started_at: str
    confirmed_by: ConfirmedBy
    metadata: dict[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFailed:
    """``call.failed``: the request failed, and is not tried again unless a person replays it."""

    event_id: str
    request_id: str | None
    reason: Reason
    code: str
    description: str
    http_status: int | None = None
    attempt: int
    replay: int
    failed_at: str
    to_number: str | None = field(default=None, repr=False)
    from_line: str | None = None
    metadata: dict[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCompleted:
    """``call.completed``: a call that was started has ended, and whether anyone picked up."""

    event_id: str
    request_id: str
    call_id: str
    replay: int
    outcome: CallOutcome
    code: str
    description: str
    started_at: str
    completed_at: str
    duration_s: float
    cost: float | None = None
    cost_currency: str | None = None


Event = CallStarted | CallFailed | CallCompleted


def event_type(event: Event) -> str:
    """Return the AMQP type and routing key of *event*."""
    match event:
        case CallStarted():
            return STARTED
        case CallFailed():
            return FAILED
        case CallCompleted():
            return COMPLETED
    assert_never(event)


def _time_of(event: Event) -> str:
    match event:
        case CallStarted():
            return event.started_at
        case CallFailed():
            return event.failed_at
        case CallCompleted():
            return event.completed_at
    assert_never(event)


def event_id(request_id: str, replay: int, kind: str) -> str:
    """Derive the id that makes a repeated event recognisable."""
    return str(uuid5(EVENT_IDS, f"{request_id}\n{replay}\n{kind}"))


def invalid_event_id(body: bytes) -> str:
    """Derive the event id of a body that is no request from its digest."""
    return str(uuid5(EVENT_IDS, f"{hashlib.sha256(body).hexdigest()}\n{FAILED}"))


def invalid_event(event_id: str, error: Invalid, replay: int = 0) -> CallFailed:
    """Return the event of a body that is no request: no attempt was made."""
    return CallFailed(
        event_id=event_id,
        request_id=error.request_id,
        reason="invalid",
        code=error.code,
        description=error.description,
        attempt=0,
        replay=replay,
        failed_at=rfc3339(datetime.now(UTC)),
    )


_NULLABLE = {"call_id", "request_id"}
_WRITER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def to_json(event: Event) -> bytes:
    """Write *event* as JSON; what is unknown is left out, save where the contract says null."""
    known = ((each.name, getattr(event, each.name)) for each in fields(event))
    told = {name: value for name, value in known if value is not None or name in _NULLABLE}
    return _WRITER.encode(told).encode()


def cloud_event_headers(event: Event, source: str) -> dict[str, str]:
    """Return the CloudEvents 1.0 attributes of *event* as AMQP headers.

    Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md
    """
    attributes = {
        "id": event.event_id,
        "source": source,
        "type": event_type(event),
        "specversion": "1.0",
        "time": _time_of(event),
        "subject": event.request_id,
    }
    return {f"cloudEvents_{k}": v for k, v in attributes.items() if v is not None}

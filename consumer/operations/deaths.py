"""Why a message is a dead letter, in our own headers, whether we or the broker put it there."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aio_pika.abc import AbstractIncomingMessage

from consumer.delivery import came_from_upstream, deaths, read_headers
from consumer.messages import Defaults, Invalid, read_json, read_request, rfc3339


@dataclass(frozen=True, slots=True)
class Death:
    """Why the broker itself took a message out of the queue of requests.

    Attributes:
        description: What happened.
        advice: What a person should do.
    """

    description: str
    advice: str


DEATHS = {
    "delivery_limit": Death(
        "handed out as often as the delivery limit allows, and never finished",
        "See why workers died or lost the broker, and whether a policy lowers the delivery limit;"
        " then replay.",
    ),
    "expired": Death(
        "waited longer than a message-ttl of the queue allows",
        "Take the message-ttl off the queue (a policy sets it), then replay what is still wanted.",
    ),
    "maxlen": Death(
        "pushed out of a queue that was full",
        "Take max-length and overflow off the queue (a policy sets them), then replay.",
    ),
    "rejected": Death(
        "rejected by a worker that could not handle it",
        "See the worker's log for worker.bug, then replay.",
    ),
}
"""By the broker's word for it. Source: https://www.rabbitmq.com/docs/dlx#effects"""

_TOLD = ("x-reason", "x-code", "x-description", "x-http-status", "x-failed-at")
_CARRIED = ("x-attempt", "x-replay", "x-first-seen-at", "x-unsure-since")
_TRACE = ("traceparent", "tracestate")


def own_headers(message: AbstractIncomingMessage, requests: str) -> dict[str, Any]:
    """Return the headers that a dead letter has, or would have if we had put it there.

    Args:
        message: From the dead-letter queue, or from where the broker puts what it evicts.
        requests: The queue of requests, where the broker's own dead letters come from.
    """
    headers = message.headers
    believed = () if came_from_upstream(headers) else (*_TOLD, *_CARRIED)
    own = {
        name: headers[name]
        for name in (*believed, *_TRACE)
        if isinstance(headers.get(name), str | int)
    }
    death = next((each for each in deaths(headers) if each.get("queue") == requests), None)
    if death is None and "x-reason" in own:
        return own
    carried = {name: value for name, value in own.items() if name not in _TOLD}
    if "x-failed-at" in own:  # a dead letter that was moved back, and so was the next replay
        carried["x-replay"] = read_headers(own, ours=True, now=datetime.now(UTC)).replay
    return carried | _trouble(message.body, death or {})


def _trouble(body: bytes, death: Mapping[str, Any]) -> dict[str, Any]:
    """Say why a message without our own headers is a dead letter."""
    told: dict[str, Any] = {"x-reason": "broker"}
    time = death.get("time")
    if isinstance(time, datetime):
        told["x-failed-at"] = rfc3339(time)
    fields = read_json(body)
    read = fields if isinstance(fields, dict | Invalid) else read_request(fields, Defaults())
    if isinstance(read, Invalid):
        told["x-reason"] = "invalid"
        return told | {"x-code": read.code, "x-description": read.description}
    if (known := DEATHS.get(str(death.get("reason")))) is not None:
        told |= {"x-code": str(death["reason"]), "x-description": known.description}
    return told


def id_of(message: AbstractIncomingMessage) -> str:
    """Return the id of a message, if need be one that its body gives it."""
    return message.message_id or hashlib.sha256(message.body).hexdigest()[:16]


def evicted_for(message: AbstractIncomingMessage) -> str:
    """Return the broker's word for why it took a dead letter out of the dead-letter queue."""
    return next((str(death.get("reason")) for death in deaths(message.headers)), "unknown")

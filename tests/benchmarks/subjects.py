"""Who is measured, what each has on the broker, and how upstream publishes to it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aio_pika

from consumer.rabbitmq.topology import build_topology
from tests.benchmarks import by_hand, with_celery

LINE = "reg151083"
DELAYS_S = (5, 30)


@dataclass(frozen=True, slots=True)
class Names:
    """What a run has on the broker, for itself alone."""

    exchange: str
    queue: str
    events: str


@dataclass(frozen=True, slots=True)
class Subject:
    """A worker to be measured.

    Attributes:
        command: What follows the interpreter's name, for so many calls at once.
        arguments: With which its queue of a name is declared.
        message: How upstream asks it for a call.
    """

    name: str
    command: Callable[[int], list[str]]
    arguments: Callable[[str], dict[str, Any]]
    message: Callable[[str], aio_pika.Message]


def _request(request_id: str) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "to_number": "+12025550100",
        "text_to_pronounce": f"Your appointment {request_id} is at nine o'clock tomorrow.",
        "from_line": LINE,
        "metadata": {"customer": "4711", "source": "bench"},
    }


def request_id_in(text: str) -> str:
    """Return whose *text* was to be spoken."""
    return text.split()[2]


def _plain(request_id: str) -> aio_pika.Message:
    return aio_pika.Message(
        json.dumps(_request(request_id)).encode(),
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )


def _for_celery(request_id: str) -> aio_pika.Message:
    headers, body = with_celery.message(_request(request_id))
    return aio_pika.Message(
        body,
        headers=headers,
        content_type="application/json",
        content_encoding="utf-8",
        correlation_id=headers["id"],
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )


def _celery(concurrency: int) -> list[str]:
    return [
        *("-m", "celery", "--app", "tests.benchmarks.with_celery", "--quiet", "worker"),
        *("--loglevel", "error", "--without-gossip", "--without-mingle", "--without-heartbeat"),
        *("--pool", "threads", "--concurrency", str(concurrency)),
    ]


OURS = Subject(
    "call-consumer",
    lambda _: ["-m", "consumer", "run"],
    lambda queue: build_topology("", queue, DELAYS_S).requests.arguments,
    _plain,
)
BY_HAND = Subject(
    "by hand", lambda _: ["-m", "tests.benchmarks.by_hand"], by_hand.queue_arguments, _plain
)
CELERY = Subject("Celery", _celery, lambda _: dict(with_celery.QUEUE_ARGUMENTS), _for_celery)
SUBJECTS = (OURS, BY_HAND, CELERY)

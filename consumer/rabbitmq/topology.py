"""Exchange and queues: names and arguments as data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from consumer.messages import CANCEL, REQUESTED

DELIVERY_LIMIT = 1000
"""Every restart of a worker counts one for each message it had been handed."""
PRACTICALLY_NO_LIMIT = 2_000_000_000
"""For dead letters: 4.x drops a message after 20 looks, and -1 drops it at once on 3.10."""
CONSUMER_TIMEOUT_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything of ours on the broker.

    Attributes:
        exchange: A durable topic exchange, for requests and events.
        requests: Bound to `exchange` with `call.requested`.
        delays: Where requests wait, by the wait in seconds.
        dead_letters: Where requests end that nobody can place.
        evicted: Where the broker puts what a policy takes out of `dead_letters`.
        cancellations: Bound to `exchange` with `call.cancel`.
    """

    exchange: str
    requests: Queue
    delays: dict[int, Queue]
    dead_letters: Queue
    evicted: Queue
    cancellations: Queue

    @property
    def queues(self) -> tuple[Queue, ...]:
        """All queues."""
        return (*self.needed, self.evicted)

    @property
    def needed(self) -> tuple[Queue, ...]:
        """The queues that the worker cannot do without; targets come before what leads to them."""
        return (self.dead_letters, self.requests, *self.delays.values(), self.cancellations)

    @property
    def bindings(self) -> dict[str, Queue]:
        """The queues that are bound to `exchange`, by routing key."""
        return {REQUESTED: self.requests, CANCEL: self.cancellations}

    @property
    def names(self) -> list[str]:
        """The names of the queues that the worker cannot do without."""
        return [queue.name for queue in self.needed]

    def delay_for(self, wait_s: float) -> Queue:
        """Return where to wait *wait_s* seconds: the longest delay within, else the shortest."""
        fitting = [delay for delay in self.delays if delay <= wait_s]
        return self.delays[max(fitting) if fitting else min(self.delays)]


class Names(Protocol):
    """The settings that name what is on the broker."""

    @property
    def exchange(self) -> str:
        """The topic exchange."""

    @property
    def queue(self) -> str:
        """The queue of requests."""

    @property
    def retry_delays_s(self) -> Sequence[int]:
        """One wait in seconds for each delay queue, growing."""


def topology_of(settings: Names) -> Topology:
    """Return exchange and queues as the settings name them."""
    return build_topology(settings.exchange, settings.queue, settings.retry_delays_s)


def build_topology(exchange: str, queue: str, delays_s: Sequence[int]) -> Topology:
    """Describe exchange and queues; the names derive from *queue*."""
    dead_letters = f"{queue}.dlq"
    return Topology(
        exchange,
        Queue(
            queue,
            _dead_letters_to(dead_letters)
            | {
                "x-delivery-limit": DELIVERY_LIMIT,
                "x-consumer-timeout": CONSUMER_TIMEOUT_MS,
                "x-single-active-consumer": True,
            },
        ),
        {delay: _delay_queue(queue, delay) for delay in delays_s},
        Queue(
            dead_letters,
            _dead_letters_to(f"{dead_letters}.evicted")
            | {
                "x-delivery-limit": PRACTICALLY_NO_LIMIT,
                "x-consumer-timeout": CONSUMER_TIMEOUT_MS,
            },
        ),
        _evicted(f"{dead_letters}.evicted"),
        Queue(
            f"{queue}.cancel",
            {
                "x-queue-type": "quorum",
                "x-overflow": "reject-publish",
                "x-delivery-limit": PRACTICALLY_NO_LIMIT,
                "x-consumer-timeout": CONSUMER_TIMEOUT_MS,
            },
        ),
    )


def _evicted(name: str) -> Queue:
    """Describe the queue that catches what a policy takes out of the dead letters.

    Of a limit in a policy and one in an argument the lower counts, so no argument keeps a policy
    from lowering the delivery limit, and each look counts. This queue alone is classic: a classic
    queue has no delivery limit, so a worker that is killed while it brings dead letters back loses
    none.
    Source: https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
    """
    return Queue(name, {"x-queue-type": "classic", "x-overflow": "reject-publish"})


def _delay_queue(queue: str, delay_s: int) -> Queue:
    """Describe the queue where requests wait for *delay_s* seconds, one queue per delay.

    RabbitMQ expires only the head of a queue: a shared one would hold 5 s behind an hour.
    Source: https://www.rabbitmq.com/docs/ttl#message-ttl-dead-lettering
    """
    arguments = _dead_letters_to(queue) | {"x-message-ttl": delay_s * 1000}
    return Queue(f"{queue}.delay.{delay_s}s", arguments)


def _dead_letters_to(queue: str) -> dict[str, Any]:
    """Lose nothing on the way: *at-least-once* is in force only together with *reject-publish*.

    Source: https://www.rabbitmq.com/docs/quorum-queues#dead-lettering
    """
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }

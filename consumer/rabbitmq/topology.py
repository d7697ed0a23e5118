"""Exchange and queues: names and arguments as data, and how to declare them."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from consumer.errors import OperatorError
from consumer.messages import REQUESTED
from consumer.rabbitmq.connection import RPC_TIMEOUT_S, connect, plain_channel

DELIVERY_LIMIT = 1000
"""Every restart of a worker counts one for each message it had been handed."""
PRACTICALLY_NO_LIMIT = 2_000_000_000
"""For dead letters: 4.x drops a message after 20 looks, and -1 drops it at once on 3.10."""
CONSUMER_TIMEOUT_MS = 3_600_000


class WrongTopology(OperatorError):
    """Raised when exchange or queues are not as they must be; says which, and what to do."""


class NodeDown(WrongTopology):
    """Raised when a queue lives on a node of the broker's that is down."""


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
    """

    exchange: str
    requests: Queue
    delays: dict[int, Queue]
    dead_letters: Queue
    evicted: Queue

    @property
    def queues(self) -> tuple[Queue, ...]:
        """All queues."""
        return (self.dead_letters, self.evicted, self.requests, *self.delays.values())

    @property
    def names(self) -> list[str]:
        """The names of the queues that the worker cannot do without."""
        every = (self.requests, self.dead_letters, *self.delays.values())
        return [queue.name for queue in every]

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


async def declare(url: str, topology: Topology, *, check_only: bool = False) -> None:
    """Declare exchange and queues, or with *check_only* see that they exist.

    Over a connection of its own: a refused declaration closes its channel, and FastStream would tie
    the queue to the channel that declared it.

    Raises:
        BrokerUnavailable: The broker cannot be reached.
        WrongTopology: Something exists with other arguments, is missing, or is forbidden.
    """
    connection = await connect(url, "topology")
    async with connection:
        async with plain_channel(connection) as channel:
            await declare_over(channel, topology, check_only=check_only)
        await declare_evicted(connection, topology, check_only=check_only)


async def declare_evicted(
    connection: AbstractConnection, topology: Topology, *, check_only: bool = False
) -> None:
    """Declare the queue that is away with its node, as a classic one is; all works without it.

    Raises:
        WrongTopology: As `declare` has it.
    """
    with suppress(NodeDown):
        async with plain_channel(connection) as channel:
            await _declare_queue(channel, topology.evicted, check_only=check_only)


async def declare_over(
    channel: AbstractChannel, topology: Topology, *, check_only: bool = False
) -> None:
    """Do the same over a channel, which a refusal closes.

    Raises:
        WrongTopology: As `declare` has it.
    """
    # Targets come first: a delay that ends must find its queue.
    for queue in (topology.dead_letters, topology.requests, *topology.delays.values()):
        await _declare_queue(channel, queue, check_only=check_only)
    with explained(f"exchange {topology.exchange}"):
        exchange = await channel.declare_exchange(
            topology.exchange,
            aio_pika.ExchangeType.TOPIC,
            durable=True,
            passive=check_only,
            timeout=RPC_TIMEOUT_S,
        )
        if not check_only:
            requests = await channel.get_queue(topology.requests.name, ensure=False)
            await requests.bind(exchange, REQUESTED, timeout=RPC_TIMEOUT_S)


async def _declare_queue(channel: AbstractChannel, queue: Queue, *, check_only: bool) -> None:
    with explained(f"queue {queue.name}"):
        await channel.declare_queue(
            queue.name,
            durable=True,
            passive=check_only,
            arguments=queue.arguments,
            timeout=RPC_TIMEOUT_S,
        )


async def bind_over(connection: AbstractConnection, topology: Topology) -> None:
    """Make sure that requests reach their queue, where we have the right to bind it.

    Raises:
        BrokerUnavailable, AMQPError, OSError, RuntimeError: It cannot be done now.
    """
    async with plain_channel(connection) as channel:
        requests = await channel.get_queue(topology.requests.name, ensure=False)
        with suppress(ChannelAccessRefused):
            await requests.bind(topology.exchange, REQUESTED, timeout=RPC_TIMEOUT_S)


async def missing_from(connection: AbstractConnection, topology: Topology) -> list[str]:
    """Name what is not there; what this user may not see counts as there.

    Raises:
        BrokerUnavailable, AMQPError, OSError, RuntimeError: It cannot be told now.
    """
    missing = []
    to_see = [("queue", name) for name in topology.names] + [("exchange", topology.exchange)]
    while to_see:
        async with plain_channel(connection) as channel:
            try:
                while to_see:
                    kind, name = to_see.pop(0)
                    look = channel.declare_queue if kind == "queue" else channel.declare_exchange
                    await look(name, passive=True, timeout=RPC_TIMEOUT_S)
            except ChannelNotFoundEntity:  # which closes the channel
                missing.append(f"{kind} {name}")
            except ChannelAccessRefused:
                pass
    return missing


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn the broker's refusal into a sentence that names the thing and the argument."""
    try:
        yield
    except ChannelPreconditionFailed as error:
        clash = re.search(
            r"inequivalent arg '(.+?)' for .*?: received (.*) but current is (.*)", str(error)
        )
        if clash is None:
            raise WrongTopology(f"{what} cannot be declared: {error}") from None
        argument, ours, theirs = clash.groups()
        raise WrongTopology(
            f"{what} exists with another {argument}: needed {ours}, found {theirs}; "
            "empty and delete it, or name another with CALLS_QUEUE or CALLS_EXCHANGE"
        ) from None
    except ChannelNotFoundEntity as error:
        if "home node" in str(error):
            raise NodeDown(f"{what} is on a node of the broker's that is down") from None
        raise WrongTopology(
            f"{what} does not exist: declare it, or let the worker (CALLS_DECLARE=true)"
        ) from None
    except ChannelAccessRefused:
        raise WrongTopology(
            f"{what} is forbidden to this user: grant configure, write and read on it, "
            "or declare it yourself and set CALLS_DECLARE=false"
        ) from None

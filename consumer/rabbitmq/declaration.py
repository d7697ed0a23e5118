"""Declare exchange and queues, see what is missing, and say what the broker refuses."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from consumer.errors import OperatorError
from consumer.rabbitmq.connection import RPC_TIMEOUT_S, connect, plain_channel
from consumer.rabbitmq.topology import Queue, Topology


class WrongTopology(OperatorError):
    """Raised when exchange or queues are not as they must be; says which, and what to do."""


class NodeDown(WrongTopology):
    """Raised when a queue lives on a node of the broker's that is down."""


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
    for queue in topology.needed:
        await _declare_queue(channel, queue, check_only=check_only)
    with explained(f"exchange {topology.exchange}"):
        await channel.declare_exchange(
            topology.exchange,
            aio_pika.ExchangeType.TOPIC,
            durable=True,
            passive=check_only,
            timeout=RPC_TIMEOUT_S,
        )
        if not check_only:
            await _bind(channel, topology)


async def _bind(channel: AbstractChannel, topology: Topology) -> None:
    for routing_key, bound in topology.bindings.items():
        queue = await channel.get_queue(bound.name, ensure=False)
        await queue.bind(topology.exchange, routing_key, timeout=RPC_TIMEOUT_S)


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
    """Make sure that requests and cancellations reach us, where we have the right to bind.

    Raises:
        BrokerUnavailable, AMQPError, OSError, RuntimeError: It cannot be done now.
    """
    async with plain_channel(connection) as channel:
        with suppress(ChannelAccessRefused):
            await _bind(channel, topology)


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
            except ChannelNotFoundEntity as error:  # which closes the channel
                if is_missing(error):
                    missing.append(f"{kind} {name}")
            except ChannelAccessRefused:
                pass
    return missing


def is_missing(error: ChannelNotFoundEntity) -> bool:
    """Tell what does not exist from what is on a node that is down, which is *not found* either.

    The broker says of that "home node … is down" (3.10) or "process is stopped" (4.3).
    """
    return re.search("no (queue|exchange) ", str(error)) is not None


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
        if not is_missing(error):
            raise NodeDown(f"{what} is on a node of the broker's that is down") from None
        raise WrongTopology(
            f"{what} does not exist: declare it, or let the worker (CALLS_DECLARE=true)"
        ) from None
    except ChannelAccessRefused:
        raise WrongTopology(
            f"{what} is forbidden to this user: grant configure, write and read on it, "
            "or declare it yourself and set CALLS_DECLARE=false"
        ) from None

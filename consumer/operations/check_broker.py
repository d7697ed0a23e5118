"""Look at the broker: its version, our queues and exchange, and all that goes on there."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Literal

import aio_pika
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity

from consumer.operations.check_policies import check_policies
from consumer.operations.check_work import check_work
from consumer.operations.finding import Finding, State
from consumer.operations.pauses import pauses_at_hand
from consumer.rabbitmq.connection import connect
from consumer.rabbitmq.declaration import WrongTopology, explained, is_missing
from consumer.rabbitmq.losses import BrokerUnavailable
from consumer.rabbitmq.topology import Queue, Topology
from consumer.settings import Settings, WrongSettings

OLDEST_BROKER = (3, 10)


async def check_broker(settings: Settings, topology: Topology) -> AsyncGenerator[Finding]:
    """Look at the broker; what it does not let us see does not stop the rest."""
    try:
        connection = await connect(settings.needed("rabbitmq_url"), "check")
    except (BrokerUnavailable, WrongSettings) as error:
        yield Finding("broker", "wrong", str(error), "fix CALLS_RABBITMQ_URL or start the broker")
        return
    async with connection:
        yield _version(connection)
        missing, delay_missing = await _states_of_missing(connection, settings, topology)
        delays = topology.delays.values()
        for queue in topology.queues:
            state = delay_missing if queue in delays else missing
            yield await _queue(connection, queue, settings, state)
        yield await _exchange(connection, topology, settings, missing)
        paused = await pauses_at_hand(settings)
        yield await check_policies(connection, topology, paused.workers)
        async with aclosing(check_work(connection, topology, paused)) as findings:
            async for finding in findings:
                yield finding


def _version(connection: AbstractConnection) -> Finding:
    transport = connection.transport
    properties = transport.connection.server_properties if transport else {}
    version = str(properties.get("version", "?"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST_BROKER:
        return Finding("broker", "wrong", f"version {version}", "upgrade it to 3.10 or newer")
    return Finding("broker", "ok", f"version {version}")


async def _states_of_missing(
    connection: AbstractConnection, settings: Settings, topology: Topology
) -> tuple[State, State]:
    """Say how bad it is where something is missing, and where a delay queue is."""
    if not settings.declare:
        return "wrong", "wrong"
    if not await _any_exists(connection, [*topology.names, f"{settings.queue}.ledger"]):
        return "ok", "ok"  # no worker has run yet
    delays = [queue.name for queue in topology.delays.values()]
    # Where none of the delays is there, it may have run with others.
    return "wrong", "wrong" if await _any_exists(connection, delays) else "warning"


async def _any_exists(connection: AbstractConnection, queues: list[str]) -> bool:
    for name in queues:
        with suppress(ChannelNotFoundEntity, ChannelAccessRefused):
            async with connection.channel() as channel:
                await channel.declare_queue(name, passive=True)
                return True
    return False


async def _queue(
    connection: AbstractConnection, queue: Queue, settings: Settings, missing: State
) -> Finding:
    """See whether a queue exists, and only then whether declaring it would change anything."""
    item = f"queue {queue.name}"
    try:
        async with connection.channel() as channel:
            await channel.declare_queue(queue.name, passive=True)
    except ChannelNotFoundEntity as error:
        if not is_missing(error):
            return Finding(item, "warning", "is on a node of the broker's that is down", "start it")
        return _missing(
            item,
            f"rabbitmqadmin declare queue name={queue.name} durable=true "
            f"arguments='{json.dumps(queue.arguments)}'",
            missing,
            declares=settings.declare,
        )
    except ChannelAccessRefused:
        return Finding(item, "wrong", "forbidden to this user", "grant read and write on it")
    try:
        async with connection.channel() as channel:
            with explained(item):
                await channel.declare_queue(queue.name, durable=True, arguments=queue.arguments)
    except WrongTopology as error:
        if "forbidden" in str(error):
            state: Literal["ok", "wrong"] = "wrong" if settings.declare else "ok"
            return Finding(
                item,
                state,
                "exists; its arguments cannot be compared without the right to configure it",
                "" if not settings.declare else str(error),
            )
        return Finding(
            item, "wrong", str(error), f"when it is empty: rabbitmqctl delete_queue {queue.name}"
        )
    return Finding(item, "ok", "as it should be")


async def _exchange(
    connection: AbstractConnection, topology: Topology, settings: Settings, missing: State
) -> Finding:
    item = f"exchange {topology.exchange}"
    try:
        async with connection.channel() as channel:
            await channel.declare_exchange(topology.exchange, passive=True)
        async with connection.channel() as channel:
            with explained(item):
                await channel.declare_exchange(
                    topology.exchange, aio_pika.ExchangeType.TOPIC, durable=True
                )
    except ChannelNotFoundEntity:
        name = topology.exchange
        command = f"rabbitmqadmin declare exchange name={name} type=topic durable=true"
        return _missing(item, command, missing, declares=settings.declare)
    except (ChannelAccessRefused, WrongTopology) as error:
        if "forbidden" in str(error) and not settings.declare:
            return Finding(item, "ok", "exists")
        return Finding(item, "wrong", str(error), "fix the rights, or name another exchange")
    return Finding(item, "ok", "as it should be")


def _missing(item: str, command: str, state: State, *, declares: bool) -> Finding:
    if state == "ok":
        return Finding(item, "ok", "not there yet: the worker declares it when it starts")
    if declares:
        fix = "start a worker with these settings: it declares it, and again while it runs"
        return Finding(item, state, "does not exist, though others of this queue's do", fix)
    return Finding(item, state, "does not exist", command)

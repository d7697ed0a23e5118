"""One ledger for each queue: a lease on the broker, which only workers of one ledger can share."""

import math
import time
from collections.abc import Collection
from typing import Any, Protocol

import aiormq
import structlog
from aio_pika import Channel
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage, AbstractQueue
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelPreconditionFailed,
    ConnectionInternalError,
)

from consumer.errors import OperatorError
from consumer.rabbitmq.connection import RPC_TIMEOUT_S, connect, plain_channel
from consumer.rabbitmq.topology import Queue

LEASE_S = 180.0
"""How long a lease outlives the last link of those who share it: two calls and a lost link."""
VALID_S = LEASE_S / 2
"""Not seen for so long, a lease counts as lost: another may have it soon."""

log = structlog.get_logger(__name__)


class OtherLedger(OperatorError):
    """Raised when a worker with another ledger holds the lease; says what to do."""


def lease_queue(requests: str, identity: str) -> Queue:
    """Describe the queue that stands for the lease: the broker compares the arguments.

    It holds no messages. It must have a consumer: to declare it again does not put off its expiry.
    """
    return Queue(
        f"{requests}.ledger",
        {
            "x-queue-type": "quorum",
            "x-expires": int(LEASE_S * 1000),
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": identity,
        },
    )


class Identified(Protocol):
    """A ledger, as far as it tells itself from others."""

    @property
    def identity(self) -> str:
        """A random name, made with the ledger."""

    async def begin_anew(self) -> None:
        """Note that another ledger was in use: what is handed out may have been dialled."""


class Lease:
    """The right to place the calls of one queue, shared by all workers with the same ledger.

    Two ledgers know nothing of each other's calls, and both would dial.

    Args:
        url: The broker.
        requests: The queue of requests.
        ledger: To be open before the lease is taken.
    """

    def __init__(self, url: str, requests: str, ledger: Identified) -> None:
        self._url = url
        self._requests = requests
        self._ledger = ledger
        self._channel: Channel | None = None
        self._queue: AbstractQueue | None = None
        self._tag: str | None = None
        self._seen_at = -math.inf
        self._guards = True
        self._refused = False

    @property
    def valid(self) -> bool:
        """Whether nobody with another ledger can have the lease."""
        return not self._guards or time.monotonic() - self._seen_at < VALID_S

    async def renew(self, connection: AbstractConnection) -> None:
        """Take the lease, or see that it is ours still.

        Raises:
            OtherLedger: It is somebody else's.
            LedgerDown: Our ledger could not take note of that.
            BrokerUnavailable, AMQPError, OSError, RuntimeError: It cannot be told now.
        """
        if not self._guards:
            return
        asked_at = time.monotonic()
        description = lease_queue(self._requests, self._ledger.identity)
        try:
            await self._take(connection, description)
        except ChannelPreconditionFailed:
            if not self._refused:
                await self._ledger.begin_anew()
            self._refused = True
            raise OtherLedger(
                f"another worker of {self._requests} uses another ledger, and a number could be "
                "called twice: give all workers of the queue the same CALLS_LEDGER_URL; if that "
                f"worker is gone for good, this one goes on by itself within {LEASE_S:.0f} s"
            ) from None
        except ChannelAccessRefused:
            self._guards = False
            log.warning(
                "lease.off",
                queue=description.name,
                advice="let this user configure and read it: two ledgers would go unnoticed",
            )
            return
        if self._refused:
            # What was handed to the other ledger's workers may have been dialled.
            await self._ledger.begin_anew()
        self._refused = False
        self._seen_at = asked_at

    async def release(self) -> None:
        """Give the lease back; after the last worker another ledger can have it at once.

        Raises:
            ConnectionLost: The link is gone: the lease will expire.
        """
        if self._channel is None or self._queue is None or self._tag is None:
            return
        await self._queue.cancel(self._tag, timeout=RPC_TIMEOUT_S)
        found = await self._channel.declare_queue(
            self._queue.name, passive=True, timeout=RPC_TIMEOUT_S
        )
        if found.declaration_result.consumer_count == 0:
            # Quorum queues know no `if-unused`. Who has come meanwhile declares it again.
            await self._channel.queue_delete(self._queue.name, timeout=RPC_TIMEOUT_S)

    async def _take(self, connection: AbstractConnection, description: Queue) -> None:
        channel, self._channel = self._channel, None
        if channel is None or channel.is_closed:
            self._tag = None
            channel = Channel(connection, publisher_confirms=False)
            await channel.initialize()
        self._queue = await channel.declare_queue(
            description.name,
            durable=True,
            arguments=description.arguments,
            timeout=RPC_TIMEOUT_S,
        )
        if self._tag not in _consumers(await channel.get_underlay_channel()):
            try:
                self._tag = await self._queue.consume(_ignore, no_ack=True, timeout=RPC_TIMEOUT_S)
            except (TimeoutError, ConnectionInternalError):
                await self._delete_ruin(description.name)
                raise
        self._channel = channel  # only now: one on which something failed is of no use

    async def _delete_ruin(self, name: str) -> None:
        """Delete a queue that cannot be consumed from.

        RabbitMQ 3.10, killed within a second of a declaration, keeps the name and not the queue;
        a consumer then waits for ever, or loses the connection.
        """
        connection = await connect(self._url, "lease")
        async with connection, plain_channel(connection) as channel:
            await channel.queue_delete(name, timeout=2 * RPC_TIMEOUT_S)


def _consumers(channel: object) -> Collection[str]:
    """Return the tags of those whom the broker has not cancelled."""
    return channel.consumers if isinstance(channel, aiormq.Channel) else ()


async def _ignore(_: AbstractIncomingMessage) -> Any:  # noqa: ANN401  # as aio-pika has it
    """Drop what a stranger may publish to the queue."""

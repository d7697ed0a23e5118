"""Keep exchange and queues there while the worker runs: a person or a policy may remove them."""

from collections.abc import Callable

import structlog
from aio_pika.abc import AbstractConnection

from consumer.rabbitmq.connection import connect, plain_channel
from consumer.rabbitmq.declaration import (
    WrongTopology,
    bind_over,
    declare_evicted,
    declare_over,
    missing_from,
)
from consumer.rabbitmq.policies import Policies
from consumer.rabbitmq.subscription import Subscription
from consumer.rabbitmq.topology import Topology

log = structlog.get_logger(__name__)


class TopologyUpkeep:
    """Looks what is missing on the broker, and declares it.

    Args:
        url: The broker.
        topology: What must be there.
        subscription: Renewed where the queue of requests was away for a moment.
        cancellations: The same for the queue of cancellations.
        policies: Told of each queue that is gone.
        connection: The one that messages are taken over.
        declares: Whether to declare what is missing, or only to say so.
    """

    def __init__(  # noqa: PLR0913  # what it sees to, and whom it tells
        self,
        url: str,
        topology: Topology,
        *,
        subscription: Subscription,
        cancellations: Subscription,
        policies: Policies,
        connection: Callable[[], AbstractConnection | None],
        declares: bool,
    ) -> None:
        self._url = url
        self._topology = topology
        self._subscription = subscription
        self._cancellations = cancellations
        self._policies = policies
        self._connection = connection
        self._declares = declares
        self._gone: set[str] = set()

    async def tend(self) -> None:
        """See that everything is there.

        Raises:
            WrongTopology: Something is missing or wrong, and cannot be declared.
            BrokerUnavailable, AMQPError, OSError, RuntimeError: It cannot be told now.
        """
        connection = self._connection() if self._subscription.consuming else None
        if connection is not None:
            await self._look_over(connection)
            return
        # The connection that we consume over does not come back while its queue is missing.
        async with await connect(self._url, "topology") as connection:
            await self._look_over(connection)

    async def _look_over(self, connection: AbstractConnection) -> None:
        missing = await missing_from(connection, self._topology)
        self._see_expired(missing)
        if missing:
            await self._declare(connection, missing)
        elif self._declares:
            await bind_over(connection, self._topology)
            await declare_evicted(connection, self._topology)

    def _see_expired(self, missing: list[str]) -> None:
        """Say once that a queue is gone: a person deleted it, or a policy let it expire."""
        gone = {item.removeprefix("queue ") for item in missing if item.startswith("queue ")}
        for queue in sorted(gone - self._gone):
            self._policies.seen("expires", queue)
        self._gone = gone

    async def _declare(self, connection: AbstractConnection, missing: list[str]) -> None:
        if not self._declares:
            verb, them = ("is", "it") if len(missing) == 1 else ("are", "them")
            text = f"{' and '.join(missing)} {verb} missing on the broker: declare {them}"
            raise WrongTopology(text)
        async with plain_channel(connection) as channel:
            await declare_over(channel, self._topology)
        log.warning("topology.declared", was_missing=missing)
        for subscription in (self._subscription, self._cancellations):
            if subscription.consuming and f"queue {subscription.queue}" in missing:
                # RabbitMQ 3.10 does not tell a consumer of so short an absence.
                subscription.renew()

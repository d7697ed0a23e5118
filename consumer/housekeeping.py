"""What a running worker does beside placing calls: watch, fix, measure, forget."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn

import structlog
from aio_pika.abc import AbstractConnection

from consumer import metrics
from consumer.bitrix24.portal import Portal
from consumer.errors import OperatorError
from consumer.ledger import Ledger, LedgerDown
from consumer.rabbitmq.declaration import WrongTopology
from consumer.rabbitmq.lease import Lease, OtherLedger
from consumer.rabbitmq.losses import BrokerUnavailable, link_losses
from consumer.rabbitmq.policies import Policies
from consumer.rabbitmq.publisher import Publisher
from consumer.rabbitmq.subscription import Subscription
from consumer.rabbitmq.topology import Topology
from consumer.rabbitmq.topology_upkeep import TopologyUpkeep

WATCH_S = 1.0
TEND_S = 5.0
TEND_WITHIN_S = 20.0
MEASURE_S = 15.0
DAY_S = 86_400
STUCK_PUBLISHING_S = 60.0
LONGEST_IDLE_S = 60.0
"""Without a consumer for so long the process exits, so that its platform starts it anew."""
RESTART_S = 1.0

Job = Callable[[], Awaitable[None]]

log = structlog.get_logger(__name__)


class NoConsumer(OperatorError):
    """Raised when the broker has not let us consume for `LONGEST_IDLE_S`."""


async def keep_running(name: str, job: Job) -> NoReturn:
    """Run a job for ever, and start it again after an unexpected error.

    Raises:
        NoConsumer: The job says that the process shall end.
    """
    while True:
        try:
            await job()
        except NoConsumer:
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling() > 0:
                raise
            log.error("worker.bug", job=name, error="CancelledError")  # noqa: TRY400  # no traceback
        except Exception:
            log.exception("worker.bug", job=name)
        await asyncio.sleep(RESTART_S)


class Housekeeping:
    """The jobs beside the calls.

    Args:
        url: The broker.
        subscription: Held while messages must not be taken.
        cancellations: Renewed where its queue was away.
        publisher: Kept connected, and asked for the queues' depths.
        ledger: Removes what was finished long ago.
        portal: Tells the operating time used.
        topology: Seen to be there.
        lease: Seen to be ours.
        policies: Told of each queue that is gone.
        connection: The one that messages are taken over.
        is_idle: Whether no message is being worked on.
        declares: Whether to declare what is missing, or only to say so.
        retention_days: How long the ledger keeps requests that are finished.
    """

    def __init__(  # noqa: PLR0913  # it looks after everything
        self,
        *,
        url: str,
        subscription: Subscription,
        cancellations: Subscription,
        publisher: Publisher,
        ledger: Ledger,
        portal: Portal,
        topology: Topology,
        lease: Lease,
        policies: Policies,
        connection: Callable[[], AbstractConnection | None],
        is_idle: Callable[[], bool],
        declares: bool,
        retention_days: int,
    ) -> None:
        self._subscription = subscription
        self._publisher = publisher
        self._ledger = ledger
        self._portal = portal
        self._topology = topology
        self._lease = lease
        self._connection = connection
        self._upkeep = TopologyUpkeep(
            url,
            topology,
            subscription=subscription,
            cancellations=cancellations,
            policies=policies,
            connection=connection,
            declares=declares,
        )
        self._is_idle = is_idle
        self._retention_days = retention_days
        self._starved = False
        self.troubles: dict[str, str] = {}
        """What keeps us from taking messages, in words, by the reason for the pause."""

    @property
    def jobs(self) -> dict[str, Job]:
        """What is to be run for ever, by name."""
        return {
            "watch": self._watch,
            "tend": self._tend,
            "measure": self._measure,
            "forget": self._forget,
        }

    async def _watch(self) -> None:
        """Stop taking messages while none can be published; end when none can be taken."""
        idle_since: float | None = None
        while True:
            await asyncio.sleep(WATCH_S)
            metrics.CONSUMING.set(self._subscription.consuming)
            if self._publisher.stuck_s > STUCK_PUBLISHING_S:
                self._subscription.pause("publishing")
            elif self._publisher.stuck_s == 0:
                self._subscription.resume("publishing")
            if not self._lease.valid:
                self._pause_for("lease", "the lease on the broker could not be renewed")
            if not self._publisher.connected:
                with suppress(BrokerUnavailable):
                    await self._publisher.connect()
            # While the broker is away a new process would not get on either.
            reachable = self._publisher.connected
            if self._subscription.consuming or self._subscription.paused_by or not reachable:
                idle_since = None
            elif idle_since is None:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > LONGEST_IDLE_S:
                raise NoConsumer("no consumer is registered, though the broker answers")

    async def _tend(self) -> None:
        """See that the broker has what we need, and that no other ledger is in use."""
        next_at = 0.0
        while True:
            lost = not self._subscription.consuming and not self._subscription.paused_by
            if lost or self.troubles or time.monotonic() >= next_at:
                for step in (self._tend_topology, self._tend_lease):
                    with (
                        suppress(LedgerDown, BrokerUnavailable),
                        link_losses(),
                    ):  # it cannot be told now
                        async with asyncio.timeout(TEND_WITHIN_S):
                            await step()
                next_at = time.monotonic() + TEND_S
            await asyncio.sleep(WATCH_S)

    async def _tend_topology(self) -> None:
        try:
            await self._upkeep.tend()
        except WrongTopology as error:
            self._pause_for("topology", str(error))
        else:
            self._resume_after("topology")

    async def _tend_lease(self) -> None:
        connection = self._connection()
        if connection is None:
            raise BrokerUnavailable("there is no connection")
        try:
            await self._lease.renew(connection)
        except OtherLedger as error:
            self._pause_for("lease", str(error))
        else:
            self._resume_after("lease")

    def _pause_for(self, reason: str, trouble: str) -> None:
        if self.troubles.get(reason) != trouble:
            log.error("worker.held", reason=reason, detail=trouble)
        self.troubles[reason] = trouble
        self._subscription.pause(reason)

    def _resume_after(self, reason: str) -> None:
        self.troubles.pop(reason, None)
        self._subscription.resume(reason)

    async def _measure(self) -> None:
        """Measure at intervals what no event tells: queue depths, the oldest dead letter."""
        while True:
            with suppress(LedgerDown, BrokerUnavailable):
                found = await self._publisher.depths(self._topology.names)
                for name, messages in found.items():
                    metrics.QUEUE_MESSAGES.labels(name).set(messages)
                self._see_that_we_are_fed(found.get(self._topology.requests.name, 0))
                letters = found.get(self._topology.dead_letters.name)
                oldest = await self._ledger.search.oldest_failure() if letters else 0.0
                metrics.OLDEST_DEAD_LETTER.set(oldest)
            if self._portal.usage is not None:
                metrics.OPERATING.set(self._portal.usage.operating_s)
            await asyncio.sleep(MEASURE_S)

    def _see_that_we_are_fed(self, waiting: int) -> None:
        """Consume anew where requests wait, this worker is idle, and it was so the last time.

        RabbitMQ 3.10 sends nothing to a consumer whose queue was deleted and declared again at
        once, and does not tell it. On a standby this does no harm.
        """
        starved = waiting > 0 and self._subscription.consuming and self._is_idle()
        if starved and self._starved:
            self._subscription.renew()
            log.debug("subscription.renewed", waiting=waiting)
        self._starved = starved and not self._starved

    async def _forget(self) -> None:
        """Remove from the ledger once a day what was finished long ago."""
        while True:
            before = time.time() - self._retention_days * DAY_S
            with suppress(LedgerDown):
                if forgotten := await self._ledger.forget_closed(before):
                    log.info("ledger.forgot", requests=forgotten)
            await asyncio.sleep(DAY_S)

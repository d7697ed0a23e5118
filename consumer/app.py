"""The only wiring: settings in, a running worker out."""

import asyncio
import logging
import signal
import time
from contextlib import suppress
from typing import Any

import structlog
from aio_pika.abc import AbstractConnection
from faststream import AckPolicy
from faststream.rabbit import Channel, RabbitBroker, RabbitMessage, RabbitQueue
from faststream.rabbit.subscriber import RabbitSubscriber

from consumer.broker import CONNECT_TIMEOUT_S, address_of
from consumer.intake import Intake
from consumer.ledger import LedgerDown, SqliteLedger
from consumer.messages import Defaults
from consumer.outbox import Outbox
from consumer.pace import Pace
from consumer.placing import Placing, Rules
from consumer.portal import Portal
from consumer.publisher import Publisher
from consumer.settings import Settings
from consumer.topology import Topology, build_topology, declare
from consumer.worker import Worker

RECONNECT_S = 1.0
WATCH_S = 1.0
DAY_S = 86_400
NEAR_THE_LIMIT = 0.99
STUCK_PUBLISHING_S = 60.0
LONGEST_IDLE_S = 60.0
"""Without a consumer for so long the process exits, so that its platform starts it anew."""

log = structlog.get_logger(__name__)


class NoConsumer(RuntimeError):
    """Raised when the broker has not let us consume for `LONGEST_IDLE_S`."""


class App:
    """A worker and all it needs, from start to stop.

    Args:
        settings: With the two addresses set.

    Raises:
        WrongSettings: One of the addresses is missing.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = settings.needed("rabbitmq_url")
        portal_url = settings.needed("bitrix24_url")
        self.topology = topology_of(settings)
        self._stop = asyncio.Event()
        self._broker, self._subscriber = _broker(self._url, self.topology, settings.concurrency)
        self.intake = Intake(self._subscriber)
        self.ledger = SqliteLedger(settings.ledger_url, settings.queue)
        self.portal = Portal(
            portal_url, timeout_s=settings.timeout_s, connections=settings.concurrency
        )
        self.publisher = Publisher(self._url)
        outbox = Outbox(self.publisher, self.topology)
        placing = Placing(
            ledger=self.ledger,
            portal=self.portal,
            pace=Pace(settings.rate_per_s, settings.burst),
            outbox=outbox,
            intake=self.intake,
            rules=Rules(
                delays_s=settings.retry_delays_s,
                timeout_s=settings.timeout_s,
                lag_s=settings.history_lag_s,
                retry_unsure=settings.when_unsure == "retry",
                operating_limit_s=settings.operating_limit_s * NEAR_THE_LIMIT,
            ),
        )
        self.worker = Worker(placing, outbox, defaults_of(settings))

    async def run(self) -> None:
        """Work until `stop` is called, then drain.

        Raises:
            NoBroker, WrongTopology, LedgerDown: It cannot start.
            NoConsumer: The broker is there but does not let us consume.
        """
        await self.ledger.open()
        await declare(self._url, self.topology, check_only=not self._settings.declare)
        self._subscriber(self.worker.handle)
        await self._broker.start()
        aligning = asyncio.create_task(self.intake.run())
        watching = asyncio.create_task(self._watch())
        forgetting = asyncio.create_task(self._forget())
        stopping: asyncio.Task[Any] = asyncio.create_task(self._stop.wait())
        log.info("worker.ready", queue=self.topology.requests.name, portal=self.portal.host)
        try:
            await asyncio.wait({aligning, watching, stopping}, return_when="FIRST_COMPLETED")
            for task in (aligning, watching):
                if task.done():
                    task.result()
        finally:
            for task in (aligning, watching, forgetting, stopping):
                task.cancel()
            await self._close()

    def stop(self) -> None:
        """Ask the worker to drain and end."""
        self._stop.set()

    async def _watch(self) -> None:
        """Stop taking messages while none can be published; end when none can be taken."""
        idle_since: float | None = None
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(WATCH_S)
            if self.publisher.stuck_s > STUCK_PUBLISHING_S:
                self.intake.hold("publishing")
            elif self.publisher.stuck_s == 0:
                self.intake.release("publishing")
            if self.intake.consuming or self.intake.held_by:
                idle_since = None
            elif idle_since is None:
                idle_since = clock()
            elif clock() - idle_since > LONGEST_IDLE_S:
                raise NoConsumer("no consumer is registered, and none can be")

    async def _forget(self) -> None:
        """Let the ledger forget once a day what was settled long ago."""
        while True:
            before = time.time() - self._settings.ledger_retention_days * DAY_S
            with suppress(LedgerDown):
                forgotten = await self.ledger.forget_closed(before)
                log.info("ledger.forgot", requests=forgotten)
            await asyncio.sleep(DAY_S)

    async def _close(self) -> None:
        """Stop taking messages, finish those in flight, give the rest back."""
        log.info("worker.draining")
        await self.intake.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_s):
                await self.worker.drain()
        await self._broker.stop()
        await self.publisher.close()
        await self.portal.close()
        await self.ledger.close()
        log.info("worker.stopped")


def topology_of(settings: Settings) -> Topology:
    """Return exchange and queues as the settings name them."""
    return build_topology(settings.exchange, settings.queue, settings.retry_delays_s)


def defaults_of(settings: Settings) -> Defaults:
    """Return what requests need not say."""
    return Defaults(settings.default_line, settings.default_voice, settings.default_region)


async def run(settings: Settings) -> None:
    """Run a worker until SIGTERM or SIGINT.

    Raises:
        WrongSettings, NoBroker, WrongTopology, LedgerDown, NoConsumer: As `App` has it.
    """
    app = App(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    await app.run()


def _broker(url: str, topology: Topology, prefetch: int) -> tuple[RabbitBroker, RabbitSubscriber]:
    broker = RabbitBroker(
        str(address_of(url, "worker")),
        timeout=CONNECT_TIMEOUT_S,
        reconnect_interval=RECONNECT_S,
        default_channel=Channel(prefetch_count=prefetch),
        graceful_timeout=1.0,  # `App` has drained before
        apply_types=False,
        logger=logging.getLogger("faststream"),
        log_level=logging.DEBUG,
        on_close=[_say_lost],
        on_reconnected=[lambda _: log.info("broker.back")],
    )
    subscriber = broker.subscriber(
        # Passive: `declare` has made it. Left to itself FastStream would parse the bodies first.
        RabbitQueue(topology.requests.name, declare=False),
        decoder=_undecoded,
        ack_policy=AckPolicy.MANUAL,
        no_reply=True,
    )
    return broker, subscriber


def _say_lost(_: AbstractConnection | None, error: BaseException | None) -> None:
    if error is not None and not isinstance(error, asyncio.CancelledError):
        log.warning("broker.lost", why=type(error).__name__)


async def _undecoded(message: RabbitMessage) -> RabbitMessage:
    return message

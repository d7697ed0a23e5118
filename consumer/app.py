"""The only wiring: settings in, a running worker out."""

import asyncio
import math
from collections.abc import Coroutine
from functools import partial
from typing import Any
from uuid import uuid4

import structlog

from consumer import tracing
from consumer.assembly import (
    build_evictions,
    build_follower,
    build_housekeeping,
    build_processor,
    build_readiness,
)
from consumer.canceller import Canceller
from consumer.health import Part, serve
from consumer.heartbeat import Heartbeat
from consumer.housekeeping import keep_running
from consumer.interruptible import Interruptible
from consumer.ledger import Ledger
from consumer.parts import build_broker_parts, build_portal_parts, build_record_parts
from consumer.rabbitmq.declaration import declare, explained
from consumer.rabbitmq.losses import BrokerUnavailable, link_losses
from consumer.settings import Settings
from consumer.shutdown import end, until, within
from consumer.startup import Startup
from consumer.worker import Worker

START_WITHIN_S = 20.0
STOP_CONSUMING_S = 1.0
STOP_LINKS_S = 1.0
STOP_PORTAL_S = 2.0
"""More: tokens that are being renewed must be kept."""

log = structlog.get_logger(__name__)


class App:
    """A worker and all it needs, from start to stop.

    Args:
        settings: With the two addresses set.

    Raises:
        WrongSettings: One of the addresses is missing.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.owner = str(uuid4())
        self._stop = asyncio.Event()
        self._started = False
        self._startup = Startup()
        self.ledger = Ledger(
            settings.ledger_url.get_secret_value(), settings.queue, settings.concurrency
        )
        self._broker = broker = build_broker_parts(settings, self.ledger)
        self._portal = portal = build_portal_parts(settings, self.ledger, broker.subscription)
        self._records = records = build_record_parts(settings, self.ledger, broker, portal)
        self.topology, self.publisher = broker.topology, broker.publisher
        self.subscription, self.cancellations = broker.subscription, broker.cancellations
        self.breaker, self.controls = portal.breaker, records.controls
        self.worker = self._build_worker()
        self._canceller = Canceller(self.owner, records.recorder, records.recovery)
        self._follower = build_follower(self.owner, broker, portal, records)
        self._evictions = build_evictions(settings, broker)
        self._housekeeping = build_housekeeping(
            settings, broker, portal, records, is_idle=lambda: self.worker.idle
        )
        self._readiness = build_readiness(
            broker,
            portal,
            records,
            troubles=lambda: self._housekeeping.troubles,
            waits_for=lambda: self._startup.waits_for,
        )
        self._heartbeat = self._build_heartbeat()

    def _build_worker(self) -> Worker:
        waits = Interruptible()
        return Worker(
            processor=build_processor(
                self._settings, self.owner, self._portal, self._records, waits
            ),
            waits=waits,
            subscription=self.subscription,
            rate_limiter=self._portal.rate_limiter,
            breaker=self.breaker,
            defaults=self._settings.request_defaults,
        )

    def _build_heartbeat(self) -> Heartbeat:
        return Heartbeat(
            owner=self.owner,
            table=self.ledger.workers,
            handled_at=lambda: self.worker.handled_at,
            readiness=self._readiness,
            rate_limiter=self._portal.rate_limiter,
            started=lambda: self._started,
            stopping=self._stop.is_set,
        )

    async def run(self, wait_s: float = math.inf) -> None:
        """Work until `stop` is called, then drain.

        Args:
            wait_s: How long to wait for a broker or a ledger that is not there yet.

        Raises:
            BrokerUnavailable, LedgerDown, OtherLedger: It could not start within *wait_s*.
            LoginRefused, WrongTopology, WrongLedger: It cannot start as things are.
            NoConsumer: The broker is there but does not let us consume.
        """
        serving = asyncio.create_task(self._serve())
        self._heartbeat.start()
        try:
            await until(self._stop, self._start(wait_s))
            if not self._stop.is_set():
                await until(self._stop, *self._work())
        finally:
            self._started = False
            await self._close()
            await end([serving])

    def stop(self) -> None:
        """Ask the worker to drain and end."""
        self._stop.set()
        self.worker.stop()
        self.publisher.stop_repeating()

    async def _start(self, wait_s: float) -> None:
        """Take one step after the other; whatever can fail comes before the first message."""
        self._startup = startup = Startup(wait_s)
        check_only = not self._settings.declare
        await startup.take("ledger", self.ledger.open)
        await startup.take("ledger", self.controls.refresh)
        completions = self.ledger.completions
        follows = self._settings.follow_up
        await startup.take("ledger", completions.follow if follows else completions.stop_following)
        await startup.take(
            "broker", partial(declare, self._broker.url, self.topology, check_only=check_only)
        )
        await startup.take("publisher", self.publisher.connect)
        await startup.take("broker", self.subscription.connect)
        await startup.take("lease", self._take_lease)
        await startup.take("broker", self._take_cancellations)
        if self._portal.login is not None:
            await self._portal.login.look()
        await startup.take("broker", self._consume)
        self._started = True
        log.info("worker.ready", queue=self.topology.requests.name, portal=self._portal.portal.host)

    async def _take_lease(self) -> None:
        connection = self.subscription.connection
        if connection is None:
            raise BrokerUnavailable("there is no connection")
        with link_losses():
            async with asyncio.timeout(START_WITHIN_S):
                await self._broker.lease.renew(connection)

    async def _take_cancellations(self) -> None:
        """Note first what was taken back while no worker ran."""
        await self._canceller.start(
            self.cancellations,
            partial(self.publisher.depth, self.cancellations.queue),
        )

    async def _consume(self) -> None:
        with link_losses(), explained(f"queue {self.topology.requests.name}"):
            async with asyncio.timeout(START_WITHIN_S):
                await self.subscription.start(self.worker.handle)

    def _work(self) -> list[Coroutine[Any, Any, object]]:
        jobs = {
            "subscription": self.subscription.run,
            "cancellations": self.cancellations.run,
            "breaker": self.breaker.run,
            "controls": self.controls.run,
            "evictions": self._evictions.run,
            **self._housekeeping.jobs,
            **(self._follower.jobs if self._settings.follow_up else {}),
        }
        if self._portal.login is not None:
            jobs["login"] = self._portal.login.run
        return [keep_running(name, job) for name, job in jobs.items()]

    def parts(self) -> dict[str, Part]:
        """Return the state of the parts that readiness depends on."""
        return self._readiness.parts(started=self._started)

    async def _serve(self) -> None:
        if self._settings.http_port:
            await serve(self._settings.http_port, self.parts)

    async def _close(self) -> None:
        """Stop taking messages, finish those in flight, give the rest back.

        Every part has a limit: a broker that is away must not keep us from ending.
        """
        log.info("worker.draining")
        cancelled, drained, left = await asyncio.gather(
            within(STOP_CONSUMING_S, "consumer", self.subscription.close()),
            within(self._settings.drain_s, "calls", self.worker.drain()),
            within(STOP_CONSUMING_S, "cancellations", self.cancellations.close()),
        )
        await within(STOP_LINKS_S, "follower", self._follower.release())
        if cancelled and drained:
            await within(STOP_LINKS_S, "lease", self._broker.lease.release())
        await asyncio.gather(
            self.subscription.leave(answers=cancelled),
            self.cancellations.leave(answers=left),
            within(STOP_LINKS_S, "publisher", self.publisher.close()),
            within(STOP_PORTAL_S, "portal", self._portal.portal.close()),
            within(STOP_LINKS_S, "traces", tracing.stop()),
            within(STOP_LINKS_S, "heartbeat", self._heartbeat.close()),
        )
        self._records.recovery.close()
        await within(STOP_LINKS_S, "ledger", self.ledger.close())
        log.info("worker.stopped")

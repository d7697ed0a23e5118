"""The only wiring: settings in, a running worker out."""

import asyncio
import math
from collections.abc import Coroutine
from functools import partial
from typing import Any
from uuid import uuid4

import structlog

from consumer.announcer import Announcer
from consumer.assembly import build_processor
from consumer.bitrix24.portal import Portal
from consumer.canceller import Canceller
from consumer.completed import CompletedPublisher
from consumer.controls import LiveControls
from consumer.follower import Follower
from consumer.health import Part, serve
from consumer.heartbeat import Heartbeat
from consumer.history import History
from consumer.housekeeping import Housekeeping, keep_running
from consumer.interruptible import Interruptible
from consumer.ledger import Ledger
from consumer.ledger.ages import Ages
from consumer.ledger.recovery import Recovery
from consumer.limits.circuit_breaker import CircuitBreaker
from consumer.limits.rate_limiter import RateLimiter
from consumer.login_watch import LoginWatch
from consumer.oauth import OAuth
from consumer.operations.evictions import Evictions
from consumer.probe import Probe
from consumer.rabbitmq.declaration import declare, explained
from consumer.rabbitmq.lease import Lease
from consumer.rabbitmq.losses import BrokerUnavailable, link_losses
from consumer.rabbitmq.policies import Policies
from consumer.rabbitmq.publisher import Publisher
from consumer.rabbitmq.subscription import Subscription
from consumer.rabbitmq.topology import topology_of
from consumer.readiness import Readiness
from consumer.reconciler import Reconciler
from consumer.recorder import Recorder
from consumer.settings import Settings
from consumer.shutdown import end, until, within
from consumer.startup import Startup
from consumer.way_in import access_by
from consumer.worker import Worker

START_WITHIN_S = 20.0
STOP_CONSUMING_S = 1.0
STOP_LINKS_S = 1.0
STOP_PORTAL_S = 2.0
"""More: tokens that are being renewed must be kept."""
CANCELLATIONS_AT_ONCE = 50

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
        self._url = settings.needed("rabbitmq_url")
        self.owner = str(uuid4())
        self.topology = topology_of(settings)
        self._stop = asyncio.Event()
        self._started = False
        self._startup = Startup()
        self.subscription = Subscription(
            self._url, self.topology.requests.name, settings.concurrency
        )
        self.cancellations = Subscription(
            self._url, self.topology.cancellations.name, CANCELLATIONS_AT_ONCE, "cancellations"
        )
        self.ledger = Ledger(
            settings.ledger_url.get_secret_value(), settings.queue, settings.concurrency
        )
        access = access_by(settings, self.ledger)
        rate_limiter = RateLimiter(settings.rate_per_s, settings.burst)
        self.portal = Portal(access, timeout_s=settings.timeout_s, draw=rate_limiter.borrow)
        self.policies = Policies()
        self.publisher = Publisher(
            self._url, on_full=lambda queue: self.policies.seen("max-length", queue)
        )
        self._evictions = Evictions(
            self._url,
            self.topology,
            self.publisher,
            self.policies,
            declares=settings.declare,
        )
        self.breaker = CircuitBreaker(
            settings.pause_after,
            self.subscription,
            Probe(self.portal, rate_limiter).still_shows,
            settings.default_line,
        )
        self._login = LoginWatch(access, self.breaker) if isinstance(access, OAuth) else None
        self.recovery = Recovery(self.ledger, self.subscription)
        self.controls = LiveControls(
            self.ledger.controls,
            self.subscription,
            partial(self.publisher.depth, self.topology.requests.name),
        )
        ages = Ages(lambda: self.portal.clock_offset_s)
        announcer = Announcer(self.topology)
        self.recorder = Recorder(
            ledger=self.ledger,
            ages=ages,
            recovery=self.recovery,
            announcer=announcer,
            publisher=self.publisher,
        )
        history = History(self.ledger, self.portal, rate_limiter, lag_s=settings.history_lag_s)
        self.reconciler = Reconciler(
            self.ledger,
            history,
            ages,
            lag_s=settings.history_lag_s,
            delays_s=settings.retry_delays_s,
            retry_unsure=settings.when_unsure == "retry",
        )
        self.follower = Follower(
            self.owner,
            ledger=self.ledger,
            history=history,
            reconciler=self.reconciler,
            ages=ages,
            rate_limiter=rate_limiter,
            completed=CompletedPublisher(self.ledger.completions, announcer, self.publisher),
        )
        self.canceller = Canceller(self.owner, self.recorder, self.recovery)
        waits = Interruptible()
        processor = build_processor(
            settings,
            owner=self.owner,
            ledger=self.ledger,
            portal=self.portal,
            rate_limiter=rate_limiter,
            breaker=self.breaker,
            controls=self.controls,
            recovery=self.recovery,
            reconciler=self.reconciler,
            recorder=self.recorder,
            ages=ages,
            waits=waits,
        )
        self.worker = Worker(
            processor=processor,
            waits=waits,
            subscription=self.subscription,
            rate_limiter=rate_limiter,
            breaker=self.breaker,
            defaults=settings.request_defaults,
        )
        self.lease = Lease(self._url, settings.queue, self.ledger)
        self._housekeeping = Housekeeping(
            url=self._url,
            subscription=self.subscription,
            cancellations=self.cancellations,
            publisher=self.publisher,
            ledger=self.ledger,
            portal=self.portal,
            topology=self.topology,
            lease=self.lease,
            policies=self.policies,
            connection=lambda: self.subscription.connection,
            is_idle=lambda: self.worker.idle,
            declares=settings.declare,
            retention_days=settings.ledger_retention_days,
        )
        self._readiness = Readiness(
            subscription=self.subscription,
            publisher=self.publisher,
            breaker=self.breaker,
            controls=self.controls,
            policies=self.policies,
            troubles=lambda: self._housekeeping.troubles,
            waits_for=lambda: self._startup.waits_for,
        )
        self._heartbeat = Heartbeat(
            owner=self.owner,
            table=self.ledger.workers,
            handled_at=lambda: self.worker.handled_at,
            readiness=self._readiness,
            rate_limiter=rate_limiter,
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
            "broker", partial(declare, self._url, self.topology, check_only=check_only)
        )
        await startup.take("publisher", self.publisher.connect)
        await startup.take("broker", self.subscription.connect)
        await startup.take("lease", self._take_lease)
        await startup.take("broker", self._take_cancellations)
        if self._login is not None:
            await self._login.look()
        await startup.take("broker", self._consume)
        self._started = True
        log.info("worker.ready", queue=self.topology.requests.name, portal=self.portal.host)

    async def _take_lease(self) -> None:
        connection = self.subscription.connection
        if connection is None:
            raise BrokerUnavailable("there is no connection")
        with link_losses():
            async with asyncio.timeout(START_WITHIN_S):
                await self.lease.renew(connection)

    async def _take_cancellations(self) -> None:
        """Note first what was taken back while no worker ran."""
        await self.canceller.start(
            self.cancellations, partial(self.publisher.depth, self.cancellations.queue)
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
            **(self.follower.jobs if self._settings.follow_up else {}),
        }
        if self._login is not None:
            jobs["login"] = self._login.run
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
        await within(STOP_LINKS_S, "follower", self.follower.release())
        if cancelled and drained:
            await within(STOP_LINKS_S, "lease", self.lease.release())
        await asyncio.gather(
            self.subscription.leave(answers=cancelled),
            self.cancellations.leave(answers=left),
            within(STOP_LINKS_S, "publisher", self.publisher.close()),
            within(STOP_PORTAL_S, "portal", self.portal.close()),
            within(STOP_LINKS_S, "heartbeat", self._heartbeat.close()),
        )
        self.recovery.close()
        await within(STOP_LINKS_S, "ledger", self.ledger.close())
        log.info("worker.stopped")

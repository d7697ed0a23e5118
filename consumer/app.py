"""The only wiring: settings in, a running worker out."""

import asyncio
import math
import os
import signal
from collections.abc import Collection, Coroutine
from functools import partial
from threading import Timer
from typing import TYPE_CHECKING, Any

import structlog

from consumer.announcer import Announcer
from consumer.bitrix24.portal import Portal
from consumer.caller import Caller
from consumer.health import Part, serve
from consumer.housekeeping import Housekeeping, keep_running
from consumer.interruptible import Interruptible
from consumer.ledger import Ledger
from consumer.ledger.ages import Ages
from consumer.ledger.recovery import Recovery
from consumer.limits.circuit_breaker import CircuitBreaker
from consumer.limits.rate_limiter import RateLimiter
from consumer.operations.evictions import Evictions
from consumer.probe import Probe
from consumer.processor import Processor, Rules
from consumer.rabbitmq.connection import (
    BrokerUnavailable,
    link_losses,
)
from consumer.rabbitmq.lease import Lease
from consumer.rabbitmq.policies import Policies
from consumer.rabbitmq.publisher import Publisher
from consumer.rabbitmq.subscription import Subscription
from consumer.rabbitmq.topology import declare, explained, topology_of
from consumer.readiness import Readiness
from consumer.reconciler import Reconciler
from consumer.recorder import Recorder
from consumer.settings import Settings, service_variables
from consumer.startup import Startup
from consumer.worker import Worker

if TYPE_CHECKING:
    from aio_pika.abc import AbstractConnection

START_WITHIN_S = 20.0
STOP_CONSUMING_S = 1.0
STOP_LINKS_S = 1.0
LAST_S = 0.5
"""How long a stopped process may take to end; see `run`."""
END_TRIES = 4
END_S = 0.25
SIGNALS = (signal.SIGTERM, signal.SIGINT)
NEAR_THE_LIMIT = 0.99

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
        portal_url = settings.needed("bitrix24_url")
        self.topology = topology_of(settings)
        self._stop = asyncio.Event()
        self._started = False
        self._startup = Startup()
        self.connection: AbstractConnection | None = None
        self.subscription = Subscription(
            self._url, self.topology.requests.name, settings.concurrency
        )
        self.ledger = Ledger(
            settings.ledger_url.get_secret_value(), settings.queue, settings.concurrency
        )
        self.portal = Portal(portal_url, timeout_s=settings.timeout_s)
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
        rate_limiter = RateLimiter(settings.rate_per_s, settings.burst)
        self.breaker = CircuitBreaker(
            settings.pause_after,
            self.subscription,
            Probe(self.portal, rate_limiter).still_shows,
            settings.default_line,
        )
        self._recovery = Recovery(self.ledger, self.subscription)
        self.worker = self._build_worker(rate_limiter)
        self.lease = Lease(self._url, settings.queue, self.ledger)
        self._housekeeping = Housekeeping(
            url=self._url,
            subscription=self.subscription,
            publisher=self.publisher,
            ledger=self.ledger,
            portal=self.portal,
            topology=self.topology,
            lease=self.lease,
            policies=self.policies,
            connection=lambda: self.connection,
            is_idle=lambda: self.worker.idle,
            declares=settings.declare,
            retention_days=settings.ledger_retention_days,
        )
        self._readiness = Readiness(
            subscription=self.subscription,
            publisher=self.publisher,
            breaker=self.breaker,
            policies=self.policies,
            troubles=lambda: self._housekeeping.troubles,
            waits_for=lambda: self._startup.waits_for,
        )

    def _build_worker(self, rate_limiter: RateLimiter) -> Worker:
        """Put together what a message meets on its way."""
        settings = self._settings
        waits = Interruptible()
        ages = Ages(lambda: self.portal.clock_offset_s)
        processor = Processor(
            ledger=self.ledger,
            ages=ages,
            recovery=self._recovery,
            caller=Caller(
                self.portal,
                rate_limiter,
                self.breaker,
                delays_s=settings.retry_delays_s,
                operating_limit_s=settings.operating_limit_s * NEAR_THE_LIMIT,
            ),
            reconciler=Reconciler(self.ledger, self.portal, rate_limiter, settings.history_lag_s),
            recorder=Recorder(
                ledger=self.ledger,
                ages=ages,
                recovery=self._recovery,
                announcer=Announcer(self.topology),
                publisher=self.publisher,
            ),
            waits=waits,
            rules=Rules(
                delays_s=settings.retry_delays_s,
                timeout_s=settings.timeout_s,
                lag_s=settings.history_lag_s,
                retry_unsure=settings.when_unsure == "retry",
            ),
        )
        return Worker(
            processor=processor,
            waits=waits,
            subscription=self.subscription,
            rate_limiter=rate_limiter,
            breaker=self.breaker,
            defaults=settings.request_defaults,
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
        try:
            await self._until_stop(self._start(wait_s))
            if not self._stop.is_set():
                await self._until_stop(*self._work())
        finally:
            self._started = False
            await self._close()
            await _end([serving])

    def stop(self) -> None:
        """Ask the worker to drain and end."""
        self._stop.set()
        self.publisher.stop_repeating()

    async def _until_stop(self, *coroutines: Coroutine[Any, Any, object]) -> None:
        """Run *coroutines* until one is done, or the worker is to stop."""
        tasks = [asyncio.create_task(each) for each in (*coroutines, self._stop.wait())]
        try:
            done, _ = await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
            for task in done:
                task.result()
        finally:
            await _end(tasks)

    async def _start(self, wait_s: float) -> None:
        """Take one step after the other; whatever can fail comes before the first message."""
        self._startup = startup = Startup(wait_s)
        check_only = not self._settings.declare
        await startup.take("ledger", self.ledger.open)
        await startup.take(
            "broker", partial(declare, self._url, self.topology, check_only=check_only)
        )
        await startup.take("publisher", self.publisher.connect)
        await startup.take("broker", self._connect)
        await startup.take("lease", self._take_lease)
        await startup.take("broker", self._consume)
        self._started = True
        log.info("worker.ready", queue=self.topology.requests.name, portal=self.portal.host)

    async def _connect(self) -> None:
        self.connection = await self.subscription.connect()

    async def _take_lease(self) -> None:
        if self.connection is None:
            raise BrokerUnavailable("there is no connection")
        with link_losses():
            async with asyncio.timeout(START_WITHIN_S):
                await self.lease.renew(self.connection)

    async def _consume(self) -> None:
        with link_losses(), explained(f"queue {self.topology.requests.name}"):
            async with asyncio.timeout(START_WITHIN_S):
                await self.subscription.start(self.worker.handle)

    def _work(self) -> list[Coroutine[Any, Any, object]]:
        jobs = {
            "subscription": self.subscription.run,
            "breaker": self.breaker.run,
            "evictions": self._evictions.run,
            **self._housekeeping.jobs,
        }
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
        cancelled, drained = await asyncio.gather(
            _within(STOP_CONSUMING_S, "consumer", self.subscription.close()),
            _within(self._settings.drain_s, "calls", self.worker.drain()),
        )
        if cancelled and drained:
            await _within(STOP_LINKS_S, "lease", self.lease.release())
        await asyncio.gather(
            self._leave_broker(answers=cancelled),
            _within(STOP_LINKS_S, "publisher", self.publisher.close()),
            _within(STOP_LINKS_S, "portal", self.portal.close()),
        )
        self._recovery.close()
        await _within(STOP_LINKS_S, "ledger", self.ledger.close())
        log.info("worker.stopped")

    async def _leave_broker(self, *, answers: bool) -> None:
        if answers:
            await _within(STOP_LINKS_S, "broker", self.subscription.stop())
        if self.connection is not None:  # which would try to come back for ever
            await _within(LAST_S, "connection", self.connection.close())


async def _within(limit_s: float, part: str, step: Coroutine[Any, Any, object]) -> bool:
    """Take a step of the stop, and tell whether it went well; go on after *limit_s* in any case."""
    task = asyncio.create_task(step)
    await asyncio.wait([task], timeout=limit_s)
    if not task.done():
        task.cancel()  # client libraries may swallow that, so nothing waits for it
        log.info("stop.cut_short", part=part, limit_s=limit_s)
        return False
    if task.cancelled() or task.exception() is not None:
        error = None if task.cancelled() else task.exception()
        log.info("stop.cut_short", part=part, error=type(error).__name__)
        return False
    return True


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel *tasks* until they have ended: a client library may swallow a cancellation."""
    pending = set(tasks)
    for _ in range(END_TRIES):
        if not pending:
            return
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=END_S)


async def run(settings: Settings, wait_s: float = math.inf) -> None:
    """Run a worker until SIGTERM or SIGINT; a second one ends the process at once.

    Raises:
        WrongSettings, BrokerUnavailable, WrongTopology, LedgerDown, OtherLedger, NoConsumer: As
            `App` has it.
    """
    if skipped := service_variables():
        log.info("settings.skipped", names=sorted(skipped))
    app = App(settings)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        app.stop()
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, _end_at_once)

    for number in SIGNALS:
        loop.add_signal_handler(number, stop)
    await app.run(wait_s)
    # What is left are client libraries' tasks that no cancellation ends, and look-ups of names.
    last = Timer(LAST_S, os._exit, [0])
    last.daemon = True
    last.start()


def _end_at_once(number: int, _: object) -> None:
    """End at once: for the ledger and the broker it is as if the process were killed."""
    os._exit(128 + number)

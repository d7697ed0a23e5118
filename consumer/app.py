"""The only wiring: settings in, a running worker out."""

import asyncio
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
from aio_pika.abc import AbstractConnection
from faststream import AckPolicy
from faststream.rabbit import Channel, RabbitBroker, RabbitMessage, RabbitQueue
from faststream.rabbit.subscriber import RabbitSubscriber

from consumer import metrics
from consumer.announcer import Announcer
from consumer.answers import read_answer
from consumer.broker import (
    CONNECT_TIMEOUT_S,
    LINK_ERRORS,
    RobustConnection,
    addresses_of,
    why_lost,
)
from consumer.caller import Caller
from consumer.decision import Refused, Unavailable
from consumer.health import Part, serve
from consumer.intake import Intake
from consumer.ledger import Ledger, LedgerDown
from consumer.ledger.ages import Ages
from consumer.ledger.recovery import Recovery
from consumer.limits.circuit_breaker import CircuitBreaker, Kind
from consumer.limits.rate_limiter import RateLimiter
from consumer.messages import Defaults
from consumer.portal import Portal
from consumer.processor import Processor, Rules
from consumer.publisher import Publisher
from consumer.reconciler import Reconciler
from consumer.settings import Settings, service_variables
from consumer.topology import Topology, build_topology, declare
from consumer.worker import Worker

RECONNECT_S = 1.0
WATCH_S = 1.0
DAY_S = 86_400
MEASURE_S = 15.0
PROBE = "server.time"
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
        self._started = False
        self._broker, self._subscriber = _broker(self._url, self.topology, settings.concurrency)
        self.intake = Intake(self._subscriber, settings.concurrency)
        self.ledger = Ledger(
            settings.ledger_url.get_secret_value(), settings.queue, settings.concurrency
        )
        self.portal = Portal(portal_url, timeout_s=settings.timeout_s)
        self.publisher = Publisher(self._url)
        announcer = Announcer(self.publisher, self.topology)
        self._rate_limiter = RateLimiter(settings.rate_per_s, settings.burst)
        self.breaker = CircuitBreaker(
            settings.pause_after, self.intake, self._still_faulty, settings.default_line
        )
        processor = Processor(
            ledger=self.ledger,
            ages=Ages(lambda: self.portal.clock_offset_s),
            recovery=Recovery(self.ledger, self.intake),
            caller=Caller(
                self.portal,
                self._rate_limiter,
                self.breaker,
                delays_s=settings.retry_delays_s,
                operating_limit_s=settings.operating_limit_s * NEAR_THE_LIMIT,
            ),
            reconciler=Reconciler(
                self.ledger, self.portal, self._rate_limiter, settings.history_lag_s
            ),
            announcer=announcer,
            rules=Rules(
                delays_s=settings.retry_delays_s,
                timeout_s=settings.timeout_s,
                lag_s=settings.history_lag_s,
                retry_unsure=settings.when_unsure == "retry",
            ),
        )
        self.worker = Worker(
            processor=processor,
            announcer=announcer,
            intake=self.intake,
            rate_limiter=self._rate_limiter,
            breaker=self.breaker,
            defaults=defaults_of(settings),
        )

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
        self._started = True
        jobs: list[asyncio.Task[Any]] = [
            asyncio.create_task(job)
            for job in (
                self.intake.run(),
                self.breaker.run(),
                self._watch(),
                self._measure(),
                self._forget(),
                self._stop.wait(),
            )
        ]
        serving = asyncio.create_task(self._serve())
        log.info("worker.ready", queue=self.topology.requests.name, portal=self.portal.host)
        try:
            done, _ = await asyncio.wait(jobs, return_when="FIRST_COMPLETED")
            for job in done:
                job.result()
        finally:
            self._started = False
            await _end(jobs)
            await self._close()
            await _end([serving])

    def stop(self) -> None:
        """Ask the worker to drain and end."""
        self._stop.set()

    async def _watch(self) -> None:
        """Stop taking messages while none can be published; end when none can be taken."""
        idle_since: float | None = None
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(WATCH_S)
            metrics.CONSUMING.set(self.intake.consuming)
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

    async def _still_faulty(self, kind: Kind, codes: set[str]) -> bool:
        """Ask the portal something harmless: does it still answer with one of *codes*?"""
        await self._rate_limiter.acquire()
        answer = await self.portal.ask(PROBE)
        if answer is None:
            return True
        status, body = answer
        if kind == "doubt":
            return status in {502, 504}
        outcome = read_answer(status, body)
        return isinstance(outcome, Refused | Unavailable) and outcome.code.upper() in codes

    def parts(self) -> dict[str, Part]:
        """Say how the parts are that readiness depends on."""
        held = sorted(self.intake.held_by)
        consuming = self.intake.consuming
        taking = "consuming" if consuming else f"held: {', '.join(held)}" if held else "no consumer"
        publishing = "publishing" if self.publisher.stuck_s == 0 else "nothing is confirmed"
        return {
            "started": Part(self._started, "started" if self._started else "starting or stopping"),
            "broker": Part(consuming or held == ["portal"], taking),
            "publisher": Part(self.publisher.stuck_s == 0, publishing),
            "ledger": Part("ledger" not in held, "writable" if "ledger" not in held else "down"),
            "pause": Part(ok=True, detail=self.breaker.detail),
        }

    async def _serve(self) -> None:
        if self._settings.http_port:
            await serve(self._settings.http_port, self.parts)

    async def _measure(self) -> None:
        """Measure now and then what no event tells: queue depths, the oldest dead letter."""
        while True:
            with suppress(LedgerDown, *LINK_ERRORS):
                found = await self.publisher.depths(self.topology.names)
                for name, messages in found.items():
                    metrics.QUEUE_MESSAGES.labels(name).set(messages)
                letters = found[self.topology.dead_letters.name]
                oldest = await self.ledger.oldest_failure() if letters else 0.0
                metrics.OLDEST_DEAD_LETTER.set(oldest)
            if self.portal.usage is not None:
                metrics.OPERATING.set(self.portal.usage.operating_s)
            await asyncio.sleep(MEASURE_S)

    async def _forget(self) -> None:
        """Let the ledger forget once a day what was settled long ago."""
        while True:
            before = time.time() - self._settings.ledger_retention_days * DAY_S
            with suppress(LedgerDown):
                if forgotten := await self.ledger.forget_closed(before):
                    log.info("ledger.forgot", requests=forgotten)
            await asyncio.sleep(DAY_S)

    async def _close(self) -> None:
        """Stop taking messages, finish those in flight, give the rest back."""
        log.info("worker.draining")
        await self.intake.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_s):
                await self.worker.drain()
        try:
            await self._broker.stop()
        except Exception as error:  # noqa: BLE001  # a dead link is no reason to stop in disorder
            log.info("broker.stop_failed", error=type(error).__name__)
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


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel *tasks* until they have ended: a client library may swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)


async def run(settings: Settings) -> None:
    """Run a worker until SIGTERM or SIGINT.

    Raises:
        WrongSettings, NoBroker, WrongTopology, LedgerDown, NoConsumer: As `App` has it.
    """
    if skipped := service_variables():
        log.info("settings.skipped", names=sorted(skipped))
    app = App(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    await app.run()


def _broker(urls: str, topology: Topology, prefetch: int) -> tuple[RabbitBroker, RabbitSubscriber]:
    broker = RabbitBroker(
        addresses_of(urls).first,
        timeout=CONNECT_TIMEOUT_S,
        reconnect_interval=RECONNECT_S,
        default_channel=Channel(prefetch_count=prefetch),
        graceful_timeout=1.0,  # `App` has drained before
        apply_types=False,
        logger=None,  # it would add a handler of its own, with tracebacks for each lost link
        on_close=[_say_lost],
        on_reconnected=[lambda _: log.info("broker.back")],
    )
    # FastStream has no public way to a connection that knows several addresses.
    broker._connection_kwargs["connection_class"] = partial(  # noqa: SLF001
        RobustConnection, urls, "worker"
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
        log.warning("broker.lost", why=why_lost(error))


async def _undecoded(message: RabbitMessage) -> RabbitMessage:
    return message

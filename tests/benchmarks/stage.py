"""What every measure stands on: a broker, the API, the three workers, and one timed run."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import aio_pika
from aio_pika.abc import AbstractChannel

from consumer.rabbitmq.topology import build_topology
from tests.benchmarks.api import ROOT, Api, api_running
from tests.benchmarks.cost import cost_of
from tests.benchmarks.subjects import DELAYS_S, Names, Subject

AT_ONCE = 500
"""How many publishes wait for their confirms together."""
POLL_S = 0.05
WAIT_S = 60.0
START_S = 30.0
READY_POLL_S = 0.01
LEAST_PER_S = 10
"""Whoever places fewer calls a second is taken to be stuck."""


class Slow(RuntimeError):
    """Raised when something did not happen in time; names the log that may tell why."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a subject over a full queue: the rate, and what it cost from the first call on."""

    calls_per_s: float
    cpu_s_per_10k: float
    peak_mb: float


class Stage:
    """Lends measures what they need.

    Args:
        url: The broker.
        api: The fast API.
        folder: For ledgers and logs.
    """

    def __init__(self, url: str, api: Api, folder: Path, channel: AbstractChannel) -> None:
        self.url = url
        self.api = api
        self.folder = folder
        self._channel = channel
        self._count = count(1)

    @asynccontextmanager
    async def queues(self, subject: Subject) -> AsyncIterator[Names]:
        """Declare exchange and queues of a run's own, as *subject* has them; delete them after."""
        mark = f"bench-{os.getpid()}-{next(self._count)}"
        names = Names(f"{mark}.calls", f"{mark}.requested", f"{mark}.events")
        exchange = await self._channel.declare_exchange(
            names.exchange, aio_pika.ExchangeType.TOPIC, durable=True
        )
        requests = await self._channel.declare_queue(
            names.queue, durable=True, arguments=subject.arguments(names.queue)
        )
        await requests.bind(exchange, "call.requested")
        events = await self._channel.declare_queue(
            names.events, durable=True, arguments={"x-queue-type": "quorum"}
        )
        await events.bind(exchange, "call.started")
        try:
            yield names
        finally:
            of_ours = build_topology(names.exchange, names.queue, DELAYS_S)
            for name in (*of_ours.names, names.events):
                await self._channel.queue_delete(name)
            await self._channel.exchange_delete(names.exchange)

    async def publish(self, subject: Subject, names: Names, ids: Iterable[str]) -> None:
        """Publish requests as an upstream system does: persistent, confirmed."""
        exchange = await self._channel.get_exchange(names.exchange, ensure=False)
        waiting = iter(ids)
        while some := list(islice(waiting, AT_ONCE)):
            publishing = (
                exchange.publish(subject.message(request_id), "call.requested", mandatory=True)
                for request_id in some
            )
            await asyncio.gather(*publishing)

    @asynccontextmanager
    async def working(
        self, subject: Subject, names: Names, concurrency: int, settings: dict[str, object]
    ) -> AsyncIterator[Process]:
        """Run *subject* for as long as the block lasts; expect it to end in order."""
        log = self.folder / f"{names.queue}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *subject.command(concurrency),
                cwd=ROOT,
                env=self._environment(names, concurrency, settings),
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(WAIT_S):
                code = await process.wait()
            if code != 0:
                raise Slow(f"{subject.name} ended with {code}: see {log}")
        except TimeoutError:
            raise Slow(f"{subject.name} did not do it in time: see {log}") from None
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _environment(
        self, names: Names, concurrency: int, settings: dict[str, object]
    ) -> dict[str, str]:
        ours: dict[str, object] = {
            "rabbitmq_url": self.url,
            "bitrix24_url": self.api.url,
            "exchange": names.exchange,
            "queue": names.queue,
            "ledger_url": f"sqlite:///{self.folder}/{names.queue}.db",
            "retry_delays_s": ",".join(map(str, DELAYS_S)),
            "concurrency": concurrency,
            "rate_per_s": 0,
            "http_port": free_port(),
            **settings,
        }
        theirs = {
            "rabbitmq_url": self.url,
            "api_url": self.api.url,
            "exchange": names.exchange,
            "queue": names.queue,
            "concurrency": concurrency,
        }
        plain = {k: v for k, v in os.environ.items() if not k.upper().startswith("CALLS_")}
        plain |= {f"CALLS_{name.upper()}": str(value) for name, value in ours.items()}
        return plain | {f"BENCH_{name.upper()}": str(value) for name, value in theirs.items()}

    async def settled(self, names: Names, events: int) -> None:
        """Wait until all requests are gone and *events* events are there; some may be repeated."""
        async with asyncio.timeout(WAIT_S):
            while await self._is_unsettled(names, events):  # noqa: ASYNC110  # the broker's to know
                await asyncio.sleep(POLL_S)

    async def _is_unsettled(self, names: Names, events: int) -> bool:
        return bool(await self._depth(names.queue)) or await self._depth(names.events) < events

    async def _depth(self, name: str) -> int:
        queue = await self._channel.declare_queue(name, passive=True)
        return queue.declaration_result.message_count or 0

    async def run(
        self,
        subject: Subject,
        calls: int,
        concurrency: int,
        *,
        waiting: int = 0,
        settings: dict[str, object] | None = None,
    ) -> Run:
        """Let *subject* place *calls* of the requests that wait, all of them unless *waiting*.

        The rate is what the API sees, from the first call to the last.
        """
        async with self.queues(subject) as names:
            await self.publish(subject, names, (f"r-{n}" for n in range(max(calls, waiting))))
            await self.api.expect(calls)
            async with self.working(subject, names, concurrency, settings or {}) as process:
                async with asyncio.timeout(START_S):
                    await self.api.began()
                before = cost_of(process.pid)
                async with asyncio.timeout(WAIT_S + calls / LEAST_PER_S):
                    placed = await self.api.all_calls()
                after = cost_of(process.pid)
                if not waiting:
                    await self.settled(names, calls)
                if len({text for _, text in placed}) != calls:
                    raise Slow(f"{subject.name} placed a call twice")
            took_s = placed[-1][0] - placed[0][0]
            cpu_s = after.cpu_s - before.cpu_s
            return Run((calls - 1) / took_s, cpu_s / calls * 10_000, after.peak_mb)


@asynccontextmanager
async def staged(url: str, folder: Path) -> AsyncIterator[Stage]:
    """Start the API and connect to the broker, for as long as the block lasts."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(api_running())
        connection = await stack.enter_async_context(await aio_pika.connect(url))
        channel = await connection.channel(on_return_raises=True)
        yield Stage(url, api, folder, channel)


async def until_ready(port: int) -> None:
    """Wait until a worker's `/readyz` says yes."""
    async with asyncio.timeout(START_S):
        while not await _is_ready(port):  # noqa: ASYNC110  # another process's to know
            await asyncio.sleep(READY_POLL_S)


async def _is_ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    finally:
        writer.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

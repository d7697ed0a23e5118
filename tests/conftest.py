"""What many tests need: a real broker, a portal over TCP, and a bench to try a worker on."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aio_pika
import asyncpg
import pytest
import uvicorn
from yarl import URL

from consumer.app import App
from consumer.demo import broker as devbroker
from consumer.ledger import Ledger
from consumer.messages import FAILED, REQUESTED, STARTED
from consumer.rabbitmq.topology import declare, topology_of
from consumer.sandbox import SandboxPortal, Switches, create_app
from consumer.settings import Settings
from tests.postgres import NoPostgres, postgres

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

WITHIN_S = 20.0
"""How long a test waits for what should come at once."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


_servers = ExitStack()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start one broker and one PostgreSQL for all of pytest-xdist's processes."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So has the shell what it runs in the background, and commands would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if session.config.getoption("numprocesses", None) and not hasattr(
        session.config, "workerinput"
    ):
        os.environ["TEST_RABBITMQ_URL"] = _servers.enter_context(devbroker.rabbitmq())
        with suppress(NoPostgres):  # the tests that need one say so, and fail
            os.environ["TEST_POSTGRES_URL"] = _servers.enter_context(postgres())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End them."""
    if not hasattr(session.config, "workerinput"):
        _servers.close()


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """Lend a broker; where there is none the test fails, so that none is left out unseen."""
    with devbroker.rabbitmq() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Lend a PostgreSQL server; where there is none the test fails."""
    with postgres() as url:
        yield url


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """Lend an empty database."""
    name = f"test_{uuid4().hex[:12]}"

    async def ask(statement: str) -> None:
        connection = await asyncpg.connect(postgres_url)
        await connection.execute(statement)
        await connection.close()

    with ThreadPoolExecutor(1) as beside_the_tests_loop:
        beside_the_tests_loop.submit(asyncio.run, ask(f"CREATE DATABASE {name}")).result()
        yield str(URL(postgres_url).with_path(name))
        drop = f"DROP DATABASE {name} WITH (FORCE)"
        beside_the_tests_loop.submit(asyncio.run, ask(drop)).result()


@pytest.fixture(autouse=True)
def _clean_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let no setting, `.env` or ledger of the developer's reach a test."""
    for name in os.environ:
        if name.upper().startswith("CALLS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def portal() -> SandboxPortal:
    """Lend a sandbox without a rate limit whose calls end at once and so are in the history."""
    return SandboxPortal(Switches(rate_per_s=0, call_duration_s=0))


@pytest.fixture
async def portal_url(portal: SandboxPortal) -> AsyncIterator[str]:
    """Serve *portal* over TCP, in the test's own loop."""
    config = uvicorn.Config(
        create_app(portal),
        port=0,
        log_config=None,
        access_log=False,
        date_header=False,
        timeout_graceful_shutdown=1,
    )
    socket = config.bind_socket()
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[socket]))
    yield f"http://127.0.0.1:{socket.getsockname()[1]}/rest/1/{portal.switches.secret}/"
    server.should_exit = True
    await task
    socket.close()


@dataclass
class ForeignPortal:
    """A mock as anybody writes one: knows startwithtext only, and one CALL_ID.

    Attributes:
        answers: What a number is answered with, in order; the last one stays.
        asked: The parameters of every call so far.
        arrived: Set by each call; clear it to wait for the next.
        may_answer: Cleared, it holds every answer back.
    """

    url: str = ""
    answers: dict[str, list[bytes]] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    @staticmethod
    def reply(status: int, body: bytes | dict[str, Any], *headers: str) -> bytes:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}", *headers]
        return "\r\n".join([*head, "Connection: close", "", ""]).encode() + content

    def dialled(self, number: str) -> int:
        """Count the calls to *number*."""
        return sum(call["TO_NUMBER"] == number for call in self.asked)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = re.search(r"content-length: (\d+)", head)
            body = await reader.readexactly(int(length[1]) if length else 0)
            writer.write(await self._answer(head, body))
            await writer.drain()
        writer.close()

    async def _answer(self, head: str, body: bytes) -> bytes:
        if "startwithtext" not in head:
            return self.reply(404, b"Not Found")
        call = json.loads(body)
        self.asked.append(call)
        self.arrived.set()
        await self.may_answer.wait()
        scripted = self.answers.get(call["TO_NUMBER"])
        if scripted:
            return scripted.pop(0) if len(scripted) > 1 else scripted[0]
        return self.reply(200, {"result": {"RESULT": True, "CALL_ID": "always-the-same"}})


@pytest.fixture
async def foreign() -> AsyncIterator[ForeignPortal]:
    mock = ForeignPortal()
    mock.may_answer.set()
    server = await asyncio.start_server(mock.serve, "127.0.0.1")
    mock.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/rest/1/foreign-s3cret/"
    yield mock
    mock.may_answer.set()
    server.close()


@dataclass
class Link:
    """A TCP proxy in front of a server: cut it, or freeze it so that both ends see silence."""

    target: URL
    url: str = ""
    flows: asyncio.Event = field(default_factory=asyncio.Event)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    used: bool = False
    refuses: bool = False
    """Whether new connections are reset at once, as by a proxy whose server is away."""

    def cut(self) -> None:
        """Reset every connection; new ones are let through."""
        for writer in list(self.writers):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.used = True
        if self.refuses:
            writer.transport.abort()
            return
        there = await asyncio.open_connection(self.target.host, self.target.port or 5672)
        for source, sink in ((reader, there[1]), (there[0], writer)):
            self.writers.add(sink)
            task = asyncio.create_task(self._pump(source, sink))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self.flows.wait()
                sink.write(data)
                await sink.drain()
        self.writers.discard(sink)
        sink.close()


@asynccontextmanager
async def linked(
    url: str, tls: ssl.SSLContext | None = None, *, port: int = 0
) -> AsyncIterator[Link]:
    """Put a link in front of the server at *url*, perhaps at a port or one that speaks TLS."""
    proxy = Link(URL(url))
    proxy.flows.set()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    proxy.url = str(URL(url).with_host("127.0.0.1").with_port(port))
    yield proxy
    server.close()
    proxy.flows.set()
    proxy.cut()
    await asyncio.gather(*proxy.tasks)


@pytest.fixture
async def link(rabbitmq_url: str) -> AsyncIterator[Link]:
    """Lend a link to the broker that can be cut and frozen."""
    async with linked(rabbitmq_url) as proxy:
        yield proxy


@pytest.fixture
async def database_link(database_url: str) -> AsyncIterator[Link]:
    """Lend a link to an empty database that can be cut and frozen."""
    async with linked(database_url) as proxy:
        yield proxy


@dataclass(frozen=True)
class Seen:
    """A message that the test has received, and the fields of its body if that is an object."""

    message: AbstractIncomingMessage

    @property
    def headers(self) -> Mapping[str, Any]:
        return self.message.headers

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        return json.loads(self.message.body)[name]

    @property
    def fields(self) -> Any:  # noqa: ANN401
        return json.loads(self.message.body)


@dataclass
class Bench:
    """An exchange and queues of a test's own, what is published to them, what comes out."""

    given: dict[str, Any]
    channel: AbstractChannel
    heard: list[Seen] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def settings(self, **changes: object) -> Settings:
        """Return settings for this bench, quick and without a rate limit."""
        settings = Settings.model_validate(self.given | changes)
        topology = topology_of(settings)
        for queue in topology.queues:
            self.used.add(queue.name)
        self.used.add(f"{settings.queue}.ledger")
        return settings

    @property
    def queue(self) -> str:
        return str(self.given["queue"])

    @property
    def exchange(self) -> str:
        return str(self.given["exchange"])

    @asynccontextmanager
    async def running(self, **changes: object) -> AsyncIterator[App]:
        """Run a worker in this loop; it drains at the end of the block."""
        app = App(self.settings(**changes))
        task = asyncio.create_task(app.run())
        try:
            await self.until(lambda: app.subscription.consuming or task.done())
            yield app
        finally:
            app.stop()
            async with asyncio.timeout(WITHIN_S):
                await task

    async def publish(
        self,
        body: bytes | Mapping[str, object],
        headers: Mapping[str, Any] | None = None,
        *,
        to_queue: bool = False,
        **properties: Any,  # noqa: ANN401
    ) -> None:
        """Publish as upstream does, or *to_queue* through the default exchange, as an operator."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        message = aio_pika.Message(content, headers=dict(headers or {}), **properties)
        if to_queue:
            await self.channel.default_exchange.publish(message, self.queue)
        else:
            exchange = await self.channel.get_exchange(self.exchange, ensure=False)
            await exchange.publish(message, REQUESTED)

    async def ask(self, number: str = "+12025550100", **fields: object) -> str:
        """Publish a request as upstream does, and return its id."""
        request = self.request(number, **fields)
        await self.publish(request)
        return str(request["request_id"])

    @staticmethod
    def request(number: str = "+12025550100", **fields: object) -> dict[str, object]:
        needed = {"request_id": str(uuid4()), "to_number": number, "text_to_pronounce": "Hello."}
        return needed | fields

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until *holds*."""
        async with asyncio.timeout(WITHIN_S):
            while not holds():  # noqa: ASYNC110  # neither sandbox nor worker tells of all it does
                await asyncio.sleep(0.01)

    def events_of(self, request_id: str | None) -> list[Seen]:
        """Return the events so far about one request."""
        return [event for event in self.heard if event["request_id"] == request_id]

    async def events(self, request_id: str | None, count: int = 1) -> list[Seen]:
        """Wait for so many events about one request."""
        await self.until(lambda: len(self.events_of(request_id)) >= count)
        return self.events_of(request_id)

    async def event(self, request_id: str | None) -> Seen:
        """Wait for the first event about a request."""
        return (await self.events(request_id))[0]

    async def take(self, queue: str, count: int = 1, *, put_back: bool = False) -> list[Seen]:
        """Take so many messages from a queue, waiting for them; perhaps only to look at them."""
        taken: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        source = await self.channel.get_queue(queue)
        await self.channel.set_qos(prefetch_count=count)
        tag = await source.consume(taken.put)
        try:
            async with asyncio.timeout(WITHIN_S):
                messages = [await taken.get() for _ in range(count)]
        finally:
            await source.cancel(tag)
        for message in messages:
            await (message.nack() if put_back else message.ack())
        return [Seen(message) for message in messages]

    async def dead_letters(self, count: int = 1) -> list[Seen]:
        """Take so many dead letters, waiting for them."""
        return await self.take(f"{self.queue}.dlq", count)

    async def waiting(self, delay_s: int, count: int = 1) -> list[Seen]:
        """Take so many requests out of a delay queue, waiting for them."""
        return await self.take(f"{self.queue}.delay.{delay_s}s", count)

    async def count(self, queue: str) -> int:
        """Count the messages that are ready in a queue."""
        found = await self.channel.declare_queue(queue, passive=True)
        return found.declaration_result.message_count or 0

    async def until_count(self, queue: str, count: int) -> None:
        """Wait until so many messages are ready in a queue."""
        async with asyncio.timeout(WITHIN_S):
            while await self.count(queue) != count:  # noqa: ASYNC110  # the broker tells nobody
                await asyncio.sleep(0.01)

    async def note(self, message: AbstractIncomingMessage) -> None:
        await message.ack()
        self.heard.append(Seen(message))


@pytest.fixture
async def bench(rabbitmq_url: str, portal_url: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """Lend exchange and queues under names of their own, gone afterwards."""
    name = f"test-{uuid4().hex[:12]}"
    given: dict[str, Any] = {
        "rabbitmq_url": rabbitmq_url,
        "bitrix24_url": portal_url,
        "exchange": name,
        "queue": f"{name}.requested",
        "default_line": "reg151083",
        "rate_per_s": 0,
        "retry_delays_s": (1, 2),
        "timeout_s": 5,
        "drain_s": 15,
        "history_lag_s": 2,
        "pause_after": 1000,
        "http_port": 0,
        "ledger_url": f"sqlite:///{tmp_path / 'ledger.db'}",
    }
    # A ledger that a worker has just made takes every redelivery for a doubt.
    ledger = Ledger(given["ledger_url"], given["queue"])
    await ledger.open()
    await ledger.begin()
    await ledger.close()
    connection = await aio_pika.connect(rabbitmq_url)
    async with connection:
        bench = Bench(given, await connection.channel(on_return_raises=True))
        await declare(rabbitmq_url, topology_of(bench.settings()))
        ears = await connection.channel()
        events = await ears.declare_queue(exclusive=True)
        for key in (STARTED, FAILED):
            await events.bind(name, key)
        await events.consume(bench.note)
        yield bench
        cleaning = await connection.channel()
        for queue in bench.used:
            await cleaning.queue_delete(queue)
        await cleaning.exchange_delete(name)


@dataclass
class Command:
    """A `call-consumer` process."""

    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    @property
    def code(self) -> int | None:
        return self.process.poll()

    def log(self, event: str = "") -> list[dict[str, Any]]:
        """Return the log lines so far, perhaps only those of one *event*."""
        lines = [json.loads(line) for line in self.stdout.read_text().splitlines()]
        return [line for line in lines if event in ("", line["event"])]

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@pytest.fixture
def call_consumer(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Lend a way to start `call-consumer ARGUMENTS` with settings, in an empty folder."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, **settings: object) -> Command:
        folder = tmp_path / f"command-{len(started)}"
        folder.mkdir()
        out, err = tmp_path / f"{folder.name}.out", tmp_path / f"{folder.name}.err"
        environment = {f"CALLS_{name.upper()}": str(value) for name, value in settings.items()}
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [Path(sys.executable).with_name("call-consumer"), *arguments],
                cwd=folder,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        started.append(process)
        return Command(process, out, err)

    yield start
    for process in started:
        process.kill()
        process.wait()

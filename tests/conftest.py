"""What many tests need: a real broker, a portal over TCP, and a bench to try a worker on."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aio_pika
import asyncpg
import pytest
import structlog
import uvicorn
from hypothesis import HealthCheck, settings
from yarl import URL

from consumer import log
from consumer.demo import broker as devbroker
from consumer.ledger import Ledger
from consumer.messages import COMPLETED, FAILED, STARTED
from consumer.rabbitmq.declaration import declare
from consumer.rabbitmq.topology import topology_of
from consumer.sandbox import SandboxPortal, Switches, create_app
from tests import canary
from tests.commands import Command
from tests.links import Link, linked
from tests.portals import ForeignPortal
from tests.postgres import NoPostgres, postgres
from tests.workbench import Bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator


GROUP = "xdist_group"
"""Has the marker that keeps tests in one of pytest-xdist's processes."""
COSTLY = {"node", "kept"}
"""The fixtures that take the processors for seconds: a private broker, the demo."""

# jsonschema would build a grammar with it for a second, for formats that no schema of ours has.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

# A machine may be busy: how long an example takes says nothing.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Where nothing is set up structlog draws tracebacks with rich, half a second each.
PLAIN_LOG = [
    *structlog.get_config()["processors"][:-1],
    structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Give logging back as pytest had it: `set_up` changes what all tests share."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    levels = {name: logging.getLogger(name).level for name in log.QUIET}
    structlog.configure(processors=PLAIN_LOG)
    yield
    root.handlers = handlers
    root.setLevel(level)
    for name, least in levels.items():
        logging.getLogger(name).setLevel(least)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let no test pass that shows on its output what no log may show."""
    report = yield
    shown = canary.seen_in("".join(text for _, text in report.sections))
    if report.passed and shown:
        report.outcome, report.longrepr = "failed", f"the output shows: {', '.join(shown)}"
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


_servers = ExitStack()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a command ask for more than `make check` has time for."""
    parser.addoption("--histories", type=int, default=60, help="How many histories to make up.")
    parser.addoption("--fuzz", type=int, default=2500, help="How many hostile inputs to make up.")
    parser.addoption("--seed", type=int, default=secrets.randbelow(10**6), help="Of the inputs.")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one process have all tests that need the same costly thing, and begin with them.

    Then come the tests of the whole worker, which wait, and last those of its parts, which do not.
    """
    for item in items:
        for costly in COSTLY.intersection(getattr(item, "fixturenames", ())):
            if not item.get_closest_marker(GROUP):
                item.add_marker(pytest.mark.xdist_group(costly))
    files = {file: place for place, file in enumerate({item.path: None for item in items})}
    items.sort(key=lambda item: (item.get_closest_marker(GROUP) is None, -files[item.path]))


def pytest_report_header(config: pytest.Config) -> str:
    """Say how to draw the same hostile inputs again."""
    return f"hostile inputs: --seed {config.getoption('seed')}"


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
def node() -> Iterator[devbroker.PrivateNode]:
    """Lend a broker that a test may administer, in a corner of its own; it is costly to start."""
    if devbroker.find_server() is None:
        pytest.skip("rabbitmq-server is not installed, so no broker can be administered")
    with devbroker.PrivateNode() as node:
        yield node


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
        if name.upper().startswith(("CALLS_", "OTEL_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def portal() -> SandboxPortal:
    """Lend a sandbox without a rate limit whose calls end at once and so are in the history."""
    return SandboxPortal(Switches(secret=canary.SECRET, rate_per_s=0, call_duration_s=0))


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


@pytest.fixture
async def foreign() -> AsyncIterator[ForeignPortal]:
    mock = ForeignPortal()
    mock.may_answer.set()
    server = await asyncio.start_server(mock.serve, "127.0.0.1")
    mock.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/rest/1/foreign-s3cret/"
    yield mock
    mock.may_answer.set()
    server.close()


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
        "follow_up": False,  # it would take answers of the history that are meant for look-ups
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
        for key in (STARTED, FAILED, COMPLETED):
            await events.bind(name, key)
        await events.consume(bench.note)
        yield bench
        cleaning = await connection.channel()
        for queue in bench.used:
            await cleaning.queue_delete(queue)
        await cleaning.exchange_delete(name)


@pytest.fixture
def call_consumer(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Lend a way to start `call-consumer ARGUMENTS` with settings, in an empty folder."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, stdin: bool = False, **settings: object) -> Command:
        folder = tmp_path / f"command-{len(started)}"
        folder.mkdir()
        out, err = tmp_path / f"{folder.name}.out", tmp_path / f"{folder.name}.err"
        environment = {f"CALLS_{name.upper()}": str(value) for name, value in settings.items()}
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [Path(sys.executable).with_name("call-consumer"), *arguments],
                cwd=folder,
                env=os.environ | environment,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        started.append(process)
        return Command(process, out, err)

    yield start
    for process in started:
        process.kill()
        process.wait()
    for output in (*tmp_path.glob("command-*.out"), *tmp_path.glob("command-*.err")):
        # Commands that show requests show their numbers and texts: `canary` has tests of its own.
        assert canary.seen_in(output.read_bytes(), number=True, text=True) == []

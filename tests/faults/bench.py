"""What every scenario stands on: a portal, links that can be broken, workers, and the account."""

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from tests import canary
from tests.faults.account import Row, account
from tests.faults.launcher import CANCELLED, SLOW_PUBLISH, Point
from tests.faults.life import NEVER, Worker, until
from tests.faults.portal import CALL_S, DIAL, WatchedPortal
from tests.faults.proxy import Proxy
from tests.faults.traffic import CONCURRENCY, DELAYS_S, Traffic
from tests.promises import Copy

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 2
DRAIN_S = 5
LAG_S = 3
UNDECIDED_S = TIMEOUT_S + 10
"""How long after its claim another life may still be dialling; see `consumer.processor`."""
LINE = "reg151083"


@dataclass(frozen=True)
class Host:
    """Where a worker runs: a folder of its own, and links of its own.

    Attributes:
        ledger: None where the ledger is a file, which all hosts of a scenario share.
        heartbeat_s: After some three of these a dead link is noticed; None for the product's own.
    """

    folder: Path
    broker: Proxy
    ledger: Proxy | None
    heartbeat_s: int | None = None


@dataclass(kw_only=True)
class Bench(Traffic):
    """One scenario's surroundings: queues, portal, ledger and workers of its own."""

    folder: Path
    portal: WatchedPortal
    portal_link: Proxy
    ledger_url: str
    home: Host
    rng: random.Random
    workers: list[Worker] = field(default_factory=list)
    allowed: Counter[str] = field(default_factory=Counter)
    """How many calls a request may lead to, where that is more than one: a person asked for it."""
    copies: dict[str, list[Copy]] = field(default_factory=dict)
    """Which copies of each request lay in the queues at the end."""
    wrong: list[str] = field(default_factory=list)
    _lives: Iterator[int] = field(default_factory=count)

    @property
    def ledger_file(self) -> Path:
        """Where the ledger is, if it is a file."""
        return Path(self.ledger_url.removeprefix("sqlite:///"))

    @asynccontextmanager
    async def host(
        self, *, late: bool = False, heartbeat_s: int | None = None
    ) -> AsyncIterator[Host]:
        """Set up another host; *late* as `Proxy` has it."""
        folder = self.folder / f"host-{len(list(self.folder.glob('host-*')))}"
        folder.mkdir()
        async with AsyncExitStack() as stack:
            broker = await stack.enter_async_context(Proxy(port_of(self.node.url), late=late))
            ledger = None
            if not self.ledger_url.startswith("sqlite:"):
                link = Proxy(port_of(self.ledger_url), late=late)
                ledger = await stack.enter_async_context(link)
            yield Host(folder, broker, ledger, heartbeat_s)

    # Workers.

    async def start(
        self,
        at: Point | None = None,
        passing: int = 1,
        number: signal.Signals = signal.SIGKILL,
        on: Host | None = None,
        settings: Mapping[str, object] | None = None,
        flags: Sequence[str] = (),
    ) -> Worker:
        """Start a worker; *at* a point it sends itself the signal *number*.

        Args:
            at: Where.
            passing: At which passing of the point, counting from 1.
            number: The signal.
            on: Where it runs, if not at home.
            settings: Other than the bench's own.
            flags: More for the launcher.
        """
        host = on or self.home
        log = self.folder / f"worker-{next(self._lives)}.log"
        arguments = ["--passing", str(passing), "--signal", number.name, *flags]
        arguments += ["--at", at] if at else []
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.faults.launcher"),
                *arguments,
                cwd=host.folder,
                env=self.environment(host, settings),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.workers.append(Worker(process, log))
        return self.workers[-1]

    def environment(
        self, host: Host, settings: Mapping[str, object] | None = None
    ) -> dict[str, str]:
        """Return what our commands need on *host*."""
        query = "" if host.heartbeat_s is None else f"heartbeat={host.heartbeat_s}"
        secret = self.portal.switches.secret
        ledger_url = through(host.ledger, self.ledger_url).geturl() if host.ledger else None
        ours: dict[str, object] = {
            "rabbitmq_url": through(host.broker, self.node.url)._replace(query=query).geturl(),
            "bitrix24_url": f"http://127.0.0.1:{self.portal_link.port}/rest/1/{secret}/",
            "default_line": LINE,
            "exchange": self.topology.exchange,
            "queue": self.topology.requests.name,
            "ledger_url": ledger_url or self.ledger_url,
            "retry_delays_s": ",".join(map(str, DELAYS_S)),
            "timeout_s": TIMEOUT_S,
            "drain_s": DRAIN_S,
            "history_lag_s": LAG_S,
            "concurrency": CONCURRENCY,
            "rate_per_s": 0,
            "pause_after": 1_000_000,  # these doubts are no portal's fault
            "http_port": 0,
            **(settings or {}),
        }
        theirs = {k: v for k, v in os.environ.items() if not k.upper().startswith("CALLS_")}
        settings_of_ours = {f"CALLS_{name.upper()}": str(value) for name, value in ours.items()}
        return theirs | settings_of_ours | {"PYTHONPATH": str(ROOT)}

    async def start_trusted(
        self, settings: Mapping[str, object] | None = None, flags: Sequence[str] = ()
    ) -> Worker:
        """Start a worker and let it place a call, by which it can later trust the history."""
        worker = await self.start(settings=settings, flags=flags)
        if not await self.told(await self.publish(prefix="first"), 30):
            self.wrong.append("the first call was never announced")
        await asyncio.sleep(CALL_S + 0.2)
        return worker

    async def stop_all(self) -> None:
        """Stop every worker that still runs, and expect it to drain."""
        running = [worker for worker in self.workers if worker.runs]
        for worker in running:  # sooner, Python itself would end it
            await worker.up(15)
        codes = await asyncio.gather(*(worker.terminated(DRAIN_S + 10) for worker in running))
        if any(codes):
            self.wrong.append(f"a worker ended with {codes} on SIGTERM")

    # What can be seen at the portal.

    async def called(self, number: int, within_s: float = 30.0) -> bool:
        """Wait until the portal has placed *number* calls in all."""
        return await until(lambda: len(self.portal.calls) >= number, within_s)

    async def asked_for(self, number: str, within_s: float = 30.0) -> bool:
        """Wait until the portal has been asked to dial *number*."""
        return await until(lambda: DIAL in self.portal.asked_about(number), within_s)

    # The account.

    async def close_books(self) -> None:
        """Stop the workers, and see what lies in the queues."""
        await self.stop_all()
        self.copies = await self.take_all()
        for worker in self.workers:
            for event in ("worker.bug", CANCELLED, SLOW_PUBLISH):
                if any(line.get("event") == event for line in worker.lines()):
                    self.wrong.append(f"{event} in {worker.log}")
            if shown := canary.seen_in(worker.log.read_bytes()):
                self.wrong.append(f"{', '.join(shown)} in {worker.log}")

    def row(
        self,
        fault: str,
        times: int,
        recovery_s: float | None = None,
        *,
        ids: Sequence[str] | None = None,
        bar_s: float = NEVER,
    ) -> Row:
        """Account for *ids*, or for all there were."""
        ids = self.ids if ids is None else ids
        row = account(fault, times, ids, self, self.portal, self.copies, self.allowed)
        row = replace(row, recovery_s=recovery_s, wrong=[*self.wrong, *row.wrong])
        row.expect(bar_s)
        return row


def port_of(url: str) -> int:
    return urlsplit(url).port or 0


def through(link: Proxy, url: str) -> SplitResult:
    """Return *url* as it is reached through *link*."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{user}@127.0.0.1:{link.port}")

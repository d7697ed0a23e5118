"""What every scenario stands on: a portal, two proxies, workers, a listener, and the account."""

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import uvicorn
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError

from consumer.devbroker import PrivateNode
from consumer.sandbox import NUMBERS, Answer, Number, SandboxPortal, Switches, create_app
from consumer.sandbox.portal import Reply
from consumer.sandbox.request import RestRequest
from consumer.topology import Topology, build_topology, declare
from tests.faults.launcher import CANCELLED, SLOW_PUBLISH, Point
from tests.faults.proxy import Proxy

ROOT = Path(__file__).parents[2]
DELAYS_S = (1, 2, 5)
TIMEOUT_S = 2
DRAIN_S = 5
LAG_S = 3
CALL_S = 1.0
UNDECIDED_S = TIMEOUT_S + 10
"""How long after its claim another life may still be dialling; see `consumer.placing`."""
CONCURRENCY = 10
LINE = "reg151083"
DIAL = "voximplant.infocall.startwithtext"
LOOK_UP = "voximplant.statistic.get"
NEVER = float("inf")
POLL_S = 0.1
WAIT_S = 120.0

_special = count()


def special_number(answer: Answer, times: int | None = None) -> str:
    """Return a number of its own that is answered with *answer*, the first *times* it is called."""
    number = f"+1202557{next(_special):04}"
    NUMBERS[number] = Number(number, answer.name, answer, times)
    return number


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came to the portal."""

    at: float
    method: str
    number: str


class WatchedPortal(SandboxPortal):
    """A sandbox that also remembers what it was asked, and in which order."""

    def __init__(self) -> None:
        super().__init__(
            Switches(rate_per_s=0, call_duration_s=CALL_S, operating_s=0.001, hold_s=10)
        )
        self.asked: list[Asked] = []

    def answer(self, request: RestRequest) -> Reply:
        wanted = request.params.get("FILTER")
        number = request.digits
        if isinstance(wanted, Mapping):
            number = str(wanted.get("%PHONE_NUMBER", ""))
        self.asked.append(Asked(time.time(), request.method, number))
        return super().answer(request)

    def asked_about(self, number: str) -> list[str]:
        """Return the methods asked for *number*, in order."""
        tail = number[-10:]
        return [asked.method for asked in list(self.asked) if asked.number[-10:] == tail]


@dataclass(frozen=True, slots=True)
class Event:
    """An event as the listener got it; *at* is in Unix seconds."""

    at: float
    kind: str
    event_id: str
    replay: int
    reason: str | None
    confirmed_by: str | None


class Worker:
    """A worker in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log
        self.begun = time.time()

    @property
    def runs(self) -> bool:
        return self.process.returncode is None

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def ended(self, within_s: float = WAIT_S) -> int | None:
        """Return its exit code, negative if a signal ended it; None if it goes on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                return await self.process.wait()
        return None

    async def terminated(self, within_s: float = WAIT_S) -> int | None:
        self.send(signal.SIGTERM)
        return await self.ended(within_s)

    async def up(self, within_s: float = WAIT_S) -> bool:
        """Wait until it consumes."""
        return await until(lambda: bool(self.said("worker.ready")), within_s)

    async def frozen(self, within_s: float = WAIT_S) -> bool:
        """Wait until it has stopped itself."""
        status = Path(f"/proc/{self.process.pid}/stat")
        return await until(lambda: status.read_text().rsplit(")")[-1].split()[0] == "T", within_s)

    def lines(self) -> list[dict[str, object]]:
        """Return its log."""
        lines: list[dict[str, object]] = []
        for line in self.log.read_text().splitlines():
            with suppress(ValueError):  # killed in the middle of a line, or a traceback
                lines.append(json.loads(line))
        return lines

    def said(self, event: str, since: float = 0.0) -> list[dict[str, object]]:
        return [
            line
            for line in self.lines()
            if line.get("event") == event and _moment(line.get("timestamp")) >= since
        ]

    def ready_s(self) -> float:
        """Return how long it took from its start until it consumed."""
        ready = self.said("worker.ready")
        return _moment(ready[0]["timestamp"]) - self.begun if ready else 0.0


def _moment(timestamp: object) -> float:
    return datetime.fromisoformat(timestamp).timestamp() if isinstance(timestamp, str) else NEVER


async def until(holds: Callable[[], bool], within_s: float = WAIT_S) -> bool:
    """Wait until *holds*; tell whether it did in time."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_S / 5)
    return True


@dataclass
class Row:
    """A line of the table, and what is wrong with it."""

    fault: str
    times: int
    requests: int
    lost: int
    twice: int
    unsure: int
    recovery_s: float | None
    wrong: list[str] = field(default_factory=list)


@dataclass
class Bench:
    """One scenario's surroundings: queues, portal, ledger and workers of its own."""

    node: PrivateNode
    name: str
    folder: Path
    portal: WatchedPortal
    portal_link: Proxy
    broker_link: Proxy
    rng: random.Random
    ledger: Path
    workers: list[Worker] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    events: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    allowed: Counter[str] = field(default_factory=Counter)
    """How many calls a request may lead to, where that is more than one: a person asked for it."""
    copies: dict[str, list[str]] = field(default_factory=dict)
    """In which queues each request lay at the end."""
    wrong: list[str] = field(default_factory=list)

    @property
    def topology(self) -> Topology:
        return build_topology(f"{self.name}.calls", f"{self.name}.requested", DELAYS_S)

    # Requests and events.

    async def publish(
        self, number: int = 1, prefix: str = "r", *, to: str | None = None, **fields: str
    ) -> list[str]:
        """Publish requests, each to a number of its own unless *to* is said; return their ids."""
        first = len(self.ids)
        ids = [f"{prefix}-{first + n}" for n in range(number)]
        self.ids += ids
        bodies = [
            {
                "request_id": request_id,
                "to_number": to or f"+1202556{first + n:04}",
                "text_to_pronounce": text_of(request_id),
                **fields,
            }
            for n, request_id in enumerate(ids)
        ]
        await self.publish_bodies([json.dumps(body).encode() for body in bodies])
        return ids

    async def publish_bodies(self, bodies: Iterable[bytes]) -> None:
        """Publish as an upstream system does: persistent, confirmed, mandatory."""
        async with await aio_pika.connect(self.node.url, timeout=WAIT_S) as connection:
            channel = await connection.channel(on_return_raises=True)
            exchange = await channel.get_exchange(self.topology.exchange, ensure=False)
            async with asyncio.timeout(WAIT_S):
                for body in bodies:
                    message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                    await exchange.publish(message, "call.requested", mandatory=True)

    async def replay_all(self) -> None:
        """Send every dead letter back, as the contract has it (section 7) and a person wants it."""
        async with await aio_pika.connect(self.node.url, timeout=WAIT_S) as connection:
            channel = await connection.channel(on_return_raises=True)
            dead = await channel.get_queue(self.topology.dead_letters.name, ensure=False)
            while (letter := await dead.get(fail=False)) is not None:
                headers = {k: v for k, v in letter.headers.items() if k != "x-failed-at"}
                replay = headers.get("x-replay")
                headers["x-replay"] = (replay if isinstance(replay, int) else 0) + 1
                anew = aio_pika.Message(
                    letter.body, headers=headers, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
                )
                await channel.default_exchange.publish(anew, self.topology.requests.name)
                await letter.ack()

    async def listen(self) -> None:
        """Take down every event, whatever becomes of the broker."""
        while True:
            with suppress(AMQPError, OSError, RuntimeError, TimeoutError):
                await self._listen_once()
            await asyncio.sleep(POLL_S)

    async def _listen_once(self) -> None:
        lost = asyncio.Event()
        async with await aio_pika.connect(self.node.url, timeout=5) as connection:
            connection.close_callbacks.add(lambda *_: lost.set())
            channel = await connection.channel()
            channel.close_callbacks.add(lambda *_: lost.set())
            await channel.set_qos(prefetch_count=100)
            queue = await channel.declare_queue(
                f"{self.name}.events", durable=True, arguments={"x-queue-type": "quorum"}
            )
            for key in ("call.started", "call.failed"):
                await queue.bind(self.topology.exchange, key)
            await queue.consume(self._take_down)
            await lost.wait()

    async def _take_down(self, message: AbstractIncomingMessage) -> None:
        body = json.loads(message.body)
        event = Event(
            time.time(),
            message.type or "",
            body["event_id"],
            body["replay"],
            body.get("reason"),
            body.get("confirmed_by"),
        )
        self.events[body["request_id"]].append(event)
        await message.ack()

    def finals(self, request_id: str) -> list[Event]:
        return list(self.events.get(request_id, ()))

    # Workers.

    async def start(
        self,
        at: Point | None = None,
        passing: int = 1,
        number: signal.Signals = signal.SIGKILL,
        through: Proxy | None = None,
        settings: Mapping[str, float] | None = None,
    ) -> Worker:
        """Start a worker; *at* a point it sends itself the signal *number*."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        arguments = ["--passing", str(passing), "--signal", number.name]
        arguments += ["--at", at] if at else []
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.faults.launcher"),
                *arguments,
                cwd=ROOT,
                env=self._environment(through or self.broker_link, settings or {}),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.workers.append(Worker(process, log))
        return self.workers[-1]

    def _environment(self, link: Proxy, settings: Mapping[str, float]) -> dict[str, str]:
        broker = urlsplit(self.node.url)
        secret = self.portal.switches.secret
        ours: dict[str, object] = {
            "rabbitmq_url": broker._replace(netloc=f"guest:guest@127.0.0.1:{link.port}").geturl(),
            "bitrix24_url": f"http://127.0.0.1:{self.portal_link.port}/rest/1/{secret}/",
            "default_line": LINE,
            "exchange": self.topology.exchange,
            "queue": self.topology.requests.name,
            "ledger_url": f"sqlite:///{self.ledger}",
            "retry_delays_s": ",".join(map(str, DELAYS_S)),
            "timeout_s": TIMEOUT_S,
            "drain_s": DRAIN_S,
            "history_lag_s": LAG_S,
            "concurrency": CONCURRENCY,
            "rate_per_s": 0,
            "pause_after": 1_000_000,  # these doubts are no portal's fault
            "http_port": 0,
            **settings,
        }
        theirs = {k: v for k, v in os.environ.items() if not k.upper().startswith("CALLS_")}
        return theirs | {f"CALLS_{name.upper()}": str(value) for name, value in ours.items()}

    async def start_trusted(self, settings: Mapping[str, float] | None = None) -> Worker:
        """Start a worker and let it place a call, by which it can later trust the history."""
        worker = await self.start(settings=settings)
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

    # What can be seen.

    async def consuming(self, within_s: float = WAIT_S) -> float:
        """Return how many seconds passed until the requests had a consumer."""
        begun = time.monotonic()
        while time.monotonic() - begun < within_s:
            with suppress(AMQPError, OSError, RuntimeError, TimeoutError):
                if (await self._counts())[1]:
                    return time.monotonic() - begun
            await asyncio.sleep(POLL_S)
        return NEVER

    async def going_on(self, within_s: float = 60.0) -> float:
        """Return how many seconds passed until a new request had its event."""
        begun = time.time()
        came = await self.told(await self.publish(prefix="probe"), within_s)
        return time.time() - begun if came else NEVER

    async def beyond_what_was_in_flight(self, within_s: float = 60.0) -> float:
        """Return how many seconds passed until a request had its event that nobody had begun."""
        begun, furthest = time.time(), self._furthest()
        came = await until(lambda: self._furthest() > furthest + CONCURRENCY, within_s)
        return time.time() - begun if came else NEVER

    def _furthest(self) -> int:
        """Return the place in the queue of the last request that had an event."""
        return max(
            (n for n, request_id in enumerate(self.ids) if self.finals(request_id)), default=0
        )

    async def _counts(self) -> tuple[int, int]:
        """Return how many messages wait in all our queues, and the number of consumers."""
        waiting = consumers = 0
        async with await aio_pika.connect(self.node.url, timeout=5) as connection:
            channel = await connection.channel()
            names = [self.topology.requests.name, *(q.name for q in self.topology.delays.values())]
            for name in names:
                found = (await channel.declare_queue(name, passive=True)).declaration_result
                waiting += found.message_count or 0
                consumers += found.consumer_count or 0
        return waiting, consumers

    async def settled(self, within_s: float = WAIT_S) -> bool:
        """Wait until each request has had an event and no copy of it waits any more."""
        deadline = time.monotonic() + within_s
        quiet = 0
        while time.monotonic() < deadline:
            if all(map(self.finals, self.ids)):
                with suppress(AMQPError, OSError, RuntimeError, TimeoutError):
                    quiet = 0 if (await self._counts())[0] else quiet + 1
            if quiet > 2:
                return True
            await asyncio.sleep(POLL_S)
        return False

    async def told(self, ids: Iterable[str], within_s: float = WAIT_S) -> bool:
        """Wait until each of *ids* has had an event."""
        return await until(lambda: all(map(self.finals, ids)), within_s)

    async def told_of(self, number: int, within_s: float = WAIT_S) -> bool:
        """Wait until *number* requests have had events."""
        return await until(lambda: len(self.events) >= number, within_s)

    async def called(self, number: int, within_s: float = 30.0) -> bool:
        """Wait until the portal has placed *number* calls in all."""
        return await until(lambda: len(self.portal.calls) >= number, within_s)

    async def asked_for(self, number: str, within_s: float = 30.0) -> bool:
        """Wait until the portal has been asked to dial *number*."""
        return await until(lambda: DIAL in self.portal.asked_about(number), within_s)

    def phoned(self) -> Counter[str]:
        """Return how often each request's text was spoken, by the sandbox's record."""
        return Counter(call.text for call in list(self.portal.calls))

    def calls_between(self, begun: float, ended: float) -> int:
        return sum(begun <= call.placed_at <= ended for call in list(self.portal.calls))

    # The account.

    async def close_books(self) -> None:
        """Stop the workers, and see what lies in the queues."""
        await self.stop_all()
        copies = defaultdict(list)
        async with await aio_pika.connect(self.node.url, timeout=WAIT_S) as connection:
            channel = await connection.channel()
            for name in self.topology.names:
                queue = await channel.get_queue(name, ensure=False)
                # Consumed, since a queue with a single active consumer allows no "get".
                bodies: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
                tag = await queue.consume(bodies.put, no_ack=True)
                with suppress(TimeoutError):
                    while True:
                        message = await asyncio.wait_for(bodies.get(), 3 * POLL_S)
                        copies[json.loads(message.body)["request_id"]].append(name)
                await queue.cancel(tag)
        self.copies = dict(copies)
        for worker in self.workers:
            for event in ("worker.bug", CANCELLED, SLOW_PUBLISH):
                if any(line.get("event") == event for line in worker.lines()):
                    self.wrong.append(f"{event} in {worker.log}")

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
        phoned = self.phoned()
        finals = {request_id: self.finals(request_id) for request_id in ids}
        lost = [i for i in ids if not finals[i] and i not in self.copies]
        twice = [i for i in ids if phoned[text_of(i)] > self.allowed.get(i, 1)]
        unsure = [i for i in ids if any(event.reason == "unsure" for event in finals[i])]
        wrong = list(self.wrong)
        wrong += [f"lost: {lost}"] if lost else []
        wrong += [f"phoned twice: {twice}"] if twice else []
        found = defaultdict(list)
        for request_id in ids:
            for text in self._check(request_id, phoned[text_of(request_id)]):
                found[text].append(request_id)
        wrong += [f"{len(those)} {text}: {those[:10]}" for text, those in found.items()]
        if recovery_s is not None and recovery_s > bar_s:
            wrong.append(f"going on took {recovery_s:.1f} s, more than {bar_s:g}")
        return Row(fault, times, len(ids), len(lost), len(twice), len(unsure), recovery_s, wrong)

    def _check(self, request_id: str, phoned: int) -> list[str]:
        events, copies = self.finals(request_id), self.copies.get(request_id, [])
        dead = copies.count(self.topology.dead_letters.name)
        if not events:
            return [f"still open, in {sorted(set(copies))}"] if copies else []
        replays = {event.event_id: event.replay for event in events}
        wrong = []
        if len(replays) > len(set(replays.values())):
            wrong.append("with more than one final event")
        started = any(event.kind == "call.started" for event in events)
        if started and not phoned:
            wrong.append("announced as started, and never phoned")
        if started and dead:
            wrong.append("started, and a dead letter too")
        if not started and not dead:
            wrong.append("failed, and no dead letter")
        if len(copies) > dead:
            wrong.append(f"settled, and still in {sorted(set(copies))}")
        return wrong


def text_of(request_id: str) -> str:
    """Return what the request has spoken: it tells calls apart."""
    return f"Request {request_id}."


@asynccontextmanager
async def served(portal: SandboxPortal) -> AsyncIterator[int]:
    """Serve *portal* from a thread, so that the scenarios do not slow it down; yield its port."""
    config = uvicorn.Config(
        create_app(portal),
        port=0,
        log_config=None,
        access_log=False,
        date_header=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    socket = config.bind_socket()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    try:
        yield socket.getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.to_thread(thread.join, 10)
        socket.close()


class Stage:
    """Lends scenarios what they need.

    Args:
        node: The broker they share.
        full: Whether each fault comes as often and lasts as long as the promise says.
        seed: Of all that is random.
        folder: For ledgers and logs.
    """

    def __init__(self, node: PrivateNode, *, full: bool, seed: int, folder: Path) -> None:
        self.node = node
        self.full = full
        self._seed = seed
        self._folder = folder
        self._count = count(1)

    def times(self, full: int, in_slice: int) -> int:
        return full if self.full else in_slice

    @asynccontextmanager
    async def bench(
        self, name: str, node: PrivateNode | None = None, ledger_in: Path | None = None
    ) -> AsyncIterator[Bench]:
        """Set up a bench, and clear it away."""
        number = next(self._count)
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))
        portal, node = WatchedPortal(), node or self.node
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(served(portal))
            bench = Bench(
                node,
                f"{name}{number}",
                folder,
                portal,
                await stack.enter_async_context(Proxy(port)),
                await stack.enter_async_context(Proxy(urlsplit(node.url).port or 5672)),
                random.Random(self._seed),  # noqa: S311 - to be repeated, not to be secret
                (ledger_in or folder) / "ledger.db",
            )
            await declare(node.url, bench.topology)
            listening = asyncio.create_task(bench.listen())
            try:
                yield bench
            finally:
                listening.cancel()
                for worker in bench.workers:
                    if worker.runs:
                        worker.send(signal.SIGKILL)
                await asyncio.gather(*(worker.ended(10) for worker in bench.workers))

    @asynccontextmanager
    async def own_node(self) -> AsyncIterator[PrivateNode]:
        """Start a broker whose ups and downs bother no other scenario."""
        node = PrivateNode()
        try:
            await asyncio.to_thread(node.start)
            yield node
        finally:
            await asyncio.to_thread(node.close)

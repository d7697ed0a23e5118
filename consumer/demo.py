"""The tour: a broker, the sandbox and a worker, a dozen requests, and an account of each.

`take_tour` sets the stage, `play` publishes and follows the events, `draw_up` asks the broker and
the sandbox what there is, and `account` says whether that adds up.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from uuid import uuid4

import click
import httpx
from aio_pika.abc import AbstractIncomingMessage

from consumer import devbroker
from consumer.broker import connect
from consumer.client import listening, publish_requests
from consumer.messages import REQUESTED, STARTED, rfc3339
from consumer.publisher import Publisher, build_message
from consumer.sandbox.switches import LINES
from consumer.topology import Topology, build_topology

COMMAND = Path(sys.executable).with_name("call-consumer")
DELAYS_S = (1, 2)
MISSING_LINE = "reg404"
EVENTS_WITHIN_S = 30.0
START_WITHIN_S = 20.0
STOP_WITHIN_S = 10.0
ACCOUNT_WITHIN_S = 5.0
LOG_LINES = 10
TO_EXPORT = (
    *("CALLS_RABBITMQ_URL", "CALLS_BITRIX24_URL"),
    *("CALLS_DEFAULT_LINE", "CALLS_EXCHANGE", "CALLS_QUEUE"),
)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

QUICK = {
    "CALLS_DEFAULT_LINE": "reg151083",
    "CALLS_RETRY_DELAYS_S": ",".join(map(str, DELAYS_S)),
    "CALLS_HISTORY_LAG_S": "2",
    "CALLS_RATE_PER_S": "5",
    "CALLS_TIMEOUT_S": "5",
    "CALLS_DRAIN_S": "6",
}
"""Settings for a tour of seconds; the defaults would take hours over some requests."""
NO_PROXY = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
QUICK_PORTAL = {"call_duration_s": 1, "rate_per_s": 5}
TO_TRY = """
  # what happens, live
  {command} events
  # a call, and what comes of it
  {command} publish +12025550100 'Good morning' --wait
  # the same with a portal that is unavailable at first
  {command} publish +12025550112 'Good morning' --wait
  # the requests that failed
  {command} dlq list
  # the calls that were placed
  curl {calls}
  # the worker's log
  tail -f {log}
"""

Say = Callable[[str], None]
Tell = Callable[[dict[str, Any]], None]


class DemoFailed(RuntimeError):
    """Raised when the sandbox or the worker does not run; says what it said last."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the tour: its id (None where nobody can read it), and what is odd about it."""

    id: str | None
    oddity: str
    text: str
    body: bytes
    copies: int = 1


def _ask(request_id: str, oddity: str, to: str, *, copies: int = 1, **fields: str) -> Request:
    text = f"This is {request_id}, a call of the demo."
    body = {"request_id": request_id, "to_number": to, "text_to_pronounce": text, **fields}
    return Request(request_id, oddity, text, json.dumps(body).encode(), copies)


def requests(now: datetime) -> list[Request]:
    """Return requests of all kinds, each with a text of its own; the numbers are the sandbox's."""
    soon, ago = rfc3339(now + timedelta(seconds=3)), rfc3339(now - timedelta(minutes=1))
    return [
        _ask("plain", "nothing", "+12025550100"),
        _ask("choosy", "names a voice", "+12025550101", voice="ukenglishmale"),
        _ask("later", "not before 3 s from now", "+12025550102", not_before=soon),
        _ask("twice", "published twice", "+12025550103", copies=2),
        _ask("busy-once", "the portal is unavailable, once", "+12025550111"),
        _ask("busy-twice", "the portal is unavailable, twice", "+12025550112"),
        _ask("busy-always", "the portal is unavailable, always", "+12025550182"),
        _ask("doubt-rang", "answer lost, the phone rings", "+12025550161"),
        _ask("doubt-silent", "answer lost, no phone rings, once", "+12025550180"),
        _ask("refused", "the portal refuses the number", "+12025550123"),
        _ask("no-line", "no such line", "+12025550104", from_line=MISSING_LINE),
        _ask("too-short", "a number too short to be one", "+1202555"),
        _ask("too-late", "expired a minute ago", "+12025550105", expires_at=ago),
        Request(None, "not JSON at all", "", b"Please call +12025550106!"),
    ]


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs during the tour, and where."""

    settings: dict[str, str]
    topology: Topology
    worker: subprocess.Popen[bytes]
    log: Path

    @property
    def broker(self) -> str:
        return self.settings["CALLS_RABBITMQ_URL"]

    def sandbox(self, path: str) -> str:
        return urljoin(self.settings["CALLS_BITRIX24_URL"], path)


def take_tour(*, keep: bool, say: Say = click.echo) -> bool:
    """Take the tour and return whether all requests are accounted for.

    Args:
        keep: Leave everything running until Ctrl-C.
        say: Is told what happens, line by line.

    Raises:
        devbroker.NoBroker: No RabbitMQ can be had.
        DemoFailed: The sandbox or the worker does not run.
        KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP ended it before its time.
    """
    with ExitStack() as stack:
        stack.enter_context(signals())
        try:
            stage = set_up(stack, say)
            adds_up = asyncio.run(play(stage, say))
            if not adds_up:
                say(f"This does not add up. {end_of(stage.log)}")
            if keep:
                stay(stage, say)
        finally:
            _ignore_signals()  # from here on all is cleaned up
    return adds_up


@contextmanager
def signals() -> Iterator[None]:
    """Turn what would end the process at once, and leave a broker behind, into an exception."""

    def stop(*_: object) -> None:
        _ignore_signals()
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _held() -> Iterator[None]:
    """Put signals off: one that came within Popen would leave a process that nobody knows of."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: came.append(number))
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    for which in came:
        signal.raise_signal(which)


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def set_up(stack: ExitStack, say: Say) -> Stage:
    """Start broker, sandbox and worker; *stack* ends them, and what they left."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="call-consumer-demo-")))
    url = stack.enter_context(devbroker.rabbitmq(say))
    settings = {"CALLS_RABBITMQ_URL": url, "CALLS_LEDGER_URL": f"sqlite:///{folder}/ledger.db"}
    exchange, queue = "calls", REQUESTED
    if os.environ.get("TEST_RABBITMQ_URL"):  # it may have a worker of its own
        mark = uuid4().hex[:8]
        exchange, queue = f"calls.demo-{mark}", f"{REQUESTED}.demo-{mark}"
        settings |= {"CALLS_EXCHANGE": exchange, "CALLS_QUEUE": queue}
    topology = build_topology(exchange, queue, DELAYS_S)
    if "CALLS_QUEUE" in settings:
        stack.callback(lambda: asyncio.run(_delete(url, topology)))

    say("starting the sandbox, which stands in for Bitrix24: no phone rings")
    log = folder / "sandbox.log"
    sandbox = _start(stack, ["sandbox", "--port", "0"], {}, log)
    settings["CALLS_BITRIX24_URL"] = _wait_for(r"http://\S+/(?=\n)", sandbox, log)

    log = folder / "worker.log"
    say(f"starting the worker, whose log is {log}")
    settings |= QUICK
    worker = _start(stack, ["run"], settings, log)
    _wait_for(r'"worker\.ready"', worker, log)
    return Stage(settings, topology, worker, log)


def _start(
    stack: ExitStack, arguments: Sequence[str], settings: dict[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start one of our commands, with no settings but *settings*; *stack* ends it."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("CALLS_")}
    with log.open("wb") as output, _held():
        process = subprocess.Popen(  # noqa: S603 - our own command
            [COMMAND, *arguments],
            cwd=log.parent,  # no `.env` here
            env=others | NO_PROXY | settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for us: we end it
        )
        stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(pattern: str, process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_WITHIN_S
    while (found := re.search(pattern, log.read_text())) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise DemoFailed(f"{log.stem} does not start. {end_of(log)}")
        time.sleep(0.05)
    return found[0]


def end_of(log: Path) -> str:
    """Quote the end of a log, which does not outlive the demo."""
    return "\n".join([f"The end of {log.name}:", *log.read_text().splitlines()[-LOG_LINES:]])


async def _delete(url: str, topology: Topology) -> None:
    queues = (topology.requests, *topology.delays.values(), topology.dead_letters)
    async with await connect(url, "demo") as connection:
        channel = await connection.channel()
        for queue in queues:
            await channel.queue_delete(queue.name)
        await channel.exchange_delete(topology.exchange)


async def play(stage: Stage, say: Say) -> bool:
    """Publish the requests, tell what becomes of each, replay one, and account for all."""
    # Ctrl-C cancels aio-pika's own tasks too, which would complain at length.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    asked = requests(datetime.now(UTC))
    bodies = [request.body for request in asked for _ in range(request.copies)]
    tell, url, topology = _teller(asked, say), stage.broker, stage.topology
    async with (
        httpx.AsyncClient(trust_env=False) as http,
        listening(url, topology.exchange) as events,
    ):
        await _patch(http, stage, QUICK_PORTAL)
        say(f"\nPublishing {len(asked)} requests; what comes of them, as the events come in:\n")
        await publish_requests(url, topology.exchange, bodies)
        copies = Counter({request.id: request.copies for request in asked})
        missing = await follow(events, copies, tell)

        if not missing:
            say(f"\nThe portal gets the line {MISSING_LINE}, and the dead letter is replayed:\n")
            await _patch(http, stage, {"lines": LINES | {MISSING_LINE: "no longer missing"}})
            await replay(url, topology, "no-line")
            missing = await follow(events, Counter(["no-line"]), tell)

        drawn_up = await draw_up(stage, http, asked)
    if missing:
        say(f"\nNo event within {EVENTS_WITHIN_S:g} s about: {', '.join(missing)}")
    say(f"\n{drawn_up}\n(counted in the broker's queues and the sandbox's list of calls)")
    return drawn_up.adds_up and not missing


async def _patch(http: httpx.AsyncClient, stage: Stage, switches: dict[str, Any]) -> None:
    (await http.patch(stage.sandbox("/sandbox"), json=switches)).raise_for_status()


async def follow(
    events: AsyncIterator[dict[str, Any]], wanted: Counter[str | None], tell: Tell
) -> list[str]:
    """Tell of events until each of *wanted* has come; return the ids that had none in time."""
    missing = Counter(wanted)
    try:
        async with asyncio.timeout(EVENTS_WITHIN_S):
            while missing.total():
                event = await anext(events)
                missing -= Counter([event["request_id"]])
                tell(event)
    except TimeoutError:
        pass
    return [request_id or "(no id)" for request_id in missing]


def _teller(asked: Sequence[Request], say: Say) -> Tell:
    """Return what says in a line whose event came and what it means."""
    oddities = {request.id: request.oddity for request in asked}
    seen: set[str] = set()

    def tell(event: dict[str, Any]) -> None:
        again = event["event_id"] in seen
        seen.add(event["event_id"])
        what = "the same event again: not dialled again" if again else meaning_of(event)
        request_id = event["request_id"]
        say(f"{request_id or '(no id)':<12} {oddities[request_id]:<34} {event['type']}  {what}")

    return tell


def meaning_of(event: dict[str, Any]) -> str:
    """Say in plain words what an event means."""
    tries, replayed = event["attempt"], " on replay" if event["replay"] else ""
    if event["type"] == STARTED:
        if event["confirmed_by"] == "history":
            return "found in the portal's call history, so not dialled again"
        return f"placed{replayed}" + (f" at attempt {tries}" if tries > 1 else "")
    after = f" after {tries} attempts" if tries > 1 else ""
    return f"{event['reason']}{after}{replayed}: {event['description']}"


async def replay(url: str, topology: Topology, request_id: str) -> None:
    """Send the dead letter of *request_id* back as a new request."""
    publisher = Publisher(url)
    async with _dead_letters(url, topology) as (letters, _):
        [letter] = [each for each in letters if each.correlation_id == request_id]
        headers = {k: v for k, v in letter.headers.items() if k != "x-failed-at"}
        headers["x-replay"] = 1  # it is its first
        await publisher.publish(build_message(letter.body, headers), "", topology.requests.name)
        await letter.ack()
    await publisher.close()


@asynccontextmanager
async def _dead_letters(
    url: str, topology: Topology
) -> AsyncIterator[tuple[list[AbstractIncomingMessage], int]]:
    """Take all dead letters in hand, and count what waits in the other queues.

    Dead letters that are not acknowledged go back at the end.
    """
    async with await connect(url, "demo") as connection:
        channel = await connection.channel()
        names = [queue.name for queue in (topology.requests, *topology.delays.values())]
        others = [await channel.declare_queue(name, passive=True) for name in names]
        queue = await channel.get_queue(topology.dead_letters.name)
        letters = []
        while (letter := await queue.get(fail=False)) is not None:
            letters.append(letter)
        yield letters, sum(each.declaration_result.message_count or 0 for each in others)
        for letter in letters:
            if not letter.processed:
                await letter.nack()


@dataclass(frozen=True, slots=True)
class Account:
    """How many requests there were, and what broker and sandbox have to show for them."""

    requests: int
    started: int
    dead: int
    waiting: int
    lost: int
    twice: int

    @property
    def adds_up(self) -> bool:
        """Whether each request was either phoned once or is a dead letter."""
        return self.requests == self.started + self.dead and not self.lost and not self.twice

    def __str__(self) -> str:
        still = f", {self.waiting} still waiting" if self.waiting else ""
        return (
            f"{self.requests} requests = {self.started} started + {self.dead} dead letters{still}, "
            f"lost {self.lost}, phoned twice {self.twice}"
        )


def account(
    asked: Sequence[Request], spoken: Sequence[str], dead: Sequence[bytes], waiting: int
) -> Account:
    """Compare what was asked for with what is there.

    Args:
        asked: The requests.
        spoken: The text of each call that the sandbox placed.
        dead: The body of each dead letter.
        waiting: How many messages are in the other queues.
    """
    calls = Counter(spoken)
    nowhere = [each for each in asked if each.text not in calls and each.body not in dead]
    return Account(
        requests=len(asked),
        started=len(calls),
        dead=len(dead),
        waiting=waiting,
        lost=max(0, len(nowhere) - waiting),
        twice=sum(1 for times in calls.values() if times > 1),
    )


async def draw_up(stage: Stage, http: httpx.AsyncClient, asked: Sequence[Request]) -> Account:
    """Ask broker and sandbox what there is, for as long as something may still be on its way."""
    deadline = time.monotonic() + ACCOUNT_WITHIN_S
    while True:
        async with _dead_letters(stage.broker, stage.topology) as (letters, waiting):
            dead = [letter.body for letter in letters]
        spoken = [call["text"] for call in (await http.get(stage.sandbox("/sandbox/calls"))).json()]
        drawn_up = account(asked, spoken, dead, waiting)
        if drawn_up.adds_up or time.monotonic() > deadline:
            return drawn_up
        await asyncio.sleep(0.2)


def stay(stage: Stage, say: Say) -> None:
    """Say what to try, and wait until Ctrl-C."""
    named = os.environ.get("TEST_RABBITMQ_URL")  # its password is the caller's own to show
    ours = stage.settings | ({"CALLS_RABBITMQ_URL": "$TEST_RABBITMQ_URL"} if named else {})
    say("\nAll of it runs on until Ctrl-C. In another terminal:\n")
    for name in [name for name in TO_EXPORT if name in ours]:
        say(f'  export {name}="{ours[name]}"')
    on_path = shutil.which(COMMAND.name) == str(COMMAND)
    command = COMMAND.name if on_path else os.path.relpath(COMMAND)
    calls = stage.sandbox("/sandbox/calls")
    say(TO_TRY.format(command=command, calls=calls, log=stage.log))
    with suppress(KeyboardInterrupt):
        stage.worker.wait()
        raise DemoFailed(f"the worker has ended. {end_of(stage.log)}")

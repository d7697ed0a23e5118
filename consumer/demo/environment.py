"""What the demo needs: a broker, the sandbox and a worker. Nothing of them is left afterwards.

`demo_environment` starts and removes them, however the demo ends; `stay` keeps them for trials.
"""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin
from uuid import uuid4

from consumer.demo import broker as devbroker
from consumer.demo.signals import SIGNALS, on_signals, signals_held
from consumer.errors import OperatorError
from consumer.messages import REQUESTED
from consumer.output import say
from consumer.rabbitmq.connection import connect
from consumer.rabbitmq.topology import Topology, build_topology

COMMAND = Path(sys.executable).with_name("call-consumer")
DELAYS_S = (1, 2)
START_WITHIN_S = 20.0
STOP_WITHIN_S = 10.0
LOG_LINES = 10
TO_EXPORT = (
    *("CALLS_RABBITMQ_URL", "CALLS_BITRIX24_URL"),
    *("CALLS_EXCHANGE", "CALLS_QUEUE", "CALLS_LEDGER_URL"),
    *("CALLS_DEFAULT_LINE", "CALLS_RETRY_DELAYS_S", "CALLS_RATE_PER_S"),
)

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
TO_TRY = """
  # what happens, live
  {command} events
  # a call, and what comes of it
  {command} publish +12025550100 'Good morning' --wait
  # the calls that were placed
  curl -s {calls}
  # the same with a portal that is unavailable twice, once it has forgotten the calls of the tour
  curl -s -X DELETE {calls}
  {command} publish +12025550112 'Good morning' --wait
  # the requests that failed, and one of them sent back, for which the portal is never available:
  # after five such in a row the worker pauses, then tries one at a time, up to a minute apart
  {command} dlq list
  {command} dlq replay busy-always
  # is all well, and is the worker paused?
  {command} check
  curl -s {worker}/readyz
  curl -s {worker}/metrics
  # the worker's log
  tail -f {log}
"""


class DemoFailed(OperatorError):
    """Raised when the sandbox or the worker does not run; says what it said last."""


@dataclass(frozen=True, slots=True)
class DemoEnvironment:
    """What runs during the tour, and where."""

    settings: dict[str, str]
    topology: Topology
    worker: subprocess.Popen[bytes]
    log: Path

    @property
    def broker(self) -> str:
        return self.settings["CALLS_RABBITMQ_URL"]

    @property
    def seen_at(self) -> str:
        """Where the worker tells how it is."""
        return f"http://127.0.0.1:{self.settings.get('CALLS_HTTP_PORT', '8080')}"

    def sandbox(self, path: str) -> str:
        return urljoin(self.settings["CALLS_BITRIX24_URL"], path)


@contextmanager
def demo_environment() -> Iterator[DemoEnvironment]:
    """Start broker, sandbox and worker; they, and what they left, end with the block.

    Raises:
        BrokerUnavailable: No RabbitMQ was found or started.
        DemoFailed: The sandbox or the worker does not run.
        KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP ended it before its time.
    """
    with on_signals(_interrupt), ExitStack() as stack:
        try:
            yield set_up(stack)
        finally:
            _ignore_signals()  # from here on all is cleaned up


def _interrupt(*_: object) -> None:
    """Turn what would end the process at once, and leave a broker behind, into an exception."""
    _ignore_signals()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def set_up(stack: ExitStack) -> DemoEnvironment:
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
    settings |= QUICK | {"CALLS_HTTP_PORT": str(_free_port())}
    worker = _start(stack, ["run"], settings, log)
    _wait_for(r'"worker\.ready"', worker, log)
    return DemoEnvironment(settings, topology, worker, log)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(
    stack: ExitStack, arguments: Sequence[str], settings: dict[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start one of our commands, with no settings but *settings*; *stack* ends it."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("CALLS_")}
    with log.open("wb") as output, signals_held():
        process = subprocess.Popen(  # noqa: S603  # our own command
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
    while (found := re.search(pattern, _text_of(log))) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise DemoFailed(f"{log.stem} does not start. {end_of(log)}")
        time.sleep(0.05)
    return found[0]


def end_of(log: Path) -> str:
    """Quote the end of a log, because the log is deleted with the demo."""
    return "\n".join([f"The end of {log.name}:", *_text_of(log).splitlines()[-LOG_LINES:]])


def _text_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


async def _delete(url: str, topology: Topology) -> None:
    async with await connect(url, "demo") as connection:
        channel = await connection.channel()
        for name in [
            *(queue.name for queue in topology.queues),
            f"{topology.requests.name}.ledger",
        ]:
            await channel.queue_delete(name)
        await channel.exchange_delete(topology.exchange)


def stay(stage: DemoEnvironment) -> None:
    """Serve the operators' pages, say what to try, and wait until Ctrl-C."""
    with ExitStack() as stack:
        log = stage.log.parent / "web.log"
        pages = _start(stack, ["web", "--port", "0"], stage.settings, log)
        _stay(stage, _wait_for(r"http://\S+/(?=\n)", pages, log))


def _stay(stage: DemoEnvironment, pages: str) -> None:
    named = os.environ.get("TEST_RABBITMQ_URL")  # its password is the caller's own to show
    ours = stage.settings | ({"CALLS_RABBITMQ_URL": "$TEST_RABBITMQ_URL"} if named else {})
    say("", "All of it runs on until Ctrl-C. In another terminal:", "")
    say(*(f'  export {name}="{ours[name]}"' for name in TO_EXPORT if name in ours))
    on_path = shutil.which(COMMAND.name) == str(COMMAND)
    command = COMMAND.name if on_path else os.path.relpath(COMMAND)
    calls = stage.sandbox("/sandbox/calls")
    to_try = TO_TRY.format(command=command, calls=calls, worker=stage.seen_at, log=stage.log)
    say(*to_try.split("\n"))
    user = "the user of TEST_RABBITMQ_URL" if named else "guest, password guest"
    say(f"Or in a browser, signed in as {user}: {pages}", "")
    with suppress(KeyboardInterrupt):
        stage.worker.wait()
        raise DemoFailed(f"the worker has ended. {end_of(stage.log)}")

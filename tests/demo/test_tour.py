import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aiormq.exceptions import ChannelNotFoundEntity
from click.testing import CliRunner

from consumer.cli import main as cli
from consumer.demo import tour as demo
from consumer.demo.account import Account, account
from consumer.demo.environment import DemoEnvironment, DemoFailed, demo_environment, stay
from consumer.demo.requests import Request, requests
from consumer.demo.screen import showing
from consumer.demo.tour import meaning_of
from consumer.messages import STARTED
from consumer.rabbitmq.topology import build_topology

COMMAND = str(Path(sys.executable).with_name("call-consumer"))


def start(url: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, "demo", *arguments],
        env=os.environ | {"TEST_RABBITMQ_URL": url, "CALLS_MISSPELT": "is none of the demo's"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process: subprocess.Popen[str], mark: str) -> str:
    """Return what *process* prints up to a line that holds *mark*."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if mark in line:
            break
    return "".join(lines)


def folder_in(output: str) -> Path:
    [folder] = set(re.findall(r"/[^/\s]\S*/call-consumer-demo-\w+", output))
    return Path(folder)


def processes_in(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cwd").readlink().is_relative_to(folder):
                found.append(process.joinpath("cmdline").read_text())
        except OSError:  # it has just ended, or is another user's
            continue
    return found


async def is_there(url: str, *, queue: str = "", exchange: str = "") -> bool:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        try:
            await (channel.get_queue(queue) if queue else channel.get_exchange(exchange))
        except ChannelNotFoundEntity:
            return False
        return True


class Kept:
    """A demo that keeps running until it is told to stop."""

    def __init__(self, url: str) -> None:
        self.process = start(url, "--keep")
        self.output = read_until(self.process, "Or in a browser")
        exports = re.findall(r'export (\w+)="(.*)"', self.output)
        self.settings = {n: v.replace("$TEST_RABBITMQ_URL", url) for n, v in exports}

    def happened(self, request: str) -> list[str]:
        """Return what was printed of the events about *request*."""
        return re.findall(rf"^{re.escape(request)} .*(call\..*)$", self.output, re.MULTILINE)


@pytest.fixture(scope="module")
def kept(rabbitmq_url: str) -> Iterator[Kept]:
    demo = Kept(rabbitmq_url)
    yield demo
    if demo.process.poll() is None:
        demo.process.terminate()
        demo.process.communicate()


ANSWERED = "call.completed  answered, 12 s"
HAPPENED = {
    "plain": ["call.started  placed", ANSWERED],
    "choosy": ["call.started  placed", ANSWERED],
    "engaged": ["call.started  placed", "call.completed  busy"],
    "nobody-home": ["call.started  placed", "call.completed  no answer"],
    "later": ["call.started  placed", ANSWERED],
    "cancelled": ["call.failed  cancelled: taken back"],
    "twice": [
        "call.started  placed",
        "call.started  the same event again: not dialled again",
        ANSWERED,
    ],
    "busy-once": ["call.started  placed at attempt 2", ANSWERED],
    "busy-twice": ["call.started  placed at attempt 3", ANSWERED],
    "busy-always": [
        "call.failed  exhausted after 3 attempts: Error connecting to authorization server"
    ],
    "doubt-rang": [
        "call.started  found in the portal's call history, so not dialled again",
        ANSWERED,
    ],
    "doubt-silent": ["call.started  placed at attempt 2", ANSWERED],
    "refused": ["call.failed  refused: Phone number is not correct"],
    "no-line": [
        "call.failed  refused: Could not find config for number reg404",
        "call.started  placed on replay",
        ANSWERED,
    ],
    "too-short": [
        "call.failed  invalid: to_number: is not a possible phone number: check its length"
    ],
    "too-late": ["call.failed  expired: expires_at has passed, or would have before the next try"],
    "(no id)": ["call.failed  invalid: the body is not JSON at character 0: Expecting value"],
}


@pytest.mark.parametrize(("request_id", "lines"), HAPPENED.items(), ids=HAPPENED)
def test_the_demo_tells_what_comes_of_each_request(
    kept: Kept, request_id: str, lines: list[str]
) -> None:
    assert kept.happened(request_id) == lines


def test_the_demo_ends_with_an_account(kept: Kept) -> None:
    told = "17 requests = 11 started + 5 dead letters + 1 cancelled, lost 0, phoned twice 0"
    assert f"\n{told}\n" in kept.output


def test_what_a_kept_demo_prints_can_be_tried(kept: Kept) -> None:
    done = subprocess.run(
        [COMMAND, "publish", "+12025550100", "Good morning", "--wait"],
        env=os.environ | kept.settings,
        capture_output=True,
        check=False,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert '"type": "call.started"' in done.stdout


def hints(kept: Kept) -> list[str]:
    """Return what a kept demo says to try, and ends by itself."""
    said = re.findall(r"^  ((?:\S*call-consumer|curl) .*)$", kept.output, re.MULTILINE)
    return [each for each in said if not each.endswith(" events")]


def test_all_that_a_kept_demo_says_to_try_works(kept: Kept) -> None:
    script = "; ".join(f"{each} || echo 'failed: {each}' >&2" for each in hints(kept))

    done = subprocess.run(
        ["/bin/bash", "-c", script.replace("'Good morning'", '"Good morning"')],
        env=os.environ | kept.settings,
        cwd=Path(f"/proc/{kept.process.pid}/cwd").readlink(),
        capture_output=True,
        check=False,
        text=True,
    )

    assert "failed: " not in done.stderr
    assert '"attempt": 3' in done.stdout  # unavailable twice, though the tour has called it
    assert "busy-always" in done.stdout
    assert "not there yet" not in done.stdout
    assert "/ledger.db is writable" in done.stdout
    assert '"status":"ready"' in done.stdout
    assert "call_consumer_build_info" in done.stdout


async def test_ctrl_c_ends_a_kept_demo_and_all_it_started(kept: Kept, rabbitmq_url: str) -> None:
    folder = folder_in(kept.output)
    assert len(processes_in(folder)) == 3  # sandbox, worker, pages
    assert await is_there(rabbitmq_url, queue=kept.settings["CALLS_QUEUE"])

    kept.process.send_signal(signal.SIGINT)
    rest, _ = kept.process.communicate()

    assert (kept.process.returncode, rest.strip()) == (0, "")
    assert processes_in(folder) == []
    assert not folder.exists()
    for suffix in ("", ".delay.1s", ".delay.2s", ".dlq"):
        assert not await is_there(rabbitmq_url, queue=kept.settings["CALLS_QUEUE"] + suffix)
    assert not await is_there(rabbitmq_url, exchange=kept.settings["CALLS_EXCHANGE"])


def on_a_terminal(url: str, *, rows: int, columns: int) -> tuple[int, str]:
    """Take the tour on a terminal; return its exit code and all that it wrote there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    tour = subprocess.Popen(
        [COMMAND, "demo"],
        env=os.environ | {"TEST_RABBITMQ_URL": url, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    with suppress(OSError):  # EIO: nobody has the other end any more
        while some := os.read(ours, 4096):
            written += some
    os.close(ours)
    return tour.wait(10), written.decode()


def test_on_a_terminal_a_live_table_tells_it_and_the_demo_ends_by_itself(rabbitmq_url: str) -> None:
    code, written = on_a_terminal(rabbitmq_url, rows=24, columns=80)

    plain = re.sub(r"\x1b\[(\d+m|\?25[lh])|\r", "", written)
    start, *frames, end = re.split(r"(?:\x1b\[(?:2K|1A))+", plain)
    assert code == 0
    assert re.findall(r"\n(.+?)  .*…", start) == list(HAPPENED)
    assert any(re.search(r"plain +nothing +placed", each) and "…" in each for each in frames)
    assert max(frame.count("\n") for frame in frames) < 24
    assert re.search(r"\nno-line +no such line +refused: .*\n.*\n +placed on replay", end)
    assert "lost 0, phoned twice 0" in end.splitlines()[-2]
    assert processes_in(folder_in(start)) == []


@pytest.mark.parametrize(("lacking", "terminal"), [("rich.console", "xterm"), ("?", "dumb")])
def test_a_terminal_without_rich_or_a_cursor_gets_lines(
    lacking: str, terminal: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setitem(sys.modules, lacking, None)
    monkeypatch.setenv("TERM", terminal)

    with showing(ASKED) as show:
        show(ASKED[0], STARTED, "placed")

    assert capsys.readouterr().out.split() == ["a", STARTED, "placed"]


def test_sigterm_ends_the_demo_anywhere_and_all_it_started(rabbitmq_url: str) -> None:
    tour = start(rabbitmq_url)
    output = read_until(tour, "starting the worker")

    tour.send_signal(signal.SIGTERM)
    rest, _ = tour.communicate()

    assert (tour.returncode, rest.strip()) == (1, "Aborted!")
    assert processes_in(folder_in(output)) == []
    assert not folder_in(output).exists()


ASKED = [Request(name, "", f"text of {name}", name.encode()) for name in "abc"]
ACCOUNTS = {
    "all well": (["text of a", "text of b"], [b"c"], 0, ""),
    "one lost": (["text of a"], [b"c"], 0, "1 started + 1 dead letters, lost 1"),
    "one waiting": (["text of a"], [b"c"], 1, "1 dead letters, 1 still waiting, lost 0"),
    "one phoned twice": (["text of a", "text of b", "text of a"], [b"c"], 0, "phoned twice 1"),
    "one lost, one phoned and dead": (["text of a", "text of b"], [b"b"], 0, "lost 1"),
    "one phoned and dead besides": (["text of a", "text of b"], [b"b", b"c"], 0, "2 started + 2"),
    "a call that nobody asked for": (["text of a", "text of b", "?"], [b"c"], 0, "3 started"),
    "nothing at all": ([], [], 0, "0 started + 0 dead letters, lost 3"),
}


@pytest.mark.parametrize(("spoken", "dead", "waiting", "wrong"), ACCOUNTS.values(), ids=ACCOUNTS)
def test_an_account_adds_up_only_if_each_request_is_in_one_place(
    spoken: list[str], dead: list[bytes], waiting: int, wrong: str
) -> None:
    drawn_up = account(ASKED, spoken, dead, waiting)

    assert drawn_up.adds_up == (not wrong)
    assert wrong in str(drawn_up)


CANCELLED = {
    "all well": (["text of a"], {"b"}, ""),
    "nobody knows": (["text of a"], set(), "lost 1"),
    "cancelled and phoned": (["text of a", "text of b"], {"b"}, "2 started + 1 dead letters + 1"),
}


@pytest.mark.parametrize(("spoken", "cancelled", "wrong"), CANCELLED.values(), ids=CANCELLED)
def test_what_is_taken_back_is_in_no_other_place(
    spoken: list[str], cancelled: set[str], wrong: str
) -> None:
    drawn_up = account(ASKED, spoken, [b"c"], 0, cancelled)

    assert drawn_up.adds_up == (not wrong)
    assert wrong in str(drawn_up)


def test_each_request_of_the_demo_has_an_id_and_a_text_of_its_own() -> None:
    asked = requests(datetime.now(UTC))

    assert len({each.id for each in asked}) == len(asked)
    assert len({each.text for each in asked}) == len(asked)


async def test_events_that_do_not_come_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "EVENTS_WITHIN_S", 0)
    told: list[dict[str, Any]] = []

    async def events() -> AsyncIterator[dict[str, Any]]:
        yield {"request_id": "a"}
        await asyncio.Event().wait()

    missing = await demo.follow(events(), Counter({"a": 1, "b": 1, None: 1}), told.append)

    assert missing == ["b", "(no id)"]
    assert told == [{"request_id": "a"}]


def test_a_doubt_that_a_person_must_settle_is_told() -> None:
    event = {"type": "call.failed", "attempt": 1, "replay": 0, "reason": "unsure"}

    assert meaning_of(event | {"description": "read timeout"}) == "unsure: read timeout"


def test_a_command_that_does_not_start_is_quoted_and_nothing_is_left(
    rabbitmq_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "call-consumer"
    command.write_text("#!/bin/sh\necho out of order\n")
    command.chmod(0o755)
    monkeypatch.setattr("consumer.demo.environment.COMMAND", command)
    monkeypatch.setenv("TEST_RABBITMQ_URL", rabbitmq_url)

    done = CliRunner().invoke(cli.main, ["demo"])

    assert done.exit_code == 1
    assert done.stderr == ("Error: sandbox does not start. The end of sandbox.log:\nout of order\n")


def test_without_a_broker_the_demo_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.demo.broker.NAMED_WITHIN_S", 0)
    monkeypatch.setenv("TEST_RABBITMQ_URL", "amqp://guest:hush@127.0.0.1:1/")

    done = CliRunner().invoke(cli.main, ["demo"])

    assert done.exit_code == 1
    assert "Error: TEST_RABBITMQ_URL: no login at 127.0.0.1:1" in done.stderr
    assert "hush" not in done.output


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[DemoEnvironment]:
    log = tmp_path / "worker.log"
    log.write_text("".join(f"line {n}\n" for n in range(20)))
    settings = {
        "CALLS_RABBITMQ_URL": "amqp://127.0.0.1:1/",
        "CALLS_BITRIX24_URL": "http://127.0.0.1:1/rest/",
    }
    with subprocess.Popen(["/bin/true"]) as worker:
        yield DemoEnvironment(
            settings, build_topology("calls", "call.requested", (1,)), worker, log
        )


def test_a_worker_that_ends_ends_the_kept_demo(
    stage: DemoEnvironment, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        DemoFailed, match=r"the worker has ended\. The end of worker\.log:\nline 10"
    ):
        stay(stage)

    assert "call-consumer dlq list" in capsys.readouterr().out  # numbers to try are there, too


def test_what_does_not_add_up_ends_with_the_workers_log_and_exit_1(
    stage: DemoEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(*_: object) -> bool:
        return False

    monkeypatch.setattr("consumer.demo.environment.set_up", lambda _: stage)
    monkeypatch.setattr(demo, "play", play)

    done = CliRunner().invoke(cli.main, ["demo"])

    assert done.exit_code == 1
    assert done.stdout.startswith("This does not add up. The end of worker.log:\nline 10\n")


def test_signals_mean_again_what_they_meant_before(
    stage: DemoEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.demo.environment.set_up", lambda _: stage)
    before = signal.getsignal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt), demo_environment():
        signal.raise_signal(signal.SIGTERM)

    assert signal.getsignal(signal.SIGTERM) == before


def test_an_account_is_told_in_one_line() -> None:
    told = str(Account(requests=3, started=2, dead=1, waiting=0, lost=0, twice=0))

    assert told == "3 requests = 2 started + 1 dead letters, lost 0, phoned twice 0"

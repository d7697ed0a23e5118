"""A person at a terminal sees how far a command is, once it takes long; nobody else does."""

import asyncio
import io
import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress

import aio_pika
import pytest

from consumer.cli import progress
from consumer.cli.progress import Progress
from tests.workbench import Bench

COUNT = 6
AT_ONCE = "from consumer.cli import progress, main; progress.AFTER_S = 0; main.main()"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal_of(monkeypatch: pytest.MonkeyPatch, after_s: float, every_s: float) -> Terminal:
    """Put a terminal in stderr's place; a fixture could not: pytest sets it anew for each phase."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "AFTER_S", after_s)
    monkeypatch.setattr(progress, "EVERY_S", every_s)
    return stream


async def test_what_is_done_soon_is_done_without_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = terminal_of(monkeypatch, after_s=2, every_s=0)

    async with Progress("counting", 3) as line:
        line.note(1, 3)
        with line.one_more():
            pass

    assert terminal.getvalue() == ""


async def test_who_is_no_terminal_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "AFTER_S", 0)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    async with Progress("counting", 3) as line:
        line.note(1, 3)
        await asyncio.sleep(0)

    assert stream.getvalue() == ""


async def test_the_line_comes_also_while_nothing_gets_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = terminal_of(monkeypatch, after_s=0, every_s=0)

    async with Progress("waiting"), asyncio.timeout(5):
        while not terminal.getvalue():  # noqa: ASYNC110  # a terminal tells of nothing
            await asyncio.sleep(0)

    assert terminal.getvalue().startswith("\rwaiting")
    assert terminal.getvalue().endswith("\r       \r")


async def test_other_lines_find_a_free_line_and_then_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = terminal_of(monkeypatch, after_s=0, every_s=60)

    async with Progress("counting", 2000) as line:
        line.note(1, 2000)
        with line.one_more():
            terminal.write("an id\n")

    shown = re.sub(r", about \d+ (s|min) left", "", terminal.getvalue())
    assert re.fullmatch(r"\rcounting: 1 of 2,000\r +\ran id\n\rcounting: 2 of 2,000\r +\r", shown)


async def on_a_terminal(bench: Bench, *arguments: str, all_streams: bool) -> tuple[str, str]:
    """Run a command whose stderr is a terminal, and return what it wrote there, and its stdout."""
    names = ("rabbitmq_url", "exchange", "queue")
    given = dict(os.environ) | {f"CALLS_{name.upper()}": str(bench.given[name]) for name in names}

    def run() -> tuple[str, str]:
        ours, theirs = pty.openpty()
        written = b""
        with subprocess.Popen(
            [sys.executable, "-c", AT_ONCE, "dlq", *arguments],
            env=given,
            stdin=subprocess.DEVNULL,
            stdout=theirs if all_streams else subprocess.PIPE,
            stderr=theirs,
        ) as command:
            os.close(theirs)
            with suppress(OSError):  # EIO: nobody has the other end any more
                while some := os.read(ours, 4096):
                    written += some
            printed = command.stdout.read() if command.stdout else b""
        os.close(ours)
        return written.decode(), printed.decode()

    return await asyncio.to_thread(run)


LONG = {
    "list": ("list",),
    "stats": ("stats",),
    "replay": ("replay", "--all", "--rate", "20"),
    "discard": ("discard", "--all", "--why", "x"),
}


@pytest.mark.parametrize("all_streams", [True, False], ids=["all streams", "stderr"])
@pytest.mark.parametrize("arguments", LONG.values(), ids=LONG)
async def test_a_long_command_says_how_far_it_is_and_leaves_no_trace(
    bench: Bench, arguments: tuple[str, ...], *, all_streams: bool
) -> None:
    for number in range(COUNT):
        body = json.dumps(bench.request(request_id=f"r{number}")).encode()
        message = aio_pika.Message(body, headers={"x-reason": "refused"}, message_id=f"m{number}")
        await bench.channel.default_exchange.publish(message, f"{bench.queue}.dlq")

    written, printed = await on_a_terminal(bench, *arguments, all_streams=all_streams)

    act = {"replay": "replaying", "discard": "discarding"}.get(arguments[0])
    doing = ["looking at dead letters", *([act] if act else [])]
    for each in doing:
        assert f"\r{each}" in written
    assert f"{doing[-1]}: {COUNT} of {COUNT}" in written or not act
    # What stands on the screen in the end: each line as it was written over last.
    lines = [line.rsplit("\r", 1)[-1] for line in written.replace("\r\n", "\n").split("\n")]
    assert not [line for line in lines if "ing: " in line or "looking" in line]
    assert "\r" not in printed
    if act:
        assert {f"r{n}" for n in range(COUNT)} <= {*lines, *printed.split("\n")}

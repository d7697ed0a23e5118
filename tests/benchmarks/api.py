"""``python -m tests.benchmarks.api``: a portal that places every call at once, cheaply.

Prints its port. Each line on stdin is a number of calls to expect; when the first of them comes it
prints a line, and when the last comes a line with all of them. `Api` is what it is to the others.
"""

import asyncio
import json
import re
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LONGEST_LINE = 2**26

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_TEXT = re.compile(rb'"TEXT_TO_PRONOUNCE": ?"(.*?)"')
_END = b"\r\n\r\n"
_ANSWER = (
    b'{"result":{"RESULT":true,"CALL_ID":"infocall.%032d.1773740701"},'
    b'"time":{"start":1773740709,"finish":1773740709.9,"duration":0.9,"processing":0,'
    b'"date_start":"2026-03-17T10:45:09+01:00","date_finish":"2026-03-17T10:45:09+01:00",'
    b'"operating_reset_at":1773741309,"operating":0}}'
)
_NO_ROWS = b'{"result":[],"total":0}'
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
    b"Content-Length: %d\r\n\r\n"
)


@dataclass
class Book:
    """The calls that came, by the monotonic clock, which all processes of a machine share."""

    expected: int = 0
    calls: list[tuple[float, bytes]] = field(default_factory=list)

    def expect(self, calls: int) -> None:
        self.expected = calls
        self.calls.clear()

    def note(self, request: bytes) -> int:
        """Note a call and return its number."""
        self.calls.append((time.monotonic(), request))
        number = len(self.calls)
        if number == 1:
            say({"began": self.calls[0][0]})
        if number == self.expected:
            say({"calls": [(at, text_of(request)) for at, request in self.calls]})
        return number


def say(fact: object) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


def text_of(request: bytes) -> str:
    found = _TEXT.search(request)
    return found[1].decode() if found else ""


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, and no more of it than clients need."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (body_at := self._buffer.find(_END) + len(_END)) >= len(_END):
            length = _LENGTH.search(self._buffer, 0, body_at)
            end = body_at + (int(length[1]) if length else 0)
            if len(self._buffer) < end:
                return
            head, request = self._buffer[:body_at], self._buffer[body_at:end]
            self._buffer = self._buffer[end:]
            history = b"statistic" in head  # the worker asks how calls ended, too
            answer = _NO_ROWS if history else _ANSWER % self._book.note(request)
            if self._transport is not None:
                self._transport.write(_HEAD % len(answer) + answer)


async def serve() -> None:
    """Serve until stdin is closed."""
    loop, book = asyncio.get_running_loop(), Book()
    server = await loop.create_server(lambda: Connection(book), "127.0.0.1", 0)
    say({"port": server.sockets[0].getsockname()[1]})
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        book.expect(int(line))
        say({"expects": book.expected})
    server.close()


class Api:
    """The API in a process of its own; see `tests.benchmarks.api`."""

    def __init__(self, process: Process, port: int) -> None:
        self._process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}/rest/1/bench-not-a-secret/"

    async def expect(self, calls: int) -> None:
        """Forget all calls, and count from now on."""
        if self._process.stdin is None:
            raise AssertionError("the API has a pipe for its stdin")
        self._process.stdin.write(b"%d\n" % calls)
        await self._said("expects")

    async def began(self) -> float:
        """Wait for the first call; return when it came, by the monotonic clock."""
        return float(await self._said("began"))

    async def all_calls(self) -> list[tuple[float, str]]:
        """Wait for the last call; return when each came, and what it was to say."""
        return [(at, text) for at, text in await self._said("calls")]

    async def _said(self, name: str) -> Any:  # noqa: ANN401
        if self._process.stdout is None:
            raise AssertionError("the API has a pipe for its stdout")
        while line := await self._process.stdout.readline():
            fact = json.loads(line)
            if name in fact:
                return fact[name]
        raise RuntimeError("the API has ended")


@asynccontextmanager
async def api_running() -> AsyncIterator[Api]:
    """Run the API for as long as the block lasts."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks.api"),
        cwd=ROOT,
        stdin=PIPE,
        stdout=PIPE,
        limit=LONGEST_LINE,
    )
    api = Api(process, 0)
    try:
        api = Api(process, int(await api._said("port")))  # noqa: SLF001
        yield api
    finally:
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(serve())

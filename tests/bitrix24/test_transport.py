"""On a kept connection nothing is taken for an answer that nobody asked for."""

from __future__ import annotations

import asyncio
import socketserver
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from consumer.bitrix24.access import Webhook
from consumer.bitrix24.portal import Portal
from consumer.decision import Placed
from tests.bitrix24.test_portal import CALL, reply

if TYPE_CHECKING:
    from collections.abc import Iterator


def placed(number: int) -> bytes:
    return reply(200, {"result": {"RESULT": True, "CALL_ID": f"call {number}"}})


class Talkative(socketserver.ThreadingTCPServer):
    """Answers each request; over its first connection it then says more, and perhaps hangs up.

    It lives in threads of its own, so that it can speak while the test's loop stands still.

    Attributes:
        go: Set it to let it say more.
        said: Set when it has.
        asked: How many requests came.
    """

    daemon_threads = True

    def __init__(self, more: bytes, *, hangs_up: bool) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.more = more
        self.hangs_up = hangs_up
        self.go = threading.Event()
        self.said = threading.Event()
        self.asked = 0


class Answering(socketserver.StreamRequestHandler):
    server: Talkative

    def handle(self) -> None:
        while self.rfile.readline():
            length = 0
            while (line := self.rfile.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split()[1])
            self.rfile.read(length)
            self.server.asked += 1
            self.wfile.write(placed(self.server.asked))
            if not self.server.said.is_set():
                self.server.go.wait()
                self.wfile.write(self.server.more)
                if self.server.hangs_up:
                    self.connection.shutdown(2)
                self.server.said.set()
                if self.server.hangs_up:
                    return


@contextmanager
def talking(more: bytes, *, hangs_up: bool) -> Iterator[Talkative]:
    with Talkative(more, hangs_up=hangs_up) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


MORE = {
    "the same answer again": placed(1),
    "a refusal": reply(503, b""),
    "a timeout": reply(408, b""),
    "the head of an answer": b"HTTP/1.1 503 X\r\nContent-Length: 5\r\n\r\n",
    "half a head": b"HTTP/1.1 503 X\r\n",
    "noise": b"\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("turns", [0, 10], ids=["not read yet", "read"])
@pytest.mark.parametrize("hangs_up", [True, False], ids=["hangs up", "stays"])
@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
async def test_what_nobody_asked_for_is_no_answer(
    more: bytes,
    hangs_up: bool,  # noqa: FBT001
    turns: int,
) -> None:
    with talking(more, hangs_up=hangs_up) as server:
        portal = Portal(Webhook(f"http://127.0.0.1:{server.server_address[1]}/rest/1/x/"))
        first = await portal.place(CALL)
        server.go.set()
        server.said.wait()  # meanwhile this loop reads nothing
        for _ in range(turns):
            await asyncio.sleep(0)
        second = await portal.place(CALL)
        await portal.close()

    assert [first, second] == [Placed("call 1"), Placed("call 2")]
    assert server.asked == 2

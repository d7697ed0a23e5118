"""On a kept connection nothing is taken for an answer that nobody asked for."""

from __future__ import annotations

import asyncio
import socket
import socketserver
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from consumer.bitrix24.access import Webhook
from consumer.bitrix24.portal import Portal
from consumer.decision import Placed
from tests.bitrix24.test_portal import CALL, reply
from tests.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    End = Callable[[socket.socket], None]


def placed(number: int) -> bytes:
    return reply(200, {"result": {"RESULT": True, "CALL_ID": f"call {number}"}})


class Talkative(socketserver.ThreadingTCPServer):
    """Answers each request; over its first connection it then says more, and ends it perhaps.

    It lives in threads of its own, so that it can speak while the test's loop stands still.

    Attributes:
        go: Set it to let it say more.
        said: Set when it has.
        asked: How many requests came.
        connections: Over how many connections.
    """

    daemon_threads = True

    def __init__(self, more: bytes, end: End, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.more = more
        self.end = end
        self.tls = tls
        self.connections = 0
        self.go = threading.Event()
        self.said = threading.Event()
        self.asked = 0

    def get_request(self) -> tuple[socket.socket, Any]:
        link, address = super().get_request()
        self.connections += 1
        if self.tls is not None:
            link = self.tls.wrap_socket(link, server_side=True, do_handshake_on_connect=False)
        return link, address


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
                self.server.end(self.connection)
                self.server.said.set()


@contextmanager
def talking(more: bytes, end: End, tls: ssl.SSLContext | None) -> Iterator[Talkative]:
    with Talkative(more, end, tls) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def stay(_: socket.socket) -> None:
    """Leave the connection as it is."""


def take_leave(link: socket.socket) -> None:
    """Say that nothing more comes, and listen on."""
    if not isinstance(link, ssl.SSLSocket):
        link.shutdown(socket.SHUT_WR)
        return
    link.settimeout(0)
    with suppress(OSError):  # it would wait for the other end's farewell
        link.unwrap()
    link.settimeout(None)


def hang_up(link: socket.socket) -> None:
    link.shutdown(socket.SHUT_RDWR)


MORE = {
    "the same answer again": placed(1),
    "a refusal": reply(503, b""),
    "a timeout": reply(408, b""),
    "the head of an answer": b"HTTP/1.1 503 X\r\nContent-Length: 5\r\n\r\n",
    "half a head": b"HTTP/1.1 503 X\r\n",
    "noise": b"\x00",
    "nothing": b"",
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def tls(
    request: pytest.FixtureRequest, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> ssl.SSLContext | None:
    """Speak plain HTTP, then TLS."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority.server("IP:127.0.0.1") if request.param else None


def portal_at(server: Talkative) -> Portal:
    scheme = "https" if server.tls else "http"
    return Portal(Webhook(f"{scheme}://127.0.0.1:{server.server_address[1]}/rest/1/x/"))


@pytest.mark.parametrize(
    "turns",
    [0, 1, 2, 3, 10],
    ids=["not read", "read next", "just read", "read before", "long read"],
)
@pytest.mark.parametrize("end", [stay, take_leave, hang_up])
@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
async def test_what_nobody_asked_for_is_no_answer(
    more: bytes, end: End, turns: int, tls: ssl.SSLContext | None
) -> None:
    with talking(more, end, tls) as server:
        portal = portal_at(server)
        first = await portal.place(CALL)
        server.go.set()
        server.said.wait()  # meanwhile this loop reads nothing
        for _ in range(turns):
            await asyncio.sleep(0)
        second = await portal.place(CALL)
        await portal.close()

    assert [first, second] == [Placed("call 1"), Placed("call 2")]
    assert server.asked == 2


async def test_a_connection_over_which_nothing_came_serves_all_calls(
    tls: ssl.SSLContext | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = aiohttp.TCPConnector.connect

    async def slowly(connector: aiohttp.TCPConnector, *asked: Any) -> object:  # noqa: ANN401
        connection = await connect(connector, *asked)
        time.sleep(0.05)  # noqa: ASYNC251  # what the server says of TLS comes, and is not read
        return connection

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", slowly)
    with talking(b"", stay, tls) as server:
        server.said.set()
        portal = portal_at(server)
        outcomes = [await portal.place(CALL) for _ in range(5)]
        await portal.close()

    assert outcomes == [Placed(f"call {n}") for n in range(1, 6)]
    assert server.connections == 1

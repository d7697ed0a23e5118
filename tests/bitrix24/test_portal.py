"""The portal over real HTTP: what was certainly not sent, what may ring, what is not repeated."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import struct
import time
from contextlib import asynccontextmanager
from email.utils import formatdate
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Any

import pytest

from consumer.bitrix24.access import Webhook
from consumer.bitrix24.call_history import Page
from consumer.bitrix24.portal import Portal
from consumer.decision import Failure, Placed, Refused, Unavailable, Unsure
from consumer.findings import LookUpFailed, NoHistory
from consumer.messages import CallRequested
from tests.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

SECRET = "canary5ecret"
CALL = CallRequested.model_validate(
    {"request_id": "r", "to_number": "+12025550100", "text_to_pronounce": "Canary text"}
).model_copy(update={"from_line": "reg1"})
NOT_REACHED = "the portal could not be reached"
PLACED = {"result": {"RESULT": True, "CALL_ID": "c1"}}

if TYPE_CHECKING:
    Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def reply(status: int, body: object, *headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = "\r\n".join([f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}", *headers])
    return f"{head}\r\n\r\n".encode() + content


async def read(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
    return head, await reader.readexactly(length)


def always(answer: bytes) -> Answer:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read(reader)
        writer.write(answer)
        await writer.drain()

    return serve


def closing(answer: Answer) -> Answer:
    """Serve one request per connection with *answer*."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return serve


@asynccontextmanager
async def asking(answer: Answer, **options: Any) -> AsyncIterator[Portal]:  # noqa: ANN401
    """Lend a portal behind a server that serves one request per connection with *answer*."""
    server = await asyncio.start_server(closing(answer), "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    portal = Portal(Webhook(f"http://127.0.0.1:{port}/base/rest/1/{SECRET}/"), **options)
    async with server:
        yield portal
        await portal.close()


def address(portal: Portal) -> str:
    return portal._access.url  # noqa: SLF001


async def outcome_of(answer: bytes) -> object:
    async with asking(always(answer)) as portal:
        return await portal.place(CALL)


async def test_a_call_is_asked_for_as_the_page_says() -> None:
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await read(reader))
        writer.write(reply(200, PLACED))

    async with asking(serve) as portal:
        first = await portal.place(CALL)
        await portal.place(CALL.model_copy(update={"voice": "ukenglishmale"}))

    (head, body), (_, with_voice) = asked
    assert first == Placed("c1")
    path = f"/base/rest/1/{SECRET}/voximplant.infocall.startwithtext"
    assert head.startswith(f"POST {path} HTTP/1.1\r\n")
    assert "content-type: application/json" in head.lower()
    assert "accept-encoding: gzip\r\n" in head.lower()
    assert json.loads(body) == {
        "FROM_LINE": "reg1",
        "TO_NUMBER": "+12025550100",
        "TEXT_TO_PRONOUNCE": "Canary text",
    }
    assert json.loads(with_voice)["VOICE"] == "ukenglishmale"


NO_HOST = "its name cannot be resolved: there is no such host"
UNREACHABLE: dict[str, tuple[str, str]] = {
    "a port that nobody listens at": ("http://127.0.0.1:9/rest/1/x/", "connection refused"),
    "over IPv6": ("http://[::1]:9/rest/1/x/", "connection refused"),
    "two families": ("https://localhost:9/rest/1/x/", "connection refused"),
    "no such name": ("http://no-such-host.invalid/rest/1/x/", NO_HOST),
    "no such name, over TLS": ("https://no-such-host.invalid/rest/1/x/", NO_HOST),
}


@pytest.mark.parametrize(("url", "cause"), UNREACHABLE.values(), ids=UNREACHABLE)
async def test_who_cannot_be_reached_has_not_dialled_and_it_is_said_why(
    url: str, cause: str
) -> None:
    portal = Portal(Webhook(url))
    outcome = await portal.place(CALL)
    answer = await portal.ask("server.time")
    await portal.close()

    assert outcome == Unavailable(Failure("CONNECT_ERROR", f"{NOT_REACHED}: {cause}"))
    assert (answer, portal.silence) == (None, cause)


async def test_a_certificate_counts_only_if_it_is_trusted_and_the_hosts_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    answer = closing(always(reply(200, PLACED)))
    tls = authority.server("IP:127.0.0.1")
    server = await asyncio.start_server(answer, "127.0.0.1", ssl=tls)
    port = server.sockets[0].getsockname()[1]

    async def dial(host: str) -> object:
        portal = Portal(Webhook(f"https://{host}:{port}/rest/1/x/"))
        outcome = await portal.place(CALL)
        await portal.close()
        return outcome

    async with server:
        untrusted = await dial("127.0.0.1")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        trusted = await dial("127.0.0.1")
        other = await dial("localhost")

    assert isinstance(untrusted, Unavailable)
    assert re.fullmatch(
        rf"{NOT_REACHED}: its certificate is not trusted: .*; name its CA's file in SSL_CERT_FILE",
        untrusted.failure.description,
    )
    assert trusted == Placed("c1")
    assert isinstance(other, Unavailable)
    assert f"{NOT_REACHED}: its certificate is for another host name: " in other.failure.description


async def test_a_failed_tls_handshake_has_not_dialled() -> None:
    async def no_tls(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with asking(no_tls) as portal:
        secure = Portal(Webhook(address(portal).replace("http:", "https:")))
        outcome = await secure.place(CALL)
        await secure.close()

    assert outcome == Unavailable(
        Failure("CONNECT_ERROR", f"{NOT_REACHED}: it answers without TLS")
    )


async def mute(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def slow_lookup(*_: object, **__: object) -> None:
    await asyncio.sleep(60)


async def test_a_tls_handshake_without_an_answer_has_not_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumer.bitrix24.portal.CONNECT_TIMEOUT_S", 0.3)
    async with asking(mute) as portal:
        secure = Portal(Webhook(address(portal).replace("http:", "https:")))
        outcome = await secure.place(CALL)
        await secure.close()

    assert outcome == Unavailable(Failure("CONNECT_TIMEOUT", f"{NOT_REACHED}: no answer in time"))


async def test_a_name_that_is_not_found_in_time_has_not_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumer.bitrix24.portal.CONNECT_TIMEOUT_S", 0.3)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", slow_lookup)
    portal = Portal(Webhook("https://portal.example/rest/1/x/"))
    outcome = await portal.place(CALL)
    await portal.close()

    assert outcome == Unavailable(Failure("CONNECT_TIMEOUT", f"{NOT_REACHED}: no answer in time"))


async def through_proxy(address: str, to: str, monkeypatch: pytest.MonkeyPatch) -> object:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, address)
    portal = Portal(Webhook(to))
    outcome = await portal.place(CALL)
    await portal.close()
    return outcome


async def test_a_proxy_that_refuses_the_way_has_not_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(reply(403, b""))

    async with asking(refuse) as proxy:
        outcome = await through_proxy(
            address(proxy), f"https://portal.example/rest/1/{SECRET}/", monkeypatch
        )

    assert outcome == Unavailable(
        Failure("PROXY_ERROR", f"{NOT_REACHED}: the proxy refuses with HTTP 403")
    )
    assert asked[0].startswith(b"CONNECT portal.example:443 ")
    assert SECRET.encode() not in asked[0]


async def test_credentials_in_an_address_are_sent_as_basic_authentication(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().title())
        writer.write(reply(403, b""))

    async with asking(refuse) as server:
        with_user = address(server).replace("//", "//user:sesame@")
        portal = Portal(Webhook(with_user))
        await portal.place(CALL)
        await portal.close()
        await through_proxy(with_user, "http://portal.example/rest/1/x/", monkeypatch)
        await through_proxy(with_user, "https://portal.example/rest/1/x/", monkeypatch)

    encoded = base64.b64encode(b"user:sesame").decode().title()
    named = [re.findall(r"(?m)^((?:Proxy-)?Authorization): Basic (.+)\r$", head) for head in asked]
    assert named == [
        [("Authorization", encoded)],
        [("Proxy-Authorization", encoded)],
        [("Proxy-Authorization", encoded)],
    ]
    assert "Sesame" not in "".join(asked)


async def test_a_proxy_that_hangs_up_has_not_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with asking(hang_up) as proxy:
        outcome = await through_proxy(
            address(proxy), "https://portal.example/rest/1/x/", monkeypatch
        )

    assert outcome == Unavailable(
        Failure("CONNECT_ERROR", f"{NOT_REACHED}: the connection failed (ServerDisconnectedError)")
    )


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "127.0.0.1:9"])
async def test_a_proxy_that_is_not_there_has_not_dialled(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = await through_proxy(proxy, "https://portal.example/rest/1/x/", monkeypatch)

    assert outcome == Unavailable(
        Failure("PROXY_ERROR", f"{NOT_REACHED}: the proxy: connection refused")
    )


async def test_a_proxy_that_cannot_be_used_has_not_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = await through_proxy(
        "socks5://127.0.0.1:9", "https://portal.example/rest/1/x/", monkeypatch
    )

    assert isinstance(outcome, Unavailable)


async def test_credentials_that_cannot_be_sent_have_not_dialled() -> None:
    async with asking(always(reply(200, PLACED))) as server:
        portal = Portal(Webhook(address(server).replace("//", "//user:%D0%BF%D0%B0%D1%80@")))
        outcome = await portal.place(CALL)
        await portal.close()

    assert outcome == Unavailable(
        Failure("CONNECT_ERROR", f"{NOT_REACHED}: the connection failed (UnicodeEncodeError)")
    )


async def test_a_call_goes_through_the_proxy_unless_its_host_is_excepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("no_proxy", "excepted.example")
    async with asking(always(reply(200, PLACED))) as proxy:
        through = await through_proxy(
            address(proxy), "http://portal.example/rest/1/x/", monkeypatch
        )
        past = await through_proxy(
            address(proxy), "http://user:sesame@excepted.example/rest/1/x/", monkeypatch
        )

    assert through == Placed("c1")
    assert past == Unavailable(Failure("CONNECT_ERROR", f"{NOT_REACHED}: {NO_HOST}"))


async def test_a_call_does_not_wait_for_another_ones_answer() -> None:
    arrived: asyncio.Queue[None] = asyncio.Queue()
    done = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read(reader)
        await arrived.put(None)
        await done.wait()
        writer.write(reply(200, PLACED))

    async with asking(hold) as portal:
        calls = [asyncio.create_task(portal.place(CALL)) for _ in range(60)]
        for _ in calls:
            await arrived.get()
        done.set()

        assert await asyncio.gather(*calls) == [Placed("c1")] * 60


async def test_a_connection_is_used_again() -> None:
    connections = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await read(reader)
            writer.write(reply(200, PLACED))

    async with asking(count) as portal:
        for _ in range(5):
            await portal.place(CALL)

    assert connections == 1


async def test_no_cookie_ties_calls_to_one_session() -> None:
    heads = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await read(reader))[0].lower())
        writer.write(reply(200, PLACED, "Set-Cookie: PHPSESSID=abc; path=/"))

    async with asking(serve) as portal:
        await portal.place(CALL)
        await portal.place(CALL)

    assert len(heads) == 2
    assert not any("cookie" in head for head in heads)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read(reader)
    socket = writer.get_extra_info("socket")
    socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await read(reader)
    await reader.read()


LOST: dict[str, tuple[Any, str]] = {
    "closed": (always(b""), "REMOTE_PROTOCOL_ERROR"),
    "reset": (reset, "READ_ERROR"),
    "half an answer": (always(reply(200, PLACED)[:-5]), "REMOTE_PROTOCOL_ERROR"),
    "not HTTP": (always(b"SSH-2.0-OpenSSH_9.2\r\n"), "REMOTE_PROTOCOL_ERROR"),
    "not gzip": (always(reply(200, PLACED, "Content-Encoding: gzip")), "DECODING_ERROR"),
    "half of a gzip": (
        always(reply(200, gzip.compress(b"{}" * 50)[:-9], "Content-Encoding: gzip")),
        "DECODING_ERROR",
    ),
    "more than is read": (always(reply(200, b" " * 5_000_000)), "REMOTE_PROTOCOL_ERROR"),
    "a small gzip of something endless": (
        always(reply(200, gzip.compress(b" " * 50_000_000, 1), "Content-Encoding: gzip")),
        "DECODING_ERROR",
    ),
    "silence": (silent, "READ_TIMEOUT"),
    "an endless drip": (drip, "TIMEOUT_ERROR"),
}


@pytest.mark.parametrize(("answer", "code"), LOST.values(), ids=LOST)
async def test_an_answer_that_is_lost_leaves_a_doubt(
    answer: Answer, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.bitrix24.portal.CONNECT_TIMEOUT_S", 0.3)
    async with asking(answer, timeout_s=0.3) as portal:
        began_at = time.monotonic()
        outcome = await portal.place(CALL)

    assert outcome == Unsure(Failure(code, "the answer was lost"))
    assert time.monotonic() - began_at < 2


async def test_a_reason_phrase_in_another_alphabet_loses_no_answer() -> None:
    answer = reply(200, PLACED).replace(b" X\r\n", " Хорошо\r\n".encode("cp1251"))

    assert await outcome_of(answer) == Placed("c1")


async def test_a_long_header_loses_no_answer() -> None:
    policy = f"Content-Security-Policy: {'img-src https://portal.example; ' * 1000}"

    assert await outcome_of(reply(200, PLACED, policy)) == Placed("c1")


async def test_a_packed_answer_is_unpacked() -> None:
    packed = gzip.compress(json.dumps(PLACED).encode())

    assert await outcome_of(reply(200, packed, "Content-Encoding: gzip")) == Placed("c1")


async def test_a_redirect_is_not_followed_and_its_path_not_told() -> None:
    asked = []

    async def moved(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await read(reader))
        writer.write(reply(302, b"", f"Location: https://new.example/rest/1/{SECRET}/"))

    async with asking(moved) as portal:
        outcome = await portal.place(CALL)

    assert len(asked) == 1
    assert isinstance(outcome, Refused)
    assert (outcome.failure.code, outcome.scope) == ("HTTP_302", "portal")
    assert "https://new.example" in outcome.failure.description
    assert SECRET not in outcome.failure.description


async def test_what_the_portal_quotes_of_the_request_is_not_repeated() -> None:
    text = f"+12025550100 (12025550100): Canary text for /rest/1/{SECRET}/ is refused"
    outcome = await outcome_of(reply(400, {"error": "ERROR_CORE", "error_description": text}))

    assert isinstance(outcome, Refused)
    assert outcome.failure.description.endswith("is refused")
    assert "2025550100" not in outcome.failure.description
    assert "Canary" not in outcome.failure.description
    assert SECRET not in outcome.failure.description


async def test_a_long_text_that_the_portal_cuts_short_is_not_repeated() -> None:
    text = f"{CALL.text_to_pronounce} " * 50
    call = CALL.model_copy(update={"text_to_pronounce": text})
    told = f"Cannot say: {text}"
    answer = reply(400, {"error": "ERROR_CORE", "error_description": told})
    async with asking(always(answer)) as portal:
        outcome = await portal.place(call)

    assert isinstance(outcome, Refused)
    assert "Canary" not in outcome.failure.description


async def test_each_call_is_sent_once_though_the_kept_connection_has_died() -> None:
    asked = []

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await read(reader))
        writer.write(reply(200, PLACED, "Connection: keep-alive"))
        await writer.drain()
        asked.append(await read(reader))  # and no answer

    async with asking(once) as portal:
        assert await portal.place(CALL) == Placed("c1")
        second = await portal.place(CALL)

    assert isinstance(second, Unsure)
    assert len(asked) == 2


async def test_the_portals_clock_and_its_operating_time_are_noted() -> None:
    their_time = time.time() + 3600
    answer = PLACED | {"time": {"operating": 12.5, "operating_reset_at": their_time + 60}}
    date = f"Date: {formatdate(their_time, usegmt=True)}"
    async with asking(always(reply(200, answer, date))) as portal:
        await portal.place(CALL)

    assert portal.clock_offset_s == pytest.approx(3600, abs=2)
    assert portal.usage is not None
    assert portal.usage.operating_s == 12.5
    assert portal.usage.reset_at == pytest.approx(time.time() + 60, abs=3)


ROW = {
    "CALL_ID": "c1",
    "CALL_TYPE": "5",
    "PORTAL_NUMBER": "reg1",
    "PHONE_NUMBER": "12025550100",
    "CALL_START_DATE": "2026-03-17T12:00:00+01:00",
}
LOOK_UPS: dict[str, tuple[bytes, type]] = {
    "rows": (reply(200, {"result": [ROW], "total": 1}), Page),
    "none": (reply(200, {"result": [], "total": 0}), Page),
    "denied": (reply(403, {"error": "ACCESS_DENIED"}), NoHistory),
    "absent": (reply(404, b"Not Found"), NoHistory),
    "nonsense": (reply(200, b"<html>"), NoHistory),
    "busy": (reply(503, {"error": "QUERY_LIMIT_EXCEEDED"}), LookUpFailed),
    "hasty": (reply(429, b""), LookUpFailed),
    "broken": (reply(500, b""), LookUpFailed),
    "hang up": (b"", LookUpFailed),
}


@pytest.mark.parametrize(("answer", "kind"), LOOK_UPS.values(), ids=LOOK_UPS)
async def test_a_look_up_says_something_or_nothing(answer: bytes, kind: type) -> None:
    async with asking(always(answer)) as portal:
        found = await portal.history({"FILTER": {}})

    assert isinstance(found, kind)


async def test_a_look_up_nobody_answers_says_nothing() -> None:
    portal = Portal(Webhook("http://127.0.0.1:9/rest/1/x/"))
    found = await portal.history({})
    await portal.close()

    assert found == LookUpFailed()


async def test_a_portal_shows_no_secret() -> None:
    portal = Portal(Webhook(f"https://portal.example/rest/1/{SECRET}/"))
    await portal.close()

    assert SECRET not in repr(portal)
    assert portal.host == "portal.example"

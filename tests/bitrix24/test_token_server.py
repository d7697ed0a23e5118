"""The authorisation server over real HTTP: how it is asked, where, and what is not repeated."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from consumer.bitrix24.token_server import Application, TokenServer
from consumer.bitrix24.tokens import Code, Tokens
from consumer.decision import Failure, Refused, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

OLD = Tokens("canary-access", "canary-refresh", obtained_at=1.0, logged_in_at=1.0)
NEW = {"access_token": "new-access", "refresh_token": "new-refresh", "expires_in": 3600}
ASKED = {
    "grant_type": "refresh_token",
    "refresh_token": "canary-refresh",
    "client_id": "local.1a2b",
    "client_secret": "canary-secret",
}


class Server:
    """Answers by *answer*, which gets the method; keeps what it was asked."""

    def __init__(self, answer: Callable[[str], tuple[int, object] | None]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:  # nothing is asked
            writer.close()
            return
        method, target, _ = head.split(" ", 2)
        length = head.lower().partition("content-length: ")[2].partition("\r\n")[0]
        body = (await reader.readexactly(int(length or 0))).decode()
        path, _, query = target.partition("?")
        fields = {name: values[0] for name, values in parse_qs(body or query).items()}
        self.asked.append((method, path, fields))
        if (answer := self.answer(method)) is not None:
            content = json.dumps(answer[1]).encode() if answer[1] is not None else b"<html>"
            start = f"HTTP/1.1 {answer[0]} X\r\nContent-Length: {len(content)}\r\n\r\n"
            writer.write(start.encode() + content)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def serving(answer: Callable[[str], tuple[int, object] | None]) -> AsyncIterator[Server]:
    served = Server(answer)
    server = await asyncio.start_server(served.serve, "127.0.0.1")
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server:
        yield served


def asking(server: str | None, *, allow_http: bool = False) -> TokenServer:
    return TokenServer(Application("local.1a2b", "canary-secret", server, allow_http))


async def test_secrets_are_in_the_body_and_not_in_the_address() -> None:
    async with serving(lambda _: (200, NEW)) as server:
        answer = await asking(server.url).refresh(OLD)

    assert isinstance(answer, Tokens)
    assert (answer.access, answer.refresh) == ("new-access", "new-refresh")
    assert server.asked == [("POST", "/oauth/token/", ASKED)]


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_server_that_knows_get_only_is_asked_so(status: int) -> None:
    async with serving(lambda method: (200, NEW) if method == "GET" else (status, None)) as server:
        answer = await asking(server.url).refresh(OLD)

    assert isinstance(answer, Tokens)
    assert [asked[0] for asked in server.asked] == ["POST", "GET"]
    assert server.asked[1] == ("GET", "/oauth/token/", ASKED)


async def test_a_404_with_a_code_is_an_answer() -> None:
    async with serving(lambda _: (404, {"error": "NOT_INSTALLED"})) as server:
        answer = await asking(server.url).refresh(OLD)

    assert isinstance(answer, Refused)
    assert len(server.asked) == 1


async def test_the_server_that_the_tokens_name_is_asked_where_no_setting_names_one() -> None:
    async with serving(lambda _: (200, NEW)) as named, serving(lambda _: (200, NEW)) as set_:
        told = Tokens("a", "b", 1.0, 1.0, server=f"{named.url}rest/")
        await asking(None).refresh(told)
        await asking(set_.url).refresh(told)

    assert (len(named.asked), len(set_.asked)) == (1, 1)


STRANGERS = ["http://portal.example/rest/", "ftp://portal.example/", "nonsense"]


@pytest.mark.parametrize("named", STRANGERS)
def test_no_secret_goes_unencrypted_to_a_server_that_an_answer_names(named: str) -> None:
    asked = asking(None)._address(named)  # noqa: SLF001  # nothing must be sent

    assert asked == "https://oauth.bitrix.info/oauth/token/"


async def test_a_pasted_address_cannot_send_the_secret_anywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def note(_: object, address: str, *__: object) -> Unavailable:
        asked.append(str(urlsplit(address).hostname))
        return Unavailable(Failure("NOT_ASKED"))

    monkeypatch.setattr(TokenServer, "_ask", note)
    for server in ("thief.example", "oauth.bitrix24.tech", "oauth.bitrix24.tech.thief.example", ""):
        await asking(None).exchange(Code("c", server))

    assert asked == [
        "oauth.bitrix.info",
        "oauth.bitrix24.tech",
        "oauth.bitrix.info",
        "oauth.bitrix.info",
    ]


async def test_an_answer_that_quotes_secrets_is_starred() -> None:
    told = "no canary-refresh of canary-secret, nor canary-access"
    async with serving(
        lambda _: (400, {"error": "invalid_grant", "error_description": told})
    ) as server:
        answer = await asking(server.url).refresh(OLD)

    assert isinstance(answer, Refused)
    assert "canary" not in repr(answer)
    assert answer.failure.description == (
        "run `call-consumer login`; the authorisation server refuses: no *** of ***, nor ***"
    )


LOST: dict[str, Callable[[str], tuple[int, object] | None]] = {
    "hung up": lambda _: None,
    "broken": lambda _: (500, {"error": "x"}),
    "a page": lambda _: (200, None),
}


@pytest.mark.parametrize("answer", LOST.values(), ids=LOST)
async def test_without_an_answer_it_is_unavailable(
    answer: Callable[[str], tuple[int, object] | None],
) -> None:
    async with serving(answer) as server:
        outcome = await asking(server.url).refresh(OLD)

    assert isinstance(outcome, Unavailable)
    assert len(server.asked) == 1


async def test_who_cannot_be_reached_is_named() -> None:
    outcome = await asking("http://127.0.0.1:9/").refresh(OLD)

    assert isinstance(outcome, Unavailable)
    assert "127.0.0.1 could not be reached: connection refused" in outcome.failure.description


async def test_a_token_is_not_sent_too_late() -> None:
    async with serving(lambda _: (200, NEW)) as server:
        outcome = await asking(server.url).refresh(OLD, send_before=time.monotonic() - 1)

    assert isinstance(outcome, Unavailable)
    assert server.asked == []


def test_an_application_shows_no_secret() -> None:
    assert "canary" not in repr(Application("local.1a2b", "canary-secret"))

"""The authorisation server over HTTP: exchanges codes and refresh tokens for new tokens."""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx

from consumer.addresses import is_loopback
from consumer.bitrix24.known_words import SERVER_AWAY
from consumer.bitrix24.redaction import redacted
from consumer.bitrix24.responses import error_of
from consumer.bitrix24.tokens import (
    VENDORS_HOSTS,
    VENDORS_SERVER,
    Code,
    TokenAnswer,
    Tokens,
    read_token_answer,
    token_address,
)
from consumer.bitrix24.transport import AiohttpTransport, proxy_to
from consumer.decision import Failure, Unavailable

CONNECT_WITHIN_S = 5.0
ANSWER_WITHIN_S = 10.0
NO_POST = {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}


@dataclass(frozen=True, slots=True)
class Application:
    """An application as the portal knows it.

    Attributes:
        server: The authorisation server, where a setting names one.
        allow_http: Whether it may be asked over plain http on another machine.
    """

    client_id: str
    client_secret: str = field(repr=False)
    server: str | None = None
    allow_http: bool = False


class TokenServer:
    """Asks for tokens. An answer quotes no secret."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def exchange(self, code: Code) -> TokenAnswer:
        """Exchange the *code* of a login, within 30 s of it."""
        host = urlsplit(f"//{code.server}").hostname or ""
        # An address that was pasted may name any server, which would be told the client secret.
        known = host in VENDORS_HOSTS or is_loopback(host)
        server = f"{'http' if is_loopback(host) else 'https'}://{code.server}/" if known else ""
        grant = {"grant_type": "authorization_code", "code": code.code}
        return await self._ask(self._address(server), grant)

    async def refresh(self, tokens: Tokens, send_before: float = math.inf) -> TokenAnswer:
        """Exchange the refresh token of *tokens*; it is worth nothing afterwards.

        Args:
            tokens: Those to renew.
            send_before: Nothing is sent later than that, in seconds of the monotonic clock.
        """
        grant = {"grant_type": "refresh_token", "refresh_token": tokens.refresh}
        return await self._ask(self._address(tokens.server), grant, tokens, send_before)

    def _address(self, named: str) -> str:
        """Return the endpoint: by the setting, else as the server names itself, else the vendor's.

        A setting comes first: with a mock, what the answer names may be the vendor's own server.
        """
        safe = self._application.allow_http or is_loopback(urlsplit(named).hostname or "")
        named = named if named.startswith("https://") or safe else ""
        return token_address(self._application.server or named or VENDORS_SERVER)

    async def _ask(
        self,
        address: str,
        grant: Mapping[str, str],
        before: Tokens | None = None,
        send_before: float = math.inf,
    ) -> TokenAnswer:
        """Ask by POST, which keeps secrets out of addresses; by GET where only that is known."""
        application = self._application
        fields = {
            **grant,
            "client_id": application.client_id,
            "client_secret": application.client_secret,
        }
        try:
            response = await _send("POST", address, fields, send_before)
            if response.status_code in NO_POST and error_of(response.content) == ("", ""):
                response = await _send("GET", address, fields, send_before)
        except (httpx.HTTPError, TimeoutError) as error:
            why = str(error) or "no answer in time"
            text = f"{SERVER_AWAY} {urlsplit(address).hostname} could not be reached: {why}"
            return Unavailable(Failure("OAUTH_UNAVAILABLE", text))
        answer = read_token_answer(response.status_code, response.content, time.time(), before)
        if isinstance(answer, Tokens):
            return answer
        hidden = (application.client_secret, *grant.values(), before.access if before else "")
        failure = answer.failure
        told = redacted(failure.description, hidden)
        return replace(answer, failure=Failure(redacted(failure.code, hidden), told))


async def _send(
    method: str, address: str, fields: Mapping[str, str], send_before: float
) -> httpx.Response:
    limits = httpx.Timeout(ANSWER_WITHIN_S, connect=CONNECT_WITHIN_S)
    request = httpx.Request(
        method,
        address,
        data=fields if method == "POST" else None,
        params=fields if method == "GET" else None,
        headers={"Accept": "application/json"},
        extensions={"timeout": limits.as_dict(), "send_before": send_before},
    )
    tls = httpx.create_ssl_context() if address.startswith("https:") else None
    transport = AiohttpTransport(tls, proxy_to(address), 0.0)
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await transport.handle_async_request(request)
    finally:
        await transport.aclose()

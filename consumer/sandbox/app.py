"""The sandbox over HTTP: REST as Bitrix24 speaks it, and ``/sandbox`` to steer and to look."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from email.utils import formatdate
from html import escape
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route

from consumer.sandbox import oauth
from consumer.sandbox.control import Control
from consumer.sandbox.parameters import parameters_of
from consumer.sandbox.replies import Json, Page, Reset, Silence
from consumer.sandbox.request import RestRequest

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from consumer.sandbox.portal import SandboxPortal


TOKEN_NAMES = ("auth", "access_token")
"""The parameters that may hold an access token."""


def create_app(portal: SandboxPortal) -> Starlette:
    """Serve *portal*.

    Run it under uvicorn with ``date_header=False`` (the portal's clock makes the Date header),
    ``access_log=False`` (the path holds the secret) and a short ``timeout_graceful_shutdown``
    (silent answers hold on).
    """
    control = Control(portal)
    return Starlette(
        routes=[
            Route("/rest/{path:path}", _Rest(portal)),
            *oauth.routes(portal.oauth, lambda: portal.switches),
            Route("/sandbox", control.switches, methods=["GET", "PATCH"]),
            Route("/sandbox/calls", control.calls, methods=["GET", "DELETE"]),
            Route("/sandbox/requests", control.requests, methods=["GET", "DELETE"]),
        ]
    )


class _Rest:
    """Reads a request and writes the portal's answer. Plain ASGI, for speed and to break things."""

    def __init__(self, portal: SandboxPortal) -> None:
        self._portal = portal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        asked, suffix = _read(request, body)
        match self._portal.answer(asked):
            case Json() as answer:
                await self._send_json(answer, suffix, receive, send)
            case Page(status, content, headers):
                extra = {"Content-Type": "text/html; charset=utf-8", **headers}
                await self._send(status, content.encode(), extra, send)
            case Reset():
                await _reset(receive)
            case Silence():
                await self._hold(receive)

    async def _send_json(self, answer: Json, suffix: str, receive: Receive, send: Send) -> None:
        xml = suffix == ".xml"
        body = (_xml(answer.payload) if xml else json.dumps(answer.payload)).encode()
        kind = "text/xml" if xml else "application/json"
        headers = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Access-Control-Allow-Origin": "*",
            "X-Content-Type-Options": "nosniff",
        }
        half = body[: len(body) // 2]
        if answer.damage == "cut":
            headers["Content-Length"] = str(len(body))
            await self._send(answer.status, half, headers, send, more=True)
            await _hang_up(receive)
        else:
            await self._send(answer.status, half if answer.damage else body, headers, send)

    async def _send(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str],
        send: Send,
        *,
        more: bool = False,
    ) -> None:
        date = formatdate(self._portal.now(), usegmt=True)
        named = {"Date": date, "Content-Length": str(len(body)), **headers}
        raw = [(name.lower().encode(), value.encode()) for name, value in named.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body, "more_body": more})

    async def _hold(self, receive: Receive) -> None:
        try:
            async with asyncio.timeout(self._portal.switches.hold_s):
                await _disconnected(receive)
        except TimeoutError:
            await _reset(receive)


def _read(request: Request, body: bytes) -> tuple[RestRequest, str]:
    """Take ``[user id/secret/]method[.json|.xml]`` and the parameters out of a request.

    Without a user id the path is all method name, so that such a webhook is "not found".
    """
    path: str = request.path_params["path"]
    match path.split("/"):
        case [user, secret, method] if user.isascii() and user.isdecimal():
            credential: tuple[str, str] | None = (user, secret)
        case _:
            credential, method = None, path
    name, dot, suffix = method.lower().rpartition(".")
    if suffix not in ("json", "xml"):
        name, dot, suffix = method.lower(), "", ""
    client = request.client.host if request.client else ""
    params = parameters_of(request, body)
    token = None if credential else _token(request, params)
    return RestRequest(name, credential, params, client, token), dot + suffix


def _token(request: Request, params: Mapping[str, object]) -> str | None:
    """Find the access token; what the header says takes precedence."""
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    given = (bearer if scheme.lower() == "bearer" else "", *map(params.get, TOKEN_NAMES))
    return next((str(token) for token in given if token), None)


def _xml(value: object, tag: str = "response") -> str:
    match value:
        case Mapping():
            inner = "".join(_xml(each, str(key)) for key, each in value.items())
        case list():
            inner = "".join(_xml(each, "item") for each in value)
        case bool():
            inner = str(int(value))
        case _:
            inner = "" if value is None else escape(str(value))
    head = '<?xml version="1.0" encoding="utf-8"?>' if tag == "response" else ""
    return f"{head}<{tag}>{inner}</{tag}>"


# ASGI cannot break a connection; uvicorn's receive() is bound to an object that holds it.


def _transport(receive: Receive) -> asyncio.Transport:
    cycle: object = getattr(receive, "__self__", None)
    transport: asyncio.Transport | None = getattr(cycle, "transport", None)
    if transport is None:
        raise RuntimeError("this answer breaks the connection, and that needs uvicorn")
    return transport


async def _reset(receive: Receive) -> None:
    """Send a TCP reset: close without lingering."""
    transport = _transport(receive)
    linger = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
    await _disconnected(receive)


async def _hang_up(receive: Receive) -> None:
    """Close the connection after what was written so far."""
    _transport(receive).close()
    await _disconnected(receive)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

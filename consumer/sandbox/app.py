"""The sandbox over HTTP: REST as Bitrix24 speaks it, and ``/sandbox`` to steer and to look."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import asdict
from email.utils import formatdate
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from consumer.sandbox.portal import SandboxPortal, Tally
from consumer.sandbox.replies import Json, Page, Reset, Silence
from consumer.sandbox.request import RestRequest

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


def create_app(portal: SandboxPortal) -> Starlette:
    """Serve *portal*.

    Run it under uvicorn with ``date_header=False`` (the portal's clock makes the Date header),
    ``access_log=False`` (the path holds the secret) and a short ``timeout_graceful_shutdown``
    (silent answers hold on).
    """
    control = _Control(portal)
    return Starlette(
        routes=[
            Route("/rest/{path:path}", _Rest(portal)),
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
    return RestRequest(name, credential, _params(request, body), client), dot + suffix


def _params(request: Request, body: bytes) -> dict[str, object]:
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    given = _from_json(body) if kind == "application/json" else _from_form(body)
    return _from_form(request.scope["query_string"]) | given


def _from_json(body: bytes) -> dict[str, object]:
    """Read a JSON object; anything else is no parameters, and no error."""
    try:
        params = json.loads(body.decode())
        json.dumps(params, ensure_ascii=False).encode()  # Half a surrogate pair: PHP refuses it.
    except (ValueError, RecursionError):
        return {}
    return params if isinstance(params, dict) else {}


def _from_form(body: bytes) -> dict[str, object]:
    """Read a query string with PHP's ``name[key]`` and ``name[key][]``."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict")
    except ValueError:
        return {}
    params: dict[str, object] = {}
    for name, value in pairs:
        top, *keys = name.replace("]", "").split("[")
        _put(params, [top, *keys], value)
    return params


def _put(into: dict[str, object], keys: list[str], value: str) -> None:
    key, *rest = keys
    inner = into.get(key)
    if not rest:
        into[key] = value
    elif rest == [""]:
        into[key] = [*(inner if isinstance(inner, list) else []), value]
    else:
        inner = inner if isinstance(inner, dict) else {}
        into[key] = inner
        _put(inner, rest, value)


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


class _Control:
    def __init__(self, portal: SandboxPortal) -> None:
        self._portal = portal

    async def switches(self, request: Request) -> Response:
        if request.method == "PATCH":
            try:
                self._portal.patch(_object(await request.body()))
            except ValidationError as error:
                wrong = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
                return _reply({"error": "; ".join(wrong)}, 400)
            except ValueError as error:
                return _reply({"error": str(error)}, 400)
        return _reply(self._portal.switches.model_dump())

    async def calls(self, request: Request) -> Response:
        if request.method == "DELETE":
            self._portal.forget_calls()
        since = request.query_params.get("since", "0")
        if not since.isdecimal():
            return _reply({"error": "since: write how many calls you have seen"}, 400)
        return _reply([asdict(call) for call in self._portal.calls[int(since) :]])

    async def requests(self, request: Request) -> Response:
        if request.method == "DELETE":
            self._portal.tally = Tally()
        tally = self._portal.tally
        return _reply({**vars(tally), "arrivals": list(tally.arrivals)})


def _object(body: bytes) -> dict[str, object]:
    try:
        changes = json.loads(body)
    except ValueError as error:
        raise ValueError(f"this is no JSON: {error}") from error
    if not isinstance(changes, dict):
        raise ValueError("write a JSON object of switches")  # noqa: TRY004
    return changes


def _reply(content: object, status: int = 200) -> Response:
    return Response(json.dumps(content), status, media_type="application/json")

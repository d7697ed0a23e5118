"""Seen from outside over HTTP: is it alive, is it ready, and its metrics."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import structlog
import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from consumer.metrics import REGISTRY

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  # a probe comes from outside the container
LOOPBACK = ("127.0.0.1", "::1")
NOT_THIS_MACHINES = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """The state of one part of the worker: *ok*, and a few words."""

    ok: bool
    detail: str


Parts = Callable[[], dict[str, Part]]


def build_app(parts: Parts) -> Starlette:
    """Serve `/livez`, `/readyz` and `/metrics`; *parts* tells how things are right now."""

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(_: Request) -> Response:
        now = parts()
        ready = all(part.ok for part in now.values())
        detail = {name: {"ok": part.ok, "detail": part.detail} for name, part in now.items()}
        return JSONResponse(
            {"status": "ready" if ready else "not ready"} | detail, 200 if ready else 503
        )

    async def metrics(request: Request) -> Response:
        # Only OpenMetrics, which Prometheus asks for, has exemplars.
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(REGISTRY), headers={"Content-Type": content_type})

    return Starlette(
        routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]
    )


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the worker, which has calls to finish first."""
        yield


def listen(hosts: Iterable[str], port: int) -> list[socket.socket]:
    """Listen at those of *hosts* that this machine has: it may be without IPv4 or IPv6.

    Args:
        hosts: Names and addresses.
        port: 0 takes a free one, the same for all.

    Raises:
        OSError: The port is taken, or none of them is this machine's.
    """
    listeners: list[socket.socket] = []
    missing: OSError | None = None
    with ExitStack() as opened:
        for family, address in [each for host in hosts for each in _addresses(host)]:
            try:
                listener = socket.create_server((address, port), family=family)
            except OSError as error:
                if error.errno not in NOT_THIS_MACHINES:
                    raise
                missing = error
            else:
                port = listener.getsockname()[1]
                listeners.append(opened.enter_context(listener))
        if missing is not None and not listeners:
            raise missing
        opened.pop_all()
    return listeners


def _addresses(host: str) -> list[tuple[int, str]]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return sorted({(int(family), str(address[0])) for family, _, _, _, address in found})


async def serve(port: int, parts: Parts) -> None:
    """Serve until cancelled; if the port is taken, the worker goes on and logs it."""
    try:
        listeners = listen(EVERYWHERE, port)
    except OSError as error:
        log.warning(
            "http.off",
            port=port,
            reason=os.strerror(error.errno or 0),
            advice="set CALLS_HTTP_PORT",
        )
        return
    config = uvicorn.Config(build_app(parts), log_config=None, access_log=False, lifespan="off")
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=listeners))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        # It closes its sockets itself: the loop would go on watching those closed by another,
        # and be deaf on whichever connection gets the number of one.
        server.should_exit = server.force_exit = True
        await serving
        raise

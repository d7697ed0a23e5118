"""Seen from outside over HTTP: is it alive, is it ready, and its metrics."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from consumer.metrics import REGISTRY

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """How one part of the worker is: *ok*, and a word on it."""

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

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Starlette(
        routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]
    )


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the worker, which has calls to finish first."""
        yield


async def serve(port: int, parts: Parts) -> None:
    """Serve until cancelled; a port that cannot be had costs a log line, not the worker."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("0.0.0.0", port))  # noqa: S104  # a probe comes from outside the container
    except OSError as error:
        listener.close()
        log.warning("http.off", port=port, why=error.strerror, advice="set CALLS_HTTP_PORT")
        return
    config = uvicorn.Config(build_app(parts), log_config=None, access_log=False, lifespan="off")
    server = _Server(config)
    try:
        await server.serve(sockets=[listener])
    except asyncio.CancelledError:
        server.should_exit = True
        raise
    finally:
        listener.close()

"""Links to servers that a test can cut and freeze."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from yarl import URL

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator


@dataclass
class Link:
    """A TCP proxy in front of a server: cut it, or freeze it so that both ends see silence."""

    target: URL
    url: str = ""
    flows: asyncio.Event = field(default_factory=asyncio.Event)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    used: bool = False
    refuses: bool = False
    """Whether new connections are reset at once, as by a proxy whose server is away."""

    def cut(self) -> None:
        """Reset every connection; new ones are let through."""
        for writer in list(self.writers):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.used = True
        if self.refuses:
            writer.transport.abort()
            return
        there = await asyncio.open_connection(self.target.host, self.target.port or 5672)
        for source, sink in ((reader, there[1]), (there[0], writer)):
            self.writers.add(sink)
            task = asyncio.create_task(self._pump(source, sink))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self.flows.wait()
                sink.write(data)
                await sink.drain()
        self.writers.discard(sink)
        sink.close()


@asynccontextmanager
async def linked(
    url: str, tls: ssl.SSLContext | None = None, *, port: int = 0
) -> AsyncIterator[Link]:
    """Put a link in front of the server at *url*, perhaps at a port or one that speaks TLS."""
    proxy = Link(URL(url))
    proxy.flows.set()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    proxy.url = str(URL(url).with_host("127.0.0.1").with_port(port))
    yield proxy
    server.close()
    proxy.flows.set()
    proxy.cut()
    await asyncio.gather(*proxy.tasks)

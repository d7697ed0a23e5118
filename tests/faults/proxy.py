"""A TCP proxy on loopback that cuts, freezes and delays."""

import asyncio
import socket
import struct
from collections import deque
from types import TracebackType
from typing import Self

CHUNK = 65_536


class Proxy:
    """Stands between a client and a server, as an async context manager.

    Args:
        to_ports: Where it leads to: if to several, to each in turn that listens.
        late: Whether a thaw lets through what a client sent that has given up since, as a network
            does that was parted for a while.

    Attributes:
        port: Where it listens.
        delay_s: How long each piece of an answer is held back.
    """

    def __init__(self, *to_ports: int, late: bool = False) -> None:
        self.port = 0
        self.delay_s = 0.0
        self._to_ports = deque(to_ports)
        self._late = late
        self._there, self._back = asyncio.Event(), asyncio.Event()
        self.thaw()
        self._links: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def freeze(self, *, only_answers: bool = False) -> None:
        """Let nothing through in either direction, or no answer, and let no one notice."""
        self._back.clear()
        if not only_answers:
            self._there.clear()

    def thaw(self) -> None:
        """Let through what waited, save (unless *late*) on links given up since."""
        self._there.set()
        self._back.set()

    def cut(self) -> None:
        """Reset every link; new ones are welcome."""
        for writer in list(self._links):
            _reset(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("asyncio accepts in tasks")
        self._tasks.add(task)
        try:
            await self._link(reader, writer)
        except asyncio.CancelledError:
            pass  # the proxy is closing
        finally:
            self._tasks.discard(task)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._links.add(writer)
        try:
            await self._there.wait()
            there, onward = await self._onward()
        except OSError:
            _reset(writer)
            self._links.discard(writer)
            return
        self._links.add(onward)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pipe(reader, onward, self._there))
                both.create_task(self._pipe(there, writer, self._back))
        finally:
            for end in (writer, onward):
                self._links.discard(end)
                end.close()

    async def _onward(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        refused: OSError | None = None
        for _ in range(len(self._to_ports)):
            self._to_ports.rotate(-1)
            try:
                return await asyncio.open_connection("127.0.0.1", self._to_ports[0])
            except OSError as error:
                refused = error
        raise refused or OSError("it leads nowhere")

    async def _pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, thawed: asyncio.Event
    ) -> None:
        try:
            while data := await reader.read(CHUNK):
                if not thawed.is_set():
                    await thawed.wait()
                    if reader.at_eof() and not self._late:
                        break
                if thawed is self._back and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
            await thawed.wait()
        except OSError:
            _reset(writer)
        else:
            writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

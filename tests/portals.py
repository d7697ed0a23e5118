"""A mock of the portal, as anybody writes one."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ForeignPortal:
    """A mock as anybody writes one: knows startwithtext only, and one CALL_ID.

    Attributes:
        answers: What a number is answered with, in order; the last one stays.
        asked: The parameters of every call so far.
        arrived: Set by each call; clear it to wait for the next.
        may_answer: Cleared, it holds every answer back.
    """

    url: str = ""
    answers: dict[str, list[bytes]] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    @staticmethod
    def reply(status: int, body: bytes | dict[str, Any], *headers: str) -> bytes:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}", *headers]
        return "\r\n".join([*head, "Connection: close", "", ""]).encode() + content

    def dialled(self, number: str) -> int:
        """Count the calls to *number*."""
        return sum(call["TO_NUMBER"] == number for call in self.asked)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = re.search(r"content-length: (\d+)", head)
            body = await reader.readexactly(int(length[1]) if length else 0)
            writer.write(await self._answer(head, body))
            await writer.drain()
        writer.close()

    async def _answer(self, head: str, body: bytes) -> bytes:
        if "startwithtext" not in head:
            return self.reply(404, b"Not Found")
        call = json.loads(body)
        self.asked.append(call)
        self.arrived.set()
        await self.may_answer.wait()
        scripted = self.answers.get(call["TO_NUMBER"])
        if scripted:
            return scripted.pop(0) if len(scripted) > 1 else scripted[0]
        return self.reply(200, {"result": {"RESULT": True, "CALL_ID": "always-the-same"}})

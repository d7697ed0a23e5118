"""A worker's life: its process, and what it says."""

import asyncio
import json
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from tests.faults.launcher import DIALS

BLOCKED = "calls.blocked"
NEVER = float("inf")
POLL_S = 0.1
WAIT_S = 120.0


class Worker:
    """A worker in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log
        self.begun = time.time()

    @property
    def runs(self) -> bool:
        return self.process.returncode is None

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def ended(self, within_s: float = WAIT_S) -> int | None:
        """Return its exit code, negative if a signal ended it; None if it goes on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                return await self.process.wait()
        return None

    async def terminated(self, within_s: float = WAIT_S) -> int | None:
        self.send(signal.SIGTERM)
        return await self.ended(within_s)

    async def up(self, within_s: float = WAIT_S) -> bool:
        """Wait until it consumes."""
        return await until(lambda: bool(self.said("worker.ready")), within_s)

    async def frozen(self, within_s: float = WAIT_S) -> bool:
        """Wait until it has stopped itself."""
        status = Path(f"/proc/{self.process.pid}/stat")
        return await until(lambda: status.read_text().rsplit(")")[-1].split()[0] == "T", within_s)

    def lines(self) -> list[dict[str, object]]:
        """Return its log."""
        lines: list[dict[str, object]] = []
        for line in self.log.read_text().splitlines():
            with suppress(ValueError):  # killed in the middle of a line, or a traceback
                lines.append(json.loads(line))
        return lines

    def said(self, event: str, since: float = 0.0) -> list[dict[str, object]]:
        return [
            line
            for line in self.lines()
            if line.get("event") == event and moment(line.get("timestamp")) >= since
        ]

    def dials(self) -> list[float]:
        """Return when it was about to ask the portal for a call, in Unix seconds."""
        return [moment(line["timestamp"]) for line in self.said(DIALS)]

    def blocks(self) -> list[tuple[float, float]]:
        """Return from when to when the portal let it place no call, in Unix seconds."""
        begun = [(moment(line["timestamp"]), line["block_s"]) for line in self.said(BLOCKED)]
        return [(at, at + for_s) for at, for_s in begun if isinstance(for_s, int | float)]

    def ready_s(self) -> float:
        """Return how long it took from its start until it consumed."""
        ready = self.said("worker.ready")
        return moment(ready[0]["timestamp"]) - self.begun if ready else 0.0


def moment(timestamp: object) -> float:
    return datetime.fromisoformat(timestamp).timestamp() if isinstance(timestamp, str) else NEVER


async def until(holds: Callable[[], bool], within_s: float = WAIT_S) -> bool:
    """Wait until *holds*; tell whether it did in time."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_S / 5)
    return True

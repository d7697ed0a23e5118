"""How far a command is: one line on stderr, for a person, once it takes long."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from consumer.output import is_terminal, write

AFTER_S = 2.0
"""What takes no longer needs no line."""
EVERY_S = 0.2
MINUTE_S = 60


class Progress:
    """One line about what is being done; none where stderr is no terminal. Gone at the end.

    Args:
        doing: What, in words.
        total: How many there are to do; 0 while that is not known.
    """

    def __init__(self, doing: str, total: int = 0) -> None:
        self._doing = doing
        self._total = total
        self._done = 0
        self._width = 0
        self._shown = is_terminal(sys.stderr)
        self._began = time.monotonic()
        self._next = self._began + AFTER_S

    async def __aenter__(self) -> Self:
        """Show the line from time to time, also while nothing gets done."""
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Take the line away."""
        self._ticking.cancel()
        self._erase()

    def note(self, done: int, total: int) -> None:
        """Note that so many are done, of about so many."""
        self._done, self._total = done, max(done, total)
        self._draw_if_due()

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count one more; within, other lines may be written to the terminal."""
        width = self._width
        self._erase()
        yield
        self.note(self._done + 1, self._total)
        if width and not self._width:
            self._draw()

    async def _tick(self) -> None:
        while self._shown:
            await asyncio.sleep(EVERY_S)
            self._draw_if_due()

    def _draw_if_due(self) -> None:
        if self._shown and time.monotonic() >= self._next:
            self._draw()

    def _draw(self) -> None:
        now = time.monotonic()
        self._next = now + EVERY_S
        line = f"{self._doing}: {self._done:,} of {self._total:,}{self._left(now)}"
        if not self._total:
            line = self._doing
        self._write(f"\r{line.ljust(self._width)}")
        self._width = len(line)

    def _left(self, now: float) -> str:
        if not 0 < self._done < self._total:
            return ""
        left_s = (now - self._began) / self._done * (self._total - self._done)
        about = f"{left_s / MINUTE_S:.0f} min" if left_s > 2 * MINUTE_S else f"{left_s:.0f} s"
        return f", about {about} left"

    def _erase(self) -> None:
        if self._width:
            self._write(f"\r{' ' * self._width}\r")
            self._width = 0

    @staticmethod
    def _write(text: str) -> None:
        with suppress(OSError):  # what matters is said, or fails, elsewhere
            write(sys.stderr, text)

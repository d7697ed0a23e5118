"""The moment from which a new ledger knows every message that is delivered."""

import asyncio

from consumer.interruptible import Interruptible
from consumer.ledger.ledger import Ledger


class Beginning:
    """Notices the first message that was delivered only after the ledger was made.

    Messages that were delivered before come first, and must be recorded by then: the worker that
    had them may have dialled.
    """

    def __init__(self, ledger: Ledger, waits: Interruptible) -> None:
        self._ledger = ledger
        self._waits = waits
        self._handed_out: set[asyncio.Task[object]] = set()

    def note_handed_out(self, task: asyncio.Task[object] | None) -> None:
        """Note that *task* works on a message that was handed out before."""
        if task is not None:
            self._handed_out.add(task)
            task.add_done_callback(self._handed_out.discard)

    async def note_first(self) -> None:
        """Note that a message has come that was not handed out before."""
        if await self._ledger.has_begun():
            return
        before = set(self._handed_out)
        if before:
            with self._waits:
                await asyncio.wait(before)
        if not any(task.cancelled() or task.exception() for task in before):
            await self._ledger.begin()

"""What happens while the ledger cannot be written: nothing is dialled, until it can."""

import asyncio
from typing import Protocol

import structlog

from consumer.ledger.ledger import Ledger
from consumer.ledger.store import LedgerDown

RETRY_S = 1.0

log = structlog.get_logger(__name__)


class Intake(Protocol):
    """What is stopped meanwhile."""

    @property
    def held_by(self) -> set[str]:
        """Why no messages are taken."""

    def hold(self, reason: str) -> None:
        """Take no more messages, until *reason* is released."""

    def release(self, reason: str) -> None:
        """Take messages again."""


class Recovery:
    """Waits for the ledger, for all who need it."""

    def __init__(self, ledger: Ledger, intake: Intake) -> None:
        self._ledger = ledger
        self._intake = intake
        self._asking = asyncio.Lock()

    async def wait(self, error: LedgerDown) -> None:
        """Take no messages until the ledger can be written again."""
        log.error("ledger.down", why=str(error))
        self._intake.hold("ledger")
        async with self._asking:  # one asks for all: each try may block the event loop
            while "ledger" in self._intake.held_by:
                await asyncio.sleep(RETRY_S)
                try:
                    await self._ledger.check_writable()
                except LedgerDown:
                    continue
                self._intake.release("ledger")

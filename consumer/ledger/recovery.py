"""What happens while the ledger cannot be written: nothing is dialled, until it can."""

import asyncio
from contextlib import suppress
from typing import Protocol

import structlog

from consumer.ledger.ledger import Ledger
from consumer.ledger.store import LedgerDown

RETRY_S = 1.0

log = structlog.get_logger(__name__)


class Subscription(Protocol):
    """What is stopped meanwhile."""

    def pause(self, reason: str) -> None:
        """Take no more messages, until *reason* is released."""

    def resume(self, reason: str) -> None:
        """Take messages again."""


class Recovery:
    """Waits for the ledger, for all who need it."""

    def __init__(self, ledger: Ledger, subscription: Subscription) -> None:
        self._ledger = ledger
        self._subscription = subscription
        self._asking: asyncio.Task[None] | None = None

    async def wait(self, error: LedgerDown) -> None:
        """Take no messages until the ledger can be written again."""
        log.error("ledger.down", reason=str(error))
        self._subscription.pause("ledger")
        if self._asking is None or self._asking.done():
            # Who waits may be given up with its link; the subscription is released all the same.
            self._asking = asyncio.create_task(self._ask())
        await asyncio.shield(self._asking)

    def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self) -> None:
        """Ask for all until it can be written: each try may block the event loop."""
        while True:
            await asyncio.sleep(RETRY_S)
            with suppress(LedgerDown):
                await self._ledger.check_writable()
                self._subscription.resume("ledger")
                return

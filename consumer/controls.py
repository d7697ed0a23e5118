"""What operators say, as this worker knows it: the ledger keeps it, every worker obeys it."""

import asyncio
from contextlib import suppress
from typing import Protocol

import structlog

from consumer import metrics
from consumer.blocks import Blocks
from consumer.ledger import LedgerDown
from consumer.ledger.controls import Controls, ControlsTable

REASON = "operator"
REFRESH_S = 1.0

log = structlog.get_logger(__name__)


class Subscription(Protocol):
    """Where messages come from."""

    def pause(self, reason: str) -> None:
        """Take no more messages."""

    def resume(self, reason: str) -> None:
        """Take messages again."""


class LiveControls:
    """Holds the subscription while calls are paused by hand.

    Nobody depends on how fast this learns of a change: a claim names the version it knows, and the
    ledger refuses it where there is a later one.
    """

    def __init__(self, table: ControlsTable, subscription: Subscription) -> None:
        self._table = table
        self._subscription = subscription
        self.current = Controls()
        self.blocks = Blocks()
        metrics.PAUSED.labels(REASON).set(0)

    async def run(self) -> None:
        """Refresh for ever."""
        while True:
            with suppress(LedgerDown):  # then nothing is dialled in any case
                await self.refresh()
            await asyncio.sleep(REFRESH_S)

    async def refresh(self) -> None:
        """Learn what operators have said since.

        Raises:
            LedgerDown: It cannot be told.
        """
        if await self._table.version() == self.current.version:
            return
        was, self.current = self.current, await self._table.read()
        self.blocks = Blocks(self.current.blocks)
        if len(self.current.blocks) != len(was.blocks):
            log.info("controls.blocks", blocks=len(self.current.blocks))
        if (self.current.pause is None) != (was.pause is None):
            self._obey()

    def _obey(self) -> None:
        pause = self.current.pause
        metrics.PAUSED.labels(REASON).set(pause is not None)
        if pause is None:
            log.info("controls.resumed")
            self._subscription.resume(REASON)
        else:
            log.warning("controls.paused", cause=pause.reason, by=pause.by)
            self._subscription.pause(REASON)

    @property
    def paused(self) -> bool:
        """Whether an operator has paused all calls."""
        return self.current.pause is not None

    @property
    def detail(self) -> str:
        """Say who paused the calls and why; empty if nobody did."""
        pause = self.current.pause
        return f"paused by {pause.by}: {pause.reason}" if pause else ""

"""What operators say, as this worker knows it: the ledger keeps it, every worker obeys it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import structlog

from consumer import metrics
from consumer.blocks import Blocks
from consumer.ledger import LedgerDown
from consumer.ledger.controls import Controls, ControlsTable
from consumer.rabbitmq.losses import BrokerUnavailable

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

    Args:
        table: Where the ledger keeps them.
        subscription: Held while calls are paused.
        waiting: Asks the broker how many requests wait.
    """

    def __init__(
        self,
        table: ControlsTable,
        subscription: Subscription,
        waiting: Callable[[], Awaitable[int]],
    ) -> None:
        self._table = table
        self._subscription = subscription
        self._waiting = waiting
        self._is_known = False
        self._has_new_blocks = False
        self._to_sort_out = 0
        self.current = Controls()
        self.blocks = Blocks()
        metrics.PAUSED.labels(REASON).set(0)

    async def run(self) -> None:
        """Refresh for ever."""
        while True:
            with suppress(LedgerDown):  # then nothing is dialled in any case
                await self.refresh()
            with suppress(BrokerUnavailable):
                await self._begin_to_sort_out()
            await asyncio.sleep(REFRESH_S)

    async def refresh(self) -> None:
        """Learn what operators have said since.

        Raises:
            LedgerDown: It cannot be told.
        """
        at_start, self._is_known = not self._is_known, True
        if await self._table.version() == self.current.version:
            return
        was, self.current = self.current, await self._table.read()
        self.blocks = Blocks(self.current.blocks)
        if self.current.blocks != was.blocks:
            log.info("controls.blocks", blocks=len(self.current.blocks))
            self._has_new_blocks = not at_start and not set(self.current.blocks) <= set(was.blocks)
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

    async def _begin_to_sort_out(self) -> None:
        """Look at all that waits now, once, for what a new block forbids."""
        if self._has_new_blocks and not self.paused:
            self._to_sort_out = await self._waiting()
            self._has_new_blocks = False
            log.info("controls.sorting", requests=self._to_sort_out)

    def must_let_pass(self) -> bool:
        """Tell whether a request that no block forbids is to make way for those behind it.

        Those that are blocked must not wait for the calls of the others in front of them. True once
        for each request that waited when the latest block came.
        """
        self._to_sort_out = max(0, self._to_sort_out - 1)
        return self._to_sort_out > 0

    @property
    def paused(self) -> bool:
        """Whether an operator has paused all calls."""
        return self.current.pause is not None

    @property
    def detail(self) -> str:
        """Say who paused the calls and why; empty if nobody did."""
        pause = self.current.pause
        return f"paused by {pause.by}: {pause.reason}" if pause else ""

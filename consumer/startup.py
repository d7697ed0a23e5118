"""The steps of a start, each tried until it works: broker and ledger may come later than we do."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

import structlog

from consumer.ledger import LedgerDown, WrongLedger
from consumer.rabbitmq.declaration import WrongTopology
from consumer.rabbitmq.lease import OtherLedger
from consumer.rabbitmq.losses import BrokerUnavailable, link_losses
from consumer.rabbitmq.refusals import LoginRefused

RETRY_S = 1.0
FIRST_SILENCE_S = 10.0
LONGEST_SILENCE_S = 300.0
LASTING = (LoginRefused, WrongTopology, WrongLedger)
"""What no waiting fixes."""

log = structlog.get_logger(__name__)


class Startup:
    """Takes one step after the other.

    Args:
        wait_s: How long to try altogether; 0 to try each step once.
    """

    def __init__(self, wait_s: float = math.inf) -> None:
        self._wait_s = wait_s
        self._began = time.monotonic()
        self._silence_s = 0.0
        self._said_at = -math.inf
        self.waits_for: tuple[str, str] | None = None
        """Which step has failed, and what went wrong, until it works."""

    async def take(self, what: str, step: Callable[[], Awaitable[object]]) -> None:
        """Take a step, again and again until it works.

        Raises:
            BrokerUnavailable, LedgerDown, OtherLedger: It did not in time.
            LoginRefused, WrongTopology, WrongLedger: It never will.
        """
        while True:
            try:
                with link_losses():
                    await step()
            except LASTING:
                raise
            except (LedgerDown, OtherLedger, BrokerUnavailable) as error:
                self.waits_for = (what, str(error))
                if time.monotonic() - self._began >= self._wait_s:
                    raise
                self._say(what, str(error))
                await asyncio.sleep(RETRY_S)
            else:
                self.waits_for = None
                return

    def _say(self, what: str, reason: str) -> None:
        """Log what is waited for, less and less often."""
        if time.monotonic() - self._said_at >= self._silence_s:
            log.warning("worker.waiting", what=what, reason=reason)
            self._said_at = time.monotonic()
            self._silence_s = min(max(self._silence_s * 2, FIRST_SILENCE_S), LONGEST_SILENCE_S)

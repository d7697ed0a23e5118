"""What operators do with dead letters, noted in the ledger, so that `show` can tell it."""

import time
from contextlib import AsyncExitStack
from typing import Self

from consumer.ledger import Ledger, LedgerDown
from consumer.ledger.letter_acts import LetterAct
from consumer.operations.dead_letter import DeadLetter
from consumer.operations.ledger_at_hand import ledger_at_hand
from consumer.settings import Settings


class Notes:
    """Notes each act before it is done; nothing, where the ledger is not at hand here.

    Args:
        settings: Where the ledger is.
        who: Who acts.
    """

    def __init__(self, settings: Settings, who: str) -> None:
        self._settings = settings
        self._who = who
        self._ledger: Ledger | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open the ledger, if there is one."""
        try:
            self._ledger = await self._stack.enter_async_context(ledger_at_hand(self._settings))
        except LedgerDown:
            self._ledger = None
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self._stack.aclose()

    async def replayed(self, letter: DeadLetter) -> None:
        """Note that a dead letter is sent back."""
        await self._note(
            LetterAct(
                request_id=letter.id,
                act="replayed",
                replay=letter.replay + 1,
                done_at=time.time(),
                done_by=self._who,
            )
        )

    async def discarded(self, letter: DeadLetter, why: str) -> None:
        """Note that a dead letter is removed for good."""
        await self._note(
            LetterAct(
                request_id=letter.id,
                act="discarded",
                replay=letter.replay,
                done_at=time.time(),
                done_by=self._who,
                reason=why,
            )
        )

    async def _note(self, act: LetterAct) -> None:
        if self._ledger is None:
            return
        try:
            await self._ledger.letter_acts.note(act)
        except LedgerDown:
            self._ledger = None  # to try for each would hold up the rest

"""The note that says: about to dial. It is on disk before the call."""

import time
from uuid import uuid4

from consumer.delivery import Delivery
from consumer.interruptible import Interruptible
from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.ledger.ages import Ages
from consumer.ledger.recovery import Recovery
from consumer.messages import CallRequested
from consumer.steps import claim


class Claims:
    """Writes this process's claims.

    Attributes:
        owner: Tells this process from all others.
    """

    def __init__(
        self, ledger: Ledger, ages: Ages, recovery: Recovery, waits: Interruptible
    ) -> None:
        self._ledger = ledger
        self._ages = ages
        self._recovery = recovery
        self._waits = waits
        self.owner = str(uuid4())

    def draft(self, delivery: Delivery, call: CallRequested, attempt: int, replay: int) -> Entry:
        """Return the entry of an attempt to be made, counting from 1."""
        return Entry(
            request_id=delivery.request_id,
            state="placing",
            attempt=attempt,
            replay=replay,
            owner=self.owner,
            first_seen_at=delivery.headers.first_seen_at.timestamp(),
            changed_at=time.time(),
            line=call.from_line,
            clock_offset_s=self._ages.clock_offset_s(),
            body_digest=self._ledger.digest(delivery.fields),
            target_digest=self._ledger.digest(call.to_number, call.from_line),
        )

    async def write(self, draft: Entry, was: Entry | None) -> Entry | None:
        """Write a claim in place of *was*; return None if somebody else was faster.

        Where the ledger goes down in the middle, find out whether the claim is there.
        """
        claimed = claim(draft, was, time.time())
        while True:
            try:
                if was is not None and was.state == "started":
                    await self._ledger.remember_call(was)
                return await self._ledger.put(claimed, was)
            except LedgerDown as error:
                with self._waits:
                    await self._recovery.wait(error)

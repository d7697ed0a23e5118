"""Whether a request may be dialled now: our own rules, then the claim in the ledger.

A claim is the ledger's word that nobody else dials, and that nobody has forbidden it.
"""

import asyncio
import time
from dataclasses import replace

from consumer.controls import LiveControls
from consumer.decision import Failure
from consumer.delivery import Delivery
from consumer.entries import claim, expire, forbid, schedule
from consumer.interruptible import Interruptible
from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.ledger.ages import Ages
from consumer.ledger.recovery import Recovery
from consumer.limits.calling_hours import CallingHours
from consumer.limits.own_rules import OwnRules
from consumer.messages import CallRequested

DAY_S = 86_400.0


class Claims:
    """Says what speaks against an attempt, and claims it where nothing does.

    Args:
        owner: This process.
    """

    def __init__(  # noqa: PLR0913  # who may have a say
        self,
        *,
        owner: str,
        ledger: Ledger,
        ages: Ages,
        recovery: Recovery,
        controls: LiveControls,
        rules: OwnRules,
        hours: CallingHours,
        waits: Interruptible,
    ) -> None:
        self.owner = owner
        self._ledger = ledger
        self._ages = ages
        self._recovery = recovery
        self._controls = controls
        self._rules = rules
        self._hours = hours
        self._waits = waits
        self._counting = asyncio.Lock()

    def draft(self, delivery: Delivery, call: CallRequested, attempt: int, replay: int) -> Entry:
        """Return the entry of an attempt that may be made."""
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
            number_digest=self._ledger.digest(call.to_number),
        )

    def ruled_out(self, call: CallRequested, draft: Entry, was: Entry | None) -> Entry | None:
        """Return what becomes of an attempt that is not to be made, or not now.

        Args:
            call: What would be dialled.
            draft: The attempt.
            was: What the ledger holds.
        """
        now = time.time()
        begin = max(now, call.not_before_s)
        opens_at = begin if call.urgent else self._hours.opens_at(begin, call.time_zone)
        if call.has_expired(opens_at):
            return expire(draft, was)
        if (blocked := self.blocked(call, draft)) is not None:
            return blocked
        if opens_at > now:
            return schedule(draft, was, opens_at, now, calling_hours=opens_at > begin)
        return None

    def blocked(self, call: CallRequested, draft: Entry, dialled: int = 0) -> Entry | None:
        """Return what becomes of a request that one of our own rules forbids.

        Args:
            call: What would be dialled.
            draft: The attempt.
            dialled: How many calls the number has had within a day.
        """
        blocked = self._rules.check(call, self._controls.blocks, draft.number_digest, dialled)
        if blocked is None:
            return None
        return forbid(draft, "blocked", Failure(blocked.code, blocked.description))

    def must_let_pass(self) -> bool:
        """Tell whether a request is to make way for blocked ones behind it."""
        return self._controls.must_let_pass()

    async def claim(self, call: CallRequested, draft: Entry, was: Entry | None) -> Entry | None:
        """Write down that we are about to dial, however long that takes.

        Returns:
            The claim; or what becomes of it, as `blocked` says; or None if somebody has changed the
            entry, taken the request back, or changed the controls meanwhile: look again.
        """
        while True:
            try:
                if not self._rules.max_per_number:
                    return await self._claim(draft, was)
                async with self._counting:  # or two calls to a number would not count each other
                    since = time.time() - DAY_S
                    dialled = await self._ledger.search.calls_to_number(draft, since)
                    return self.blocked(call, draft, dialled) or await self._claim(draft, was)
            except LedgerDown as error:
                with self._waits:
                    await self._recovery.wait(error)

    async def _claim(self, draft: Entry, was: Entry | None) -> Entry | None:
        if was is not None and was.state == "started":
            await self._ledger.earlier.remember_call(was)
        known = self._controls.current.version
        claimed = await self._ledger.claim(claim(draft, was, time.time()), was, known)
        if claimed is None:
            await self._controls.refresh()
        return claimed

    def free(self, claimed: Entry) -> Entry:
        """Return the entry of a claim that was not dialled: whoever gets it next may do so."""
        return replace(claimed, state="delayed", due_at=claimed.changed_at)

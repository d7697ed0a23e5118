"""One attempt to call: our own rules, the turn, the claim in the ledger, then the call.

A claim is the ledger's word that nobody else dials, and that nobody has forbidden it.
"""

import asyncio
import time

from consumer import metrics, tracing
from consumer.bitrix24.portal import CONNECT_TIMEOUT_S
from consumer.caller import Caller, Turn
from consumer.controls import LiveControls
from consumer.decision import Failure
from consumer.delivery import Delivery
from consumer.interruptible import Interruptible
from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.ledger.ages import Ages
from consumer.ledger.changes import about_to_dial
from consumer.ledger.recovery import Recovery
from consumer.limits.calling_hours import CallingHours
from consumer.limits.own_rules import OwnRules
from consumer.messages import CallRequested, Invalid
from consumer.results import (
    Decided,
    Doubted,
    Expired,
    Forbidden,
    Freed,
    LetPass,
    Postponed,
    Rejected,
    Result,
    Scheduled,
)

DAY_S = 86_400.0
STALE_CLAIM_S = 2 * CONNECT_TIMEOUT_S
"""Nothing is sent on an older claim: this process slept, and another may have taken over."""


class Attempts:
    """Makes attempts, where nothing speaks against them.

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
        caller: Caller,
        controls: LiveControls,
        rules: OwnRules,
        hours: CallingHours,
        waits: Interruptible,
    ) -> None:
        self.owner = owner
        self._ledger = ledger
        self._ages = ages
        self._recovery = recovery
        self._caller = caller
        self._controls = controls
        self._rules = rules
        self._hours = hours
        self._waits = waits
        self._counting = asyncio.Lock()

    async def make(
        self, delivery: Delivery, was: Entry | None, attempt: int, replay: int
    ) -> Result | None:
        """Wait for the turn, claim, dial at once; unless a rule of our own says not, or not yet.

        Args:
            delivery: The message that asks for it.
            was: What the ledger holds.
            attempt: Which attempt this is, counting from 1.
            replay: Of which replay.

        Returns:
            What came of it; None where the entry, or what operators say, has changed meanwhile.

        Raises:
            GivenBack: Nothing may be dialled now.
        """
        call = delivery.request
        if isinstance(call, Invalid):
            return Rejected(call, forget=was)
        draft = self._draft(delivery, call, attempt, replay)
        if (ruled_out := await self._ruled_out(call, draft, was)) is not None:
            return ruled_out
        self._caller.check()
        if not self._caller.is_free() and self._controls.must_let_pass():
            return LetPass()
        with self._waits:
            turn = await self._caller.turn()
        known = self._controls.current.version  # and all below is asked under no earlier one
        self._caller.check()
        if (ruled_out := await self._ruled_out(call, draft, was)) is not None:
            return ruled_out
        send_before = time.monotonic() + STALE_CLAIM_S
        claimed = await self._claim(call, draft, was, known)
        if not isinstance(claimed, Entry):
            return claimed
        return await self._dial(call, claimed, turn, send_before)

    async def _dial(
        self, call: CallRequested, claimed: Entry, turn: Turn, send_before: float
    ) -> Freed | Decided:
        """Dial what is claimed, unless that has become too late."""
        if time.monotonic() > send_before or self._caller.stopping:
            return Freed(claimed)
        metrics.AGE.observe(claimed.claimed_at - max(claimed.first_seen_at, call.not_before_s))
        decision = await self._caller.place(call, claimed.attempt, turn, send_before=send_before)
        return Decided(claimed, decision, call.expires_at_s)

    def doubt(self, delivery: Delivery) -> Result:
        """Say that an attempt of which the ledger knows nothing may have been made."""
        call, headers = delivery.request, delivery.headers
        if isinstance(call, Invalid):
            return Rejected(call)
        draft = self._draft(delivery, call, headers.attempt, headers.replay)
        return Doubted(draft, None, "LEDGER_LOST")

    async def wait(self, delivery: Delivery, entry: Entry, wait_s: float) -> Result:
        """Let a request wait, unless a rule has come meanwhile that forbids it."""
        call = delivery.request
        if isinstance(call, Invalid) or entry.state != "delayed" or entry.unsure_since is not None:
            return Postponed(wait_s, entry)
        draft = self._draft(delivery, call, entry.attempt, entry.replay)
        if draft.body_digest != entry.body_digest or delivery.headers.replay > entry.replay:
            return Postponed(wait_s, entry)  # it is not this content that waits
        return await self._forbidden_still(call, draft, entry) or Postponed(wait_s, entry)

    def _draft(self, delivery: Delivery, call: CallRequested, attempt: int, replay: int) -> Entry:
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
            traceparent=tracing.onward(dict(delivery.headers.trace)).get("traceparent"),
        )

    async def _ruled_out(
        self, call: CallRequested, draft: Entry, was: Entry | None
    ) -> Expired | Forbidden | Scheduled | None:
        """Say why an attempt is not to be made, or not now."""
        now = time.time()
        begin = max(now, call.not_before_s)
        opens_at = begin if call.urgent else self._hours.opens_at(begin, call.time_zone)
        if call.has_expired(opens_at):
            return Expired(draft, was)
        if (forbidden := await self._forbidden_still(call, draft, was)) is not None:
            return forbidden
        if opens_at > now:
            return Scheduled(draft, was, opens_at, calling_hours=opens_at > begin)
        return None

    async def _forbidden_still(
        self, call: CallRequested, draft: Entry, was: Entry | None
    ) -> Forbidden | None:
        """Say which rule forbids a call; a block that an operator has removed does not."""
        if self._forbidden(call, draft, was) is None:
            return None
        await self._controls.refresh()
        return self._forbidden(call, draft, was)

    def _forbidden(
        self, call: CallRequested, draft: Entry, was: Entry | None, dialled: int = 0
    ) -> Forbidden | None:
        """Say which rule forbids a call to a number that was dialled so often within a day."""
        blocked = self._rules.check(call, self._controls.blocks, draft.number_digest, dialled)
        if blocked is None:
            return None
        return Forbidden(draft, was, Failure(blocked.code, blocked.description))

    async def _claim(
        self, call: CallRequested, draft: Entry, was: Entry | None, known: bytes
    ) -> Entry | Forbidden | Freed | None:
        """Write down that we are about to dial, however long that takes.

        Where it took long, a pause or a block may have come since: then all is asked once more.
        """
        entry, waited = about_to_dial(draft, was, time.time()), False
        while True:
            try:
                claimed = await self._write_claim(call, entry, was, known)
            except LedgerDown as error:
                waited = True  # it may be written all the same: to write it again tells
                with self._waits:
                    await self._recovery.wait(error)
            else:
                return Freed(claimed) if waited and isinstance(claimed, Entry) else claimed

    async def _write_claim(
        self, call: CallRequested, entry: Entry, was: Entry | None, known: bytes
    ) -> Entry | Forbidden | None:
        if not self._rules.max_per_number:
            return await self._write(entry, was, known)
        async with self._counting:  # or two calls to a number would not count each other
            dialled = await self._ledger.search.calls_to_number(entry, time.time() - DAY_S)
            forbidden = self._forbidden(call, entry, was, dialled)
            return forbidden or await self._write(entry, was, known)

    async def _write(self, entry: Entry, was: Entry | None, known: bytes) -> Entry | None:
        if was is not None and was.state == "started":
            await self._ledger.earlier.remember_call(was)
        claimed = await self._ledger.claim(entry, was, known)
        if claimed is None:
            await self._controls.refresh()
        return claimed

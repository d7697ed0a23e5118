"""One request: read the ledger, take a step, pass its result to the recorder."""

import asyncio
import time
from dataclasses import replace
from typing import assert_never

import structlog

from consumer import metrics
from consumer.bitrix24.portal import CONNECT_TIMEOUT_S
from consumer.caller import Caller
from consumer.claims import Claims
from consumer.decision import Fail, Retry
from consumer.delivery import Delivery, Unreadable
from consumer.entries import cancel, in_doubt, reopened
from consumer.interruptible import Interruptible
from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.ledger.ages import Ages
from consumer.ledger.beginning import Beginning
from consumer.ledger.entry import UNSEEN_BODY
from consumer.ledger.recovery import Recovery
from consumer.messages import Invalid
from consumer.reconciler import Reconciler
from consumer.recorder import (
    AlreadyKnown,
    Decided,
    Ignored,
    Noted,
    Postponed,
    Reached,
    Recorder,
    Rejected,
    Result,
)
from consumer.steps import (
    Cancelled,
    Due,
    Duplicate,
    IdConflict,
    InDoubt,
    Known,
    NotYet,
    Orphaned,
    Replayed,
    Step,
    Superseded,
    next_step,
)

STALE_CLAIM_S = 2 * CONNECT_TIMEOUT_S
"""Nothing is sent on an older claim: this process slept, and another may have taken over."""

log = structlog.get_logger(__name__)


class Processor:
    """Takes requests through their states: each step returns a result, for the `Recorder`.

    Args:
        timeout_s: How long one call may take.
    """

    def __init__(  # noqa: PLR0913  # the whole of the worker comes together here
        self,
        *,
        ledger: Ledger,
        ages: Ages,
        recovery: Recovery,
        caller: Caller,
        claims: Claims,
        reconciler: Reconciler,
        recorder: Recorder,
        waits: Interruptible,
        timeout_s: float,
    ) -> None:
        self._ledger = ledger
        self._ages = ages
        self._recovery = recovery
        self._caller = caller
        self._claims = claims
        self._reconciler = reconciler
        self._recorder = recorder
        self._undecided_s = timeout_s + 2 * CONNECT_TIMEOUT_S
        self._waits = waits
        self._beginning = Beginning(ledger, self._waits)

    async def process(self, message: Delivery | Unreadable) -> None:
        """Do what *message* asks for, to the point where it can be acknowledged.

        Raises:
            GivenBack: Nothing may be dialled now; the message must go back to its queue.
        """
        if message.redelivered:
            self._beginning.note_handed_out(asyncio.current_task())
        done = False
        while not done:
            try:
                result = (
                    Rejected(message.error)
                    if isinstance(message, Unreadable)
                    else await self._take_step(message)
                )
                done = await self._recorder.carry_out(result, message)
            except LedgerDown as error:
                with self._waits:
                    await self._recovery.wait(error)

    def stop(self) -> None:
        """Dial nothing more that has not begun."""
        self._caller.stopping = True
        self._waits.cancel_all()

    # --- steps: each returns what it came to

    async def _take_step(self, delivery: Delivery) -> Result:
        entry = await self._ledger.get(delivery.request_id)
        if entry is None:
            return await self._begin(delivery)
        known = Known(
            entry=entry,
            age_s=self._ages.age_of(entry),
            now=time.time(),
            own=entry.owner == self._claims.owner,
            undecided_s=self._undecided_s,
        )
        digest = self._ledger.digest(delivery.fields)
        return await self._follow(next_step(known, delivery.headers, digest), entry, delivery)

    async def _follow(self, step: Step, entry: Entry, delivery: Delivery) -> Result:
        match step:
            case IdConflict():
                text = "request_id: another request already has this id, with other content"
                return Rejected(Invalid("request_id_reused", text, delivery.request_id))
            case Superseded():
                return Ignored()
            case Duplicate(asked_again):
                return self._repeat(entry, delivery, asked_again=asked_again)
            case Cancelled():
                return Reached(cancel(entry, delivery.headers.replay, time.time()), entry)
            case NotYet(wait_s):
                return self._wait(delivery, entry, wait_s)
            case Orphaned():
                orphan = replace(entry, owner=self._claims.owner)
                return Noted(in_doubt(orphan, "WORKER_LOST", time.time()), entry)
            case InDoubt():
                return await self._reconcile(entry, delivery)
            case Due():
                return await self._call(delivery, entry, entry.attempt, entry.replay)
            case Replayed():
                return await self._replay(entry, delivery)
        assert_never(step)

    def _repeat(self, entry: Entry, delivery: Delivery, *, asked_again: bool) -> Result:
        """Repeat the event of a closed request, unless that would now tell another number."""
        unseen = entry.body_digest == UNSEEN_BODY
        same = unseen or entry.body_digest == self._ledger.digest(delivery.fields)
        if same or self._is_to_same_number(entry, delivery):
            return AlreadyKnown(entry, asked_again)
        return Ignored()

    async def _begin(self, delivery: Delivery) -> Result:
        """Begin a request that the ledger does not know, believing what its headers say."""
        call, headers = delivery.request, delivery.headers
        if isinstance(call, Invalid):
            return Rejected(call)
        lost = headers.unsure_since is not None and not headers.redial
        if lost or (delivery.redelivered and not await self._ledger.has_begun()):
            # Whoever had it before us may have dialled, and this ledger cannot know.
            draft = self._claims.draft(delivery, call, headers.attempt, headers.replay)
            return Noted(in_doubt(draft, "LEDGER_LOST", time.time()), None)
        if not delivery.redelivered:
            await self._beginning.note_first()
        return await self._call(delivery, None, headers.attempt, headers.replay)

    async def _replay(self, entry: Entry, delivery: Delivery) -> Result:
        """Try again what a person wants tried again; what was in doubt is looked up once more."""
        call, replay = delivery.request, delivery.headers.replay
        if isinstance(call, Invalid):
            return Rejected(call)
        doubt = await self._doubt_about_number(entry, delivery)
        if doubt is not None and not delivery.headers.redial:
            digest = self._ledger.digest(delivery.fields)
            return Noted(reopened(doubt, replay, digest, time.time()), entry)
        return await self._call(delivery, entry, 1, replay)

    async def _doubt_about_number(self, entry: Entry, delivery: Delivery) -> Entry | None:
        """Return the call of this request to its number that may have rung unseen, if any.

        A person may have edited the number since, and edited it back.
        """
        if entry.unsure_since is not None:
            if self._is_to_same_number(entry, delivery):
                return entry
            await self._ledger.earlier.remember_doubt(entry)
        earlier = await self._ledger.earlier.doubts_of(entry.request_id)
        return next((each for each in earlier if self._is_to_same_number(each, delivery)), None)

    def _is_to_same_number(self, entry: Entry, delivery: Delivery) -> bool:
        """Tell whether a request is to the number of *entry*, by whichever line."""
        if not entry.target_digest:
            return True
        number = delivery.call.to_number if delivery.call else None
        return entry.target_digest == self._ledger.digest(number, entry.line)

    async def _reconcile(self, entry: Entry, delivery: Delivery) -> Result:
        """Look a call in doubt up; dial again only if it did not ring, or the rules allow it."""
        call = delivery.request
        if isinstance(call, Invalid):
            # A setting changed, so that its number or line cannot be read any more.
            age_s = self._ages.age_of_doubt(entry)
            return Decided(entry, Fail("unsure", entry.failure), doubt_age_s=age_s)
        self._caller.check()
        with self._waits:
            settled = await self._reconciler.settle(entry, call)
        decision = settled.decision
        if isinstance(decision, Retry) and decision.delay_s <= 0:
            was = replace(entry, unsure_since=None) if settled.rang_not else entry
            return await self._call(delivery, was, decision.attempt, entry.replay)
        return Decided(entry, decision, call.expires_at_s, settled.doubt_age_s)

    async def _call(
        self, delivery: Delivery, was: Entry | None, attempt: int, replay: int
    ) -> Result:
        """Wait for the turn, claim, dial at once; unless a rule of our own says not, or not yet."""
        call = delivery.request
        if isinstance(call, Invalid):
            return Rejected(call, forget=was)
        draft = self._claims.draft(delivery, call, attempt, replay)
        if (ruled_out := self._claims.ruled_out(call, draft, was)) is not None:
            return Reached(ruled_out, was)
        self._caller.check()
        if not self._caller.is_free() and self._claims.must_let_pass():
            return Postponed(0.0)
        with self._waits:
            turn = await self._caller.turn()
        if (ruled_out := self._claims.ruled_out(call, draft, was)) is not None:
            return Reached(ruled_out, was)
        send_before = time.monotonic() + STALE_CLAIM_S
        claimed = await self._claims.claim(call, draft, was)
        if claimed is None:
            return await self._take_step(delivery)
        if claimed.state == "failed":
            return Reached(claimed, was)
        if time.monotonic() > send_before or self._caller.stopping:
            return Noted(self._claims.free(claimed), claimed)
        metrics.AGE.observe(claimed.claimed_at - max(claimed.first_seen_at, call.not_before_s))
        decision = await self._caller.place(call, attempt, turn, send_before=send_before)
        return Decided(claimed, decision, call.expires_at_s)

    def _wait(self, delivery: Delivery, entry: Entry, wait_s: float) -> Result:
        """Let a request wait, unless a rule has come meanwhile that forbids it."""
        call = delivery.request
        if isinstance(call, Invalid) or entry.state != "delayed" or entry.unsure_since is not None:
            return Postponed(wait_s, entry)
        draft = self._claims.draft(delivery, call, entry.attempt, entry.replay)
        blocked = self._claims.blocked(call, draft)
        return Reached(blocked, entry) if blocked is not None else Postponed(wait_s, entry)

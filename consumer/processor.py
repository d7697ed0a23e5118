"""One request: read the ledger, take a step, pass its result to the recorder."""

import asyncio
import time
from dataclasses import replace
from typing import assert_never

from consumer.attempts import Attempts
from consumer.bitrix24.portal import CONNECT_TIMEOUT_S
from consumer.caller import Caller
from consumer.decision import Retry
from consumer.delivery import Delivery, Unreadable
from consumer.interruptible import Interruptible
from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.ledger.ages import Ages
from consumer.ledger.beginning import Beginning
from consumer.ledger.entry import UNSEEN_BODY
from consumer.ledger.recovery import Recovery
from consumer.messages import Invalid
from consumer.reconciler import Reconciler
from consumer.recorder import Recorder
from consumer.results import (
    AlreadyKnown,
    Decided,
    Doubted,
    Ignored,
    Rejected,
    Reopened,
    Result,
    TakenBack,
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
        attempts: Attempts,
        reconciler: Reconciler,
        recorder: Recorder,
        waits: Interruptible,
        timeout_s: float,
    ) -> None:
        self._ledger = ledger
        self._ages = ages
        self._recovery = recovery
        self._caller = caller
        self._attempts = attempts
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
                if result is not None:  # else something has changed meanwhile: look again
                    done = await self._recorder.carry_out(result, message)
            except LedgerDown as error:
                with self._waits:
                    await self._recovery.wait(error)

    def stop(self) -> None:
        """Dial nothing more that has not begun."""
        self._caller.stopping = True
        self._waits.cancel_all()

    # --- steps: each returns what it came to

    async def _take_step(self, delivery: Delivery) -> Result | None:
        entry = await self._ledger.get(delivery.request_id)
        if entry is None:
            return await self._begin(delivery)
        known = Known(
            entry=entry,
            age_s=self._ages.age_of(entry),
            now=time.time(),
            own=entry.owner == self._attempts.owner,
            undecided_s=self._undecided_s,
        )
        digest = self._ledger.digest(delivery.fields)
        return await self._follow(next_step(known, delivery.headers, digest), entry, delivery)

    async def _follow(self, step: Step, entry: Entry, delivery: Delivery) -> Result | None:
        match step:
            case IdConflict():
                text = "request_id: another request already has this id, with other content"
                return Rejected(Invalid("request_id_reused", text, delivery.request_id))
            case Superseded():
                return Ignored()
            case Duplicate(asked_again):
                return self._repeat(entry, delivery, asked_again=asked_again)
            case Cancelled():
                digest = self._ledger.digest(delivery.fields)
                return TakenBack(entry, delivery.headers.replay, digest)
            case NotYet(wait_s):
                return await self._attempts.wait(delivery, entry, wait_s)
            case Orphaned():
                orphan = replace(entry, owner=self._attempts.owner)
                return Doubted(orphan, entry, "WORKER_LOST")
            case InDoubt():
                return await self._reconcile(entry, delivery)
            case Due():
                return await self._attempts.make(delivery, entry, entry.attempt, entry.replay)
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

    async def _begin(self, delivery: Delivery) -> Result | None:
        """Begin a request that the ledger does not know, believing what its headers say."""
        headers = delivery.headers
        lost = headers.unsure_since is not None and not headers.redial
        if lost or (delivery.redelivered and not await self._ledger.has_begun()):
            # Whoever had it before us may have dialled, and this ledger cannot know.
            return self._attempts.doubt(delivery)
        if delivery.call is not None and not delivery.redelivered:
            await self._beginning.note_first()
        return await self._attempts.make(delivery, None, headers.attempt, headers.replay)

    async def _replay(self, entry: Entry, delivery: Delivery) -> Result | None:
        """Try again what a person wants tried again; what was in doubt is looked up once more."""
        call, replay = delivery.request, delivery.headers.replay
        if isinstance(call, Invalid):
            return Rejected(call)
        doubt = await self._doubt_about_number(entry, delivery)
        digest = self._ledger.digest(delivery.fields)
        if doubt is not None and (entry.cancelled_at or not delivery.headers.redial):
            return Reopened(doubt, entry, replay, digest)
        if entry.cancelled_at:
            return TakenBack(entry, replay, digest)
        return await self._attempts.make(delivery, entry, 1, replay)

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

    async def _reconcile(self, entry: Entry, delivery: Delivery) -> Result | None:
        """Look a call in doubt up; dial again only if it did not ring, or the rules allow it."""
        self._caller.check()
        with self._waits:
            found = await self._reconciler.look_up(entry, delivery.request)
        decision = found.decision
        if isinstance(decision, Retry) and decision.delay_s <= 0:
            was = replace(entry, unsure_since=None) if found.rang_not else entry
            return await self._attempts.make(delivery, was, decision.attempt, entry.replay)
        expires_at = delivery.call.expires_at_s if delivery.call else None
        return Decided(entry, decision, expires_at, found.doubt_age_s)

"""One request: read the ledger, take a step, pass its result to the recorder."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never
from uuid import uuid4

import structlog

from consumer import metrics
from consumer.bitrix24.errors import REPORTED_FAILURES
from consumer.bitrix24.portal import CONNECT_TIMEOUT_S
from consumer.caller import Caller
from consumer.decision import Announce, Fail, Reconcile, Retry
from consumer.delivery import Delivery, Unreadable
from consumer.interruptible import Interruptible
from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.ledger.ages import Ages
from consumer.ledger.beginning import Beginning
from consumer.ledger.recovery import Recovery
from consumer.messages import CallRequested, Invalid
from consumer.reconciler import Reconciler
from consumer.reconciliation import DoubtfulCall, LookUpFailed, NotFound, reconcile
from consumer.recorder import (
    AlreadyKnown,
    Decided,
    Expired,
    Ignored,
    Noted,
    Postponed,
    Recorder,
    Rejected,
    Result,
)
from consumer.steps import (
    Due,
    Duplicate,
    IdConflict,
    InDoubt,
    Known,
    NotYet,
    Orphaned,
    Replayed,
    Superseded,
    claim,
    in_doubt,
    next_step,
    reopened,
)

STALE_CLAIM_S = 2 * CONNECT_TIMEOUT_S
"""Nothing is sent on an older claim: this process slept, and another may have taken over."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings that decide about requests.

    Attributes:
        delays_s: One wait in seconds per retry, growing.
        timeout_s: How long one call may take.
        lag_s: Absence from the history proves nothing until so many seconds after the doubt.
        retry_unsure: Whether to dial again where no history can tell.
    """

    delays_s: Sequence[int]
    timeout_s: float
    lag_s: float
    retry_unsure: bool


class Processor:
    """Takes requests through their states: each step returns a result, for the `Recorder`."""

    def __init__(  # noqa: PLR0913  # the whole of the worker comes together here
        self,
        *,
        ledger: Ledger,
        ages: Ages,
        recovery: Recovery,
        caller: Caller,
        reconciler: Reconciler,
        recorder: Recorder,
        waits: Interruptible,
        rules: Rules,
    ) -> None:
        self._ledger = ledger
        self._ages = ages
        self._recovery = recovery
        self._caller = caller
        self._reconciler = reconciler
        self._recorder = recorder
        self._rules = rules
        self._undecided_s = rules.timeout_s + 2 * CONNECT_TIMEOUT_S
        self._waits = waits
        self._owner = str(uuid4())
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
            own=entry.owner == self._owner,
            undecided_s=self._undecided_s,
        )
        digest = self._ledger.digest(delivery.fields)
        match next_step(known, delivery.headers, digest):
            case IdConflict():
                text = "request_id: another request already has this id, with other content"
                return Rejected(Invalid("request_id_reused", text, delivery.request_id))
            case Superseded():
                return Ignored()
            case Duplicate(asked_again):
                same = digest == entry.body_digest or self._is_to_same_number(entry, delivery)
                return AlreadyKnown(entry, asked_again) if same else Ignored()
            case NotYet(wait_s):
                return Postponed(wait_s, entry)
            case Orphaned():
                orphan = replace(entry, owner=self._owner)
                return Noted(in_doubt(orphan, "WORKER_LOST", time.time()), entry)
            case InDoubt():
                return await self._reconcile(entry, delivery)
            case Due():
                return await self._call(delivery, entry, entry.attempt, entry.replay)
            case Replayed():
                return await self._replay(entry, delivery)
            case step:
                assert_never(step)

    async def _begin(self, delivery: Delivery) -> Result:
        """Begin a request that the ledger does not know, believing what its headers say."""
        call, headers = delivery.request, delivery.headers
        if isinstance(call, Invalid):
            return Rejected(call)
        lost = headers.unsure_since is not None and not headers.redial
        if lost or (delivery.redelivered and not await self._ledger.has_begun()):
            # Whoever had it before us may have dialled, and this ledger cannot know.
            draft = self._draft(delivery, call, headers.attempt, headers.replay)
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
        doubt = _doubtful_call(entry, self._ages, retry_unsure=self._rules.retry_unsure)
        if isinstance(call, Invalid):
            # A setting changed, so that its number or line cannot be read any more.
            return Decided(entry, Fail("unsure", entry.failure), doubt_age_s=doubt.age_s)
        self._caller.check()
        with self._waits:
            finding = await self._reconciler.look(entry, call)
        decision = reconcile(doubt, finding, self._rules.delays_s, self._rules.lag_s)
        log.info(
            "call.looked_up",
            finding=type(finding).__name__,
            reason=finding.reason if isinstance(finding, LookUpFailed) else None,
            then=type(decision).__name__,
        )
        if not isinstance(decision, Reconcile):
            metrics.DOUBTS_RESOLVED.labels(_SETTLED[type(decision)]).inc()
        if isinstance(decision, Retry) and decision.delay_s <= 0:
            rang_not = isinstance(finding, NotFound) and finding.conclusive
            was = replace(entry, unsure_since=None) if rang_not else entry
            return await self._call(delivery, was, decision.attempt, entry.replay)
        return Decided(entry, decision, call.expires_at_s, doubt.age_s)

    async def _call(
        self, delivery: Delivery, was: Entry | None, attempt: int, replay: int
    ) -> Result:
        """Wait for the time and the turn, claim, dial at once."""
        call = delivery.request
        if isinstance(call, Invalid):
            return Rejected(call, forget=was)
        draft = self._draft(delivery, call, attempt, replay)
        begin = call.not_before_s
        if call.has_expired(max(time.time(), begin)):
            return Expired(draft, was)
        if (wait_s := begin - time.time()) > 0:
            return Postponed(wait_s)
        with self._waits:
            turn = await self._caller.turn()
        if call.has_expired(time.time()):
            return Expired(draft, was)
        send_before = time.monotonic() + STALE_CLAIM_S
        claimed = await self._claim(claim(draft, was, time.time()), was)
        if claimed is None:  # somebody else has changed the entry: look again
            return await self._take_step(delivery)
        if time.monotonic() > send_before or self._caller.stopping:
            # Not dialled, and that is certain: whoever gets the message next may do so.
            freed = replace(claimed, state="delayed", due_at=claimed.changed_at)
            return Noted(freed, claimed)
        metrics.AGE.observe(claimed.claimed_at - max(claimed.first_seen_at, begin))
        decision = await self._caller.place(call, attempt, turn, send_before=send_before)
        return Decided(claimed, decision, call.expires_at_s)

    async def _claim(self, claimed: Entry, was: Entry | None) -> Entry | None:
        """Write down that we are about to dial; return None if somebody else was faster."""
        while True:
            try:
                return await self._recorder.claim(claimed, was)
            except LedgerDown as error:
                with self._waits:
                    await self._recovery.wait(error)

    def _draft(self, delivery: Delivery, call: CallRequested, attempt: int, replay: int) -> Entry:
        return Entry(
            request_id=delivery.request_id,
            state="placing",
            attempt=attempt,
            replay=replay,
            owner=self._owner,
            first_seen_at=delivery.headers.first_seen_at.timestamp(),
            changed_at=time.time(),
            line=call.from_line,
            clock_offset_s=self._ages.clock_offset_s(),
            body_digest=self._ledger.digest(delivery.fields),
            target_digest=self._ledger.digest(call.to_number, call.from_line),
        )


def _doubtful_call(entry: Entry, ages: Ages, *, retry_unsure: bool) -> DoubtfulCall:
    age_s = ages.age_of_doubt(entry)
    return DoubtfulCall(
        attempt=entry.attempt,
        replayed=entry.replayed_at > 0,
        age_s=age_s,
        looking_s=ages.age_of_replay(entry) if entry.replayed_at else age_s,
        may_retry=retry_unsure or entry.code.upper() in REPORTED_FAILURES,
        failure=entry.failure,
    )


_SETTLED = {Announce: "found", Retry: "dialled_again", Fail: "left_to_a_person"}

"""One request: read the ledger, take a step, record what came of it, publish."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import assert_never
from uuid import uuid4

import structlog

from consumer import metrics
from consumer.announcer import Announcer
from consumer.bitrix24.errors import REPORTED_FAILURES
from consumer.bitrix24.portal import CONNECT_TIMEOUT_S
from consumer.caller import Caller
from consumer.decision import Announce, Fail, Failure, Reconcile, Retry
from consumer.delivery import Delivery
from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.ledger.ages import Ages
from consumer.ledger.recovery import Recovery
from consumer.messages import CallRequested, Invalid
from consumer.reconciler import Reconciler
from consumer.reconciliation import DoubtfulCall, LookUpFailed, NotFound, reconcile
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
    apply_decision,
    claim,
    in_doubt,
    next_step,
    reopened,
    with_failure,
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


@dataclass(frozen=True, slots=True)
class Rejected:
    """It is no request that can be carried out; *forget* is the entry that it must not keep."""

    error: Invalid
    forget: Entry | None = None


@dataclass(frozen=True, slots=True)
class Postponed:
    """It waits; nothing about it has changed."""

    wait_s: float
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class AlreadyKnown:
    """It is closed: what belongs to its state is published once more."""

    entry: Entry
    asked_again: bool


@dataclass(frozen=True, slots=True)
class Reached:
    """A new state: to be recorded in place of *was*, then published."""

    entry: Entry
    was: Entry | None


@dataclass(frozen=True, slots=True)
class Noted:
    """A new state to be recorded in place of *was*; the next step follows at once."""

    entry: Entry
    was: Entry | None


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing is to be done."""


Result = Rejected | Postponed | AlreadyKnown | Reached | Noted | Ignored


class Processor:
    """Takes requests through their states. Each step returns a result; `_carry_out` acts on it."""

    def __init__(  # noqa: PLR0913  # the whole of the worker comes together here
        self,
        *,
        ledger: Ledger,
        ages: Ages,
        recovery: Recovery,
        caller: Caller,
        reconciler: Reconciler,
        announcer: Announcer,
        rules: Rules,
    ) -> None:
        self._ledger = ledger
        self._ages = ages
        self._recovery = recovery
        self._caller = caller
        self._reconciler = reconciler
        self._announcer = announcer
        self._rules = rules
        self._owner = str(uuid4())
        self._undecided_s = rules.timeout_s + 2 * CONNECT_TIMEOUT_S
        self._interruptible: set[asyncio.Task[object]] = set()
        self._handed_out: set[asyncio.Task[object]] = set()

    async def process(self, delivery: Delivery) -> None:
        """Do what *delivery* asks for, to the point where its message can be acknowledged.

        Raises:
            GivenBack: Nothing may be dialled now; the message must go back to its queue.
        """
        task = asyncio.current_task()
        if delivery.redelivered and task is not None:
            self._handed_out.add(task)
            task.add_done_callback(self._handed_out.discard)
        done = False
        while not done:
            try:
                done = await self._carry_out(await self._take_step(delivery), delivery)
            except LedgerDown as error:
                with self._may_be_interrupted():
                    await self._recovery.wait(error)

    def interrupt(self, task: asyncio.Task[None] | None = None) -> None:
        """Cancel what has not begun to dial: *task*, or all. Its message goes back to the queue."""
        for waiting in list(self._interruptible):
            if task is None or waiting is task:
                waiting.cancel()

    def stop(self) -> None:
        """Dial nothing more that has not begun."""
        self._caller.stopping = True
        self.interrupt()

    # --- steps: each returns what it came to

    async def _take_step(self, delivery: Delivery) -> Result:
        entry = await self._ledger.get(delivery.request_id)
        if entry is None:
            return await self._begin(delivery)
        known = Known(
            entry=entry,
            age_s=self._age_s(entry),
            now=time.time(),
            own=entry.owner == self._owner,
            undecided_s=self._undecided_s,
        )
        match next_step(known, delivery.headers, self._ledger.digest(delivery.fields)):
            case IdConflict():
                text = "request_id: another request already has this id, with other content"
                return Rejected(Invalid("request_id_reused", text, delivery.request_id))
            case Superseded():
                return Ignored()
            case Duplicate(asked_again):
                return AlreadyKnown(entry, asked_again)
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
            await self._begin_ledger()
        return await self._call(delivery, None, headers.attempt, headers.replay)

    async def _begin_ledger(self) -> None:
        """Note that nothing is handed out any more that this ledger does not know.

        What was handed out before this ledger was made comes first, and must be recorded by now.
        """
        if await self._ledger.has_begun():
            return
        before = set(self._handed_out)
        if before:
            with self._may_be_interrupted():
                await asyncio.wait(before)
        if not any(task.cancelled() or task.exception() for task in before):
            await self._ledger.begin()

    async def _replay(self, entry: Entry, delivery: Delivery) -> Result:
        """Try again what a person wants tried again; what was in doubt is looked up once more."""
        call, replay = delivery.request, delivery.headers.replay
        if isinstance(call, Invalid):
            return Rejected(call)
        doubtful = entry.unsure_since is not None and not delivery.headers.redial
        if doubtful and self._is_to_same_number(entry, call):
            digest = self._ledger.digest(delivery.fields)
            return Noted(reopened(entry, replay, digest, time.time()), entry)
        return await self._call(delivery, entry, 1, replay)

    def _is_to_same_number(self, entry: Entry, call: CallRequested) -> bool:
        """Tell whether *call* is to the number that is in doubt, by whichever line."""
        if not entry.target_digest:
            return True
        return entry.target_digest == self._ledger.digest(call.to_number, entry.line)

    async def _reconcile(self, entry: Entry, delivery: Delivery) -> Result:
        """Look a call in doubt up; dial again only if it did not ring, or the rules allow it."""
        call = delivery.request
        if isinstance(call, Invalid):
            # A setting changed, so that its number or line cannot be read any more.
            return Reached(
                apply_decision(entry, Fail("unsure", entry.failure), time.time(), expires_at=None),
                entry,
            )
        self._caller.check()
        with self._may_be_interrupted():
            finding = await self._reconciler.look(entry, call)
        doubt = self._doubt(entry)
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
        now = time.time()
        reached = apply_decision(
            entry,
            decision,
            now,
            expires_at=_expiry(call),
            unsure_since=now - doubt.age_s,
        )
        return Reached(reached, entry)

    def _doubt(self, entry: Entry) -> DoubtfulCall:
        age_s = self._ages.age_s(
            _doubt_of(entry), entry.unsure_since or entry.changed_at, entry.clock_offset_s
        )
        replay_age_s = self._ages.age_s(_replay_of(entry), entry.replayed_at, entry.clock_offset_s)
        may_retry = self._rules.retry_unsure or entry.code.upper() in REPORTED_FAILURES
        return DoubtfulCall(
            attempt=entry.attempt,
            replayed=entry.replayed_at > 0,
            age_s=age_s,
            looking_s=replay_age_s if entry.replayed_at else age_s,
            may_retry=may_retry,
            failure=entry.failure,
        )

    async def _call(
        self, delivery: Delivery, was: Entry | None, attempt: int, replay: int
    ) -> Result:
        """Wait for the time and the turn, claim, dial at once."""
        call = delivery.request
        if isinstance(call, Invalid):
            return Rejected(call, forget=was)
        draft = self._draft(delivery, call, attempt, replay)
        begin = call.not_before.timestamp() if call.not_before else 0.0
        if _expired(call, max(time.time(), begin)):
            return Reached(_expire(draft, was), was)
        if (wait_s := begin - time.time()) > 0:
            return Postponed(wait_s)
        with self._may_be_interrupted():
            turn = await self._caller.turn()
        if _expired(call, time.time()):
            return Reached(_expire(draft, was), was)
        send_before = time.monotonic() + STALE_CLAIM_S
        claimed = await self._claim(draft, was)
        if claimed is None:  # somebody else has changed the entry: look again
            return await self._take_step(delivery)
        if time.monotonic() > send_before or self._caller.stopping:
            # Not dialled, and that is certain: whoever gets the message next may do so.
            freed = replace(claimed, state="delayed", due_at=claimed.changed_at)
            return Noted(freed, claimed)
        metrics.AGE.observe(claimed.claimed_at - max(claimed.first_seen_at, begin))
        decision = await self._caller.place(call, attempt, turn, send_before=send_before)
        reached = apply_decision(claimed, decision, time.time(), expires_at=_expiry(call))
        return Reached(reached, claimed)

    async def _claim(self, draft: Entry, was: Entry | None) -> Entry | None:
        """Write down that we are about to dial; None if somebody else was faster.

        Where the ledger goes down in the middle, find out whether the claim is there.
        """
        claimed = claim(draft, was, time.time())
        while True:
            try:
                if was is not None and was.state == "started":
                    await self._ledger.remember_call(was)
                return await self._ledger.put(claimed, was)
            except LedgerDown as error:
                with self._may_be_interrupted():
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

    # --- results: here alone is recorded and published

    async def _carry_out(self, result: Result, delivery: Delivery) -> bool:
        """Act on the result of a step; return whether the message is done with."""
        match result:
            case Rejected(error, forget):
                if forget is not None:
                    await self._ledger.forget(forget)
                await self._announcer.invalid(delivery, error)
            case Postponed(wait_s, entry):
                await self._postpone(delivery, wait_s, entry)
            case AlreadyKnown(entry, asked_again):
                await self._publish(entry, delivery, asked_again=asked_again)
            case Reached(entry, was):
                written = await self._record(entry, was)
                if written is None:
                    log.warning("call.overtaken", state=entry.state)
                    return False
                await self._publish(written, delivery)
            case Noted(entry, was):
                await self._record(entry, was)
                return False
            case Ignored():
                log.info("call.superseded")
            case _:
                assert_never(result)
        return True

    async def _postpone(self, delivery: Delivery, wait_s: float, entry: Entry | None) -> None:
        await self._announcer.postponed(delivery, wait_s, entry)
        if entry is not None and entry.state == "delayed":
            await self._mark_published(entry)

    async def _record(self, reached: Entry, was: Entry | None) -> Entry | None:
        """Write an outcome however long it takes; a call that the portal accepted always wins."""
        reached = replace(reached, clock_offset_s=self._ages.clock_offset_s())
        while True:
            try:
                written = await self._ledger.put(reached, was)
                if written is not None:
                    self._begin_ages(written, was)
                if written is not None or reached.confirmed_by != "answer":
                    return written
                was = await self._ledger.get(reached.request_id)
                if was is not None and was.state == "started":
                    return None
            except LedgerDown as error:
                await self._recovery.wait(error)

    async def _publish(
        self, entry: Entry, delivery: Delivery, *, asked_again: bool = False
    ) -> None:
        """Publish what belongs to the state of *entry*."""
        match entry.state:
            case "started":
                confirmed_by = "ledger" if asked_again else entry.confirmed_by
                await self._announcer.started(entry, delivery, confirmed_by)
            case "delayed":
                wait_s = entry.due_at - entry.changed_at
                await self._announcer.postponed(delivery, wait_s, entry)
            case "failed":
                if not entry.published:
                    await self._announcer.dead_letter(entry, delivery)
                    await self._mark_published(entry)
                    entry = replace(entry, published=True)
                await self._announcer.failed(entry, delivery)
            case "placing":
                raise AssertionError("a call in the making has nothing to tell")
        await self._mark_published(entry)

    async def _mark_published(self, entry: Entry) -> None:
        if entry.published:
            return
        try:
            await self._ledger.put(replace(entry, published=True), entry)
        except LedgerDown:
            log.warning("ledger.not_marked")  # the next copy of the message publishes it once more

    # --- ages and interruptions

    def _age_s(self, entry: Entry) -> float:
        since = entry.claimed_at if entry.state == "placing" else entry.changed_at
        return self._ages.age_s((entry.request_id, entry.version), since, entry.clock_offset_s)

    def _begin_ages(self, written: Entry, was: Entry | None) -> None:
        """Note what has begun just now, so that its age never hangs on the wall clock."""
        self._ages.begin((written.request_id, written.version))
        if written.unsure_since is not None and (was is None or was.unsure_since is None):
            self._ages.begin(_doubt_of(written))
        if written.replayed_at and (was is None or not was.replayed_at):
            self._ages.begin(_replay_of(written))

    @contextmanager
    def _may_be_interrupted(self) -> Iterator[None]:
        """Mark where this request may be cancelled: nothing has been dialled yet."""
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("requests are processed in tasks")
        self._interruptible.add(task)
        try:
            yield
        finally:
            self._interruptible.discard(task)


_SETTLED = {Announce: "found", Retry: "dialled_again", Fail: "left_to_a_person"}


def _doubt_of(entry: Entry) -> tuple[str, str, float]:
    return ("doubt", entry.request_id, entry.claimed_at)


def _replay_of(entry: Entry) -> tuple[str, str, int]:
    return ("replay", entry.request_id, entry.replay)


def _expire(draft: Entry, was: Entry | None) -> Entry:
    code = (was.code if was is not None else "") or "EXPIRED"
    expired = replace(draft, state="failed", attempt=draft.attempt - 1, reason="expired")
    text = "expires_at has passed, or would have before the next try"
    return with_failure(expired, Failure(code, text))


def _expiry(call: CallRequested) -> float | None:
    return call.expires_at.timestamp() if call.expires_at else None


def _expired(call: CallRequested, at: float) -> bool:
    expiry = _expiry(call)
    return expiry is not None and expiry <= at

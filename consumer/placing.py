"""One request from its message to its outcome: judge, claim, dial, record, tell."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import assert_never
from uuid import uuid4

import structlog

from consumer import metrics
from consumer.answers import REPORTED_FAILURES
from consumer.decision import (
    Announce,
    Contested,
    Decision,
    Doubt,
    Found,
    GiveUp,
    LookUpFailed,
    Outcome,
    Placed,
    Refused,
    Retry,
    Unavailable,
    Verify,
    decide,
    settle,
)
from consumer.doubts import Doubts
from consumer.intake import Intake
from consumer.judge import (
    Asker,
    Inherit,
    New,
    Reopen,
    Repeat,
    Resume,
    Reused,
    Wait,
    judge,
    reach,
)
from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.messages import CallRequested, Invalid
from consumer.outbox import Letter, Outbox
from consumer.pace import Pace
from consumer.pause import Pause
from consumer.portal import CONNECT_TIMEOUT_S, Portal

OPERATION_HOLD_S = 60.0
"""The longest wait for operating time to drop out: the portal keeps its accounts by the minute."""
STALE_CLAIM_S = 5.0
"""An older claim is not dialled on: this process slept, and another may have taken over."""
LEDGER_RETRY_S = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings that decide about requests.

    Attributes:
        delays_s: One wait in seconds per retry, growing.
        timeout_s: How long one call may take.
        default_line: The line for requests that name none.
        lag_s: Absence from the history proves nothing until so many seconds after the doubt.
        retry_unsure: Whether to dial again where no history can tell.
        operating_limit_s: From so many seconds of operating time on, wait for some to drop out.
    """

    delays_s: Sequence[int]
    timeout_s: float
    default_line: str | None
    lag_s: float
    retry_unsure: bool
    operating_limit_s: float


class GivenBack(Exception):
    """Raised where a request must wait in its queue: nothing may be dialled now."""


class Placing:
    """Takes requests through their states. Only here is dialled."""

    def __init__(  # noqa: PLR0913  # the whole of the worker comes together here
        self,
        *,
        ledger: Ledger,
        portal: Portal,
        pace: Pace,
        outbox: Outbox,
        intake: Intake,
        pause: Pause,
        rules: Rules,
    ) -> None:
        self._ledger = ledger
        self._portal = portal
        self._pace = pace
        self._outbox = outbox
        self._intake = intake
        self._pause = pause
        self._rules = rules
        self._doubts = Doubts(ledger, portal, pace, rules.lag_s)
        self._asker = Asker(str(uuid4()), rules.timeout_s + 2 * CONNECT_TIMEOUT_S)
        self._mending = asyncio.Lock()
        self._interruptible: set[asyncio.Task[object]] = set()

    async def settle(self, letter: Letter) -> None:
        """Do what *letter* asks for, to the point where its message can be acknowledged."""
        while True:
            try:
                if await self._step(letter):
                    return
            except LedgerDown as error:
                with self._may_be_interrupted():
                    await self._ledger_back(error)

    def give_up_waiting(self) -> None:
        """Cancel whatever has not begun to dial; its messages go back to the queue."""
        for task in list(self._interruptible):
            task.cancel()

    async def _step(self, letter: Letter) -> bool:
        """Make one step; return whether the message is done with."""
        entry = await self._ledger.get(letter.request_id)
        digest = self._ledger.digest(letter.fields)
        match judge(entry, letter.trail, digest, time.time(), self._asker):
            case New():
                return await self._begin(letter)
            case Reused():
                text = "request_id: another request already has this id, with other content"
                invalid = Invalid("request_id_reused", text, letter.request_id)
                await self._outbox.invalid(letter.body, letter.trail, invalid)
                return True
            case Repeat(known, asked_again):
                await self._tell(known, letter, asked_again=asked_again)
                return True
            case Wait(known, until):
                await self._outbox.waits(letter, until - time.time(), known)
                if known.state == "delayed":
                    await self._mark_out(known)
                return True
            case Inherit(known):
                return await self._inherit(known)
            case Resume(known) if known.unsure_since is not None:
                return await self._verify(known, letter)
            case Resume(known):
                return await self._dial(letter, known, known.attempt, known.replay)
            case Reopen(known):
                return await self._reopen(known, letter)
            case step:
                assert_never(step)

    async def _begin(self, letter: Letter) -> bool:
        """Begin a request that the ledger does not know, believing what its headers say."""
        if isinstance(letter.request, Invalid):
            await self._outbox.invalid(letter.body, letter.trail, letter.request)
            return True
        now, trail = time.time(), letter.trail
        believed = None if trail.redial else trail.unsure_since
        unsure_since = believed.timestamp() if believed else None
        if unsure_since is None and letter.redelivered and self._ledger.created:
            # Whoever had it before us may have dialled, and this ledger cannot know.
            unsure_since = now
        if unsure_since is None:
            return await self._dial(letter, None, trail.attempt, trail.replay)
        draft = replace(
            self._draft(letter, letter.request, trail.attempt, trail.replay),
            state="delayed",
            due_at=now,
            unsure_since=unsure_since,
            code="LEDGER_LOST",
            description="the ledger does not know whether it was dialled",
        )
        await self._ledger.put(draft, None)
        return False

    def _draft(self, letter: Letter, call: CallRequested, attempt: int, replay: int) -> Entry:
        return Entry(
            request_id=letter.request_id,
            state="placing",
            attempt=attempt,
            replay=replay,
            owner=self._asker.owner,
            first_seen_at=letter.trail.first_seen_at.timestamp(),
            changed_at=time.time(),
            line=call.from_line,
            body_digest=self._ledger.digest(letter.fields),
            target_digest=self._ledger.digest(call.to_number, call.from_line),
        )

    async def _inherit(self, entry: Entry) -> bool:
        now = time.time()
        doubt = replace(
            entry,
            state="delayed",
            owner=self._asker.owner,
            changed_at=now,
            due_at=now,
            unsure_since=min(now, entry.claimed_at + self._rules.timeout_s),
            code="WORKER_LOST",
            description="the worker ended during the call",
            http_status=None,
            out=False,
        )
        await self._ledger.put(doubt, entry)
        return False

    async def _reopen(self, entry: Entry, letter: Letter) -> bool:
        """Try again what a person wants tried again; what was in doubt is looked up once more."""
        if isinstance(letter.request, Invalid):
            await self._outbox.invalid(letter.body, letter.trail, letter.request)
            return True
        replay = letter.trail.replay
        if entry.unsure_since is not None and not letter.trail.redial:
            with self._may_be_interrupted():
                sighting = await self._doubts.look(entry, letter.request)
            anew = replace(entry, replay=replay, body_digest=self._ledger.digest(letter.fields))
            match sighting:
                case Found(call_id):
                    found = reach(
                        anew,
                        Announce(call_id),
                        time.time(),
                        expires_at=None,
                        confirmed_by="history",
                    )
                    return await self._record_and_tell(found, entry, letter)
                case Contested():
                    again = GiveUp("unsure", entry.code, entry.description, entry.http_status)
                    failed = reach(anew, again, time.time(), expires_at=None)
                    return await self._record_and_tell(failed, entry, letter)
                case LookUpFailed():
                    waited_s = time.time() - max(entry.changed_at, entry.first_seen_at)
                    delays_s = self._rules.delays_s
                    wait_s = min(max(float(delays_s[0]), waited_s), float(delays_s[-1]))
                    await self._outbox.waits(letter, wait_s, entry)
                    return True
                case _:
                    pass
        return await self._dial(letter, entry, 1, replay)

    async def _verify(self, entry: Entry, letter: Letter) -> bool:
        """Look a doubtful call up; dial again only if it certainly did not ring, or rules allow."""
        told = (entry.code, entry.description, entry.http_status)
        if isinstance(letter.request, Invalid):
            # A setting changed, so that its number or line cannot be read any more.
            failed = reach(entry, GiveUp("unsure", *told), time.time(), expires_at=None)
            return await self._record_and_tell(failed, entry, letter)
        if self._pause.paused:
            raise GivenBack
        with self._may_be_interrupted():
            sighting = await self._doubts.look(entry, letter.request)
        now = time.time()
        doubt = Doubt(
            attempt=entry.attempt,
            age_s=now - (entry.unsure_since or now),
            may_retry=self._rules.retry_unsure or entry.code.upper() in REPORTED_FAILURES,
            code=entry.code,
            description=entry.description,
            http_status=entry.http_status,
        )
        decision = settle(doubt, sighting, self._rules.delays_s, self._rules.lag_s)
        log.info("call.looked_up", sighting=type(sighting).__name__, then=type(decision).__name__)
        if not isinstance(decision, Verify):
            metrics.DOUBTS_SETTLED.labels(_SETTLED[type(decision)]).inc()
        if isinstance(decision, Retry) and decision.delay_s <= 0:
            return await self._dial(letter, entry, decision.attempt, entry.replay)
        reached = reach(
            entry,
            decision,
            now,
            expires_at=_expiry(letter.request),
            confirmed_by="history",
        )
        return await self._record_and_tell(reached, entry, letter)

    async def _dial(self, letter: Letter, was: Entry | None, attempt: int, replay: int) -> bool:
        """Wait for the time and the pace, claim, dial at once, record, tell."""
        call = letter.request
        if isinstance(call, Invalid):
            return await self._refuse(letter, call, was)
        draft = self._draft(letter, call, attempt, replay)
        begin = call.not_before.timestamp() if call.not_before else 0.0
        if _expired(call, max(time.time(), begin)):
            return await self._expire(draft, was, letter)
        if (wait_s := begin - time.time()) > 0:
            await self._outbox.waits(letter, wait_s)
            return True
        with self._may_be_interrupted(), metrics.PACE_WAIT.time():
            await self._pace.wait()
        if self._pause.paused:
            raise GivenBack
        if _expired(call, time.time()):
            return await self._expire(draft, was, letter)
        claimed = await self._claim(draft, was)
        if claimed is None:
            return False
        metrics.AGE.observe(claimed.claimed_at - max(claimed.first_seen_at, begin))
        epoch = self._pause.epoch
        decision = self._decide(await self._place(call), call, attempt, epoch)
        if isinstance(decision, Verify):
            metrics.DOUBTS.inc()
        reached = reach(claimed, decision, time.time(), expires_at=_expiry(call))
        return await self._record_and_tell(reached, claimed, letter)

    async def _claim(self, draft: Entry, was: Entry | None) -> Entry | None:
        """Write down that we are about to dial; None if somebody was faster or we were too slow."""
        now = time.time()
        goes_on = was is not None and was.replay == draft.replay and was.first_claimed_at > 0
        claim = replace(
            draft,
            claimed_at=now,
            changed_at=now,
            first_claimed_at=was.first_claimed_at if was is not None and goes_on else now,
            first_seen_at=was.first_seen_at if was is not None else draft.first_seen_at,
        )
        claimed = await self._put_claim(claim, was)
        if claimed is not None and time.time() - now > STALE_CLAIM_S:
            await self._ledger.put(replace(claimed, state="delayed", due_at=now), claimed)
            return None
        return claimed

    async def _put_claim(self, claim: Entry, was: Entry | None) -> Entry | None:
        """Write a claim; where the ledger goes down in the middle, find out whether it is there."""
        while True:
            try:
                return await self._ledger.put(claim, was)
            except LedgerDown as error:
                with self._may_be_interrupted():
                    await self._ledger_back(error)

    async def _refuse(self, letter: Letter, invalid: Invalid, was: Entry | None) -> bool:
        """Refuse what cannot be read; no entry stays, so a mended one may use the same id."""
        if was is not None:
            await self._ledger.forget(was)
        await self._outbox.invalid(letter.body, letter.trail, invalid)
        return True

    async def _expire(self, draft: Entry, was: Entry | None, letter: Letter) -> bool:
        expired = replace(
            draft,
            state="failed",
            attempt=draft.attempt - 1,
            reason="expired",
            code=(was.code if was is not None else "") or "EXPIRED",
            description="expires_at has passed, or would have before the next try",
        )
        return await self._record_and_tell(expired, was, letter)

    async def _place(self, call: CallRequested) -> Outcome:
        with metrics.IN_FLIGHT.track_inprogress(), metrics.API.time():
            outcome = await self._portal.place(call)
        code = "" if isinstance(outcome, Placed) else metrics.bounded(outcome.code)
        metrics.CALLS.labels(type(outcome).__name__.lower(), code).inc()
        self._heed(outcome)
        return outcome

    def _decide(self, outcome: Outcome, call: CallRequested, attempt: int, epoch: int) -> Decision:
        """Decide about one call, and take its outcome into account for all."""
        on_default_line = call.from_line == self._rules.default_line
        wait_s = self._pause.note(outcome, call.request_id, epoch, on_default_line=on_default_line)
        if wait_s is not None and isinstance(outcome, Refused | Unavailable):
            # The one call let through after a pause: the trouble is still there, and not its own.
            told = (outcome.code, outcome.description, outcome.http_status)
            return Retry(wait_s, attempt, *told)
        return decide(outcome, attempt, self._rules.delays_s)

    def _heed(self, outcome: Outcome) -> None:
        """Slow down where the portal says that we are too fast, or soon will be."""
        usage = self._portal.usage
        reset_s = OPERATION_HOLD_S if usage is None else usage.reset_at - time.time()
        hold_s = min(max(reset_s, 0.0), OPERATION_HOLD_S)
        if usage is not None and usage.operating_s >= self._rules.operating_limit_s:
            self._pace.hold(hold_s)
        if isinstance(outcome, Unavailable) and not outcome.counts:
            self._pace.empty()
            if outcome.code.upper() == "OPERATION_TIME_LIMIT":
                self._pace.hold(hold_s or OPERATION_HOLD_S)

    async def _record_and_tell(self, reached: Entry, was: Entry | None, letter: Letter) -> bool:
        """Write down what came of it, then publish it; nothing if somebody else wrote first."""
        written = await self._record(reached, was)
        if written is None:
            log.warning("call.overtaken", state=reached.state)
            return False
        await self._tell(written, letter)
        return True

    async def _record(self, reached: Entry, was: Entry | None) -> Entry | None:
        """Write an outcome however long it takes; a call that the portal accepted always wins."""
        while True:
            try:
                written = await self._ledger.put(reached, was)
                if written is not None or reached.confirmed_by != "answer":
                    return written
                was = await self._ledger.get(reached.request_id)
                if was is not None and was.state == "started":
                    return None
            except LedgerDown as error:
                await self._ledger_back(error)

    async def _tell(self, entry: Entry, letter: Letter, *, asked_again: bool = False) -> None:
        """Publish what belongs to the state of *entry*."""
        match entry.state:
            case "started":
                confirmed_by = "ledger" if asked_again else entry.confirmed_by
                await self._outbox.started(entry, letter, confirmed_by)
                await self._mark_out(entry)
            case "delayed":
                await self._outbox.waits(letter, entry.due_at - time.time(), entry)
                await self._mark_out(entry)
            case "failed":
                if not entry.out:
                    await self._outbox.dead_letter(entry, letter)
                    await self._mark_out(entry)
                await self._outbox.failed(entry, letter)
            case "placing":
                raise AssertionError("a call in the making has nothing to tell")

    async def _mark_out(self, entry: Entry) -> None:
        if entry.out:
            return
        try:
            await self._ledger.put(replace(entry, out=True), entry)
        except LedgerDown:
            log.warning("ledger.not_marked")  # the next copy of the message publishes it once more

    async def _ledger_back(self, error: LedgerDown) -> None:
        """Take no messages until the ledger can be written again."""
        log.error("ledger.down", why=str(error))
        self._intake.hold("ledger")
        async with self._mending:  # one asks for all: each try may block the event loop
            while "ledger" in self._intake.held_by:
                await asyncio.sleep(LEDGER_RETRY_S)
                try:
                    await self._ledger.check_writable()
                except LedgerDown:
                    continue
                self._intake.release("ledger")

    @contextmanager
    def _may_be_interrupted(self) -> Iterator[None]:
        """Mark where a stop may cancel this request: nothing has been dialled yet."""
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("requests are settled in tasks")
        self._interruptible.add(task)
        try:
            yield
        finally:
            self._interruptible.discard(task)


_SETTLED = {Announce: "found", Retry: "dialled_again", GiveUp: "left_to_a_person"}


def _expiry(call: CallRequested) -> float | None:
    return call.expires_at.timestamp() if call.expires_at else None


def _expired(call: CallRequested, at: float) -> bool:
    expiry = _expiry(call)
    return expiry is not None and expiry <= at

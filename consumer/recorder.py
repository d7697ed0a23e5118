"""The result of a step is recorded and published here, and nowhere else."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import structlog

from consumer.announcer import Announcement, Announcer
from consumer.decision import Decision
from consumer.delivery import Delivery, Unreadable
from consumer.entries import apply_decision, cancel
from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.ledger.ages import Ages
from consumer.ledger.recovery import Recovery
from consumer.messages import Invalid
from consumer.rabbitmq.publisher import Publisher

log = structlog.get_logger(__name__)


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
    """No call was made; *entry* is to be recorded in place of *was*, and published."""

    entry: Entry
    was: Entry | None


@dataclass(frozen=True, slots=True)
class Decided:
    """What follows from an attempt or a look-up, whose entry is *was*.

    Attributes:
        expires_at: When the request's time is over, in seconds since the epoch.
        doubt_age_s: For how many seconds the call has been in doubt.
    """

    was: Entry
    decision: Decision
    expires_at: float | None = None
    doubt_age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Noted:
    """A new state to be recorded in place of *was*; the next step follows at once."""

    entry: Entry
    was: Entry | None


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing is to be done."""


Result = Rejected | Postponed | AlreadyKnown | Decided | Reached | Noted | Ignored


class Recorder:
    """Writes what steps come to into the ledger, then publishes what belongs to it."""

    def __init__(  # the ledger's side and the broker's
        self,
        *,
        ledger: Ledger,
        ages: Ages,
        recovery: Recovery,
        announcer: Announcer,
        publisher: Publisher,
    ) -> None:
        self._ledger = ledger
        self._ages = ages
        self._recovery = recovery
        self._announcer = announcer
        self._publisher = publisher

    async def carry_out(self, result: Result, message: Delivery | Unreadable) -> bool:
        """Act on the result of a step; return whether the message is done with."""
        entry = await self._entry_after(result)
        if entry is None and isinstance(result, Decided | Reached):
            log.warning("call.overtaken")
            return False
        if isinstance(result, Noted) or await self._was_taken_back(result, entry):
            return False
        if isinstance(result, Ignored):
            log.info("call.superseded")
            return True
        await self._send(self._announcements(result, entry, message), entry)
        return True

    async def take_back(self, unseen: Entry, trace: tuple[tuple[str, str], ...] = ()) -> Entry:
        """Note that a request is taken back, and end it if it only waits; return its entry.

        Args:
            unseen: Its entry if no worker has seen it yet.
            trace: Trace headers, passed on.
        """
        entry = await self._ledger.cancel(unseen)
        while entry.state == "delayed" and entry.unsure_since is None:
            cancelled = cancel(entry, entry.replay, time.time())
            entry = await self._ledger.put(cancelled, entry) or await self._ledger.cancel(unseen)
        if entry.reason == "cancelled" and not entry.published:
            await self._send([self._announcer.cancelled(entry, trace)], entry)
        return entry

    async def refuse_cancellation(self, body: bytes, error: Invalid) -> None:
        """Say that a cancellation cannot be read."""
        await self._send([self._announcer.unreadable_cancellation(body, error)], None)

    async def _entry_after(self, result: Result) -> Entry | None:
        """Write what a result says, and return the entry that its messages belong to."""
        match result:
            case Rejected(_, forget):
                if forget is not None:
                    await self._ledger.forget(forget)
                return None
            case Decided(was, decision, expires_at, doubt_age_s):
                now = time.time()
                since = now - doubt_age_s
                reached = apply_decision(
                    was, decision, now, expires_at=expires_at, unsure_since=since
                )
                return await self._record(reached, was)
            case Reached(entry, was) | Noted(entry, was):
                return await self._record(entry, was)
            case AlreadyKnown(entry):
                return entry
            case Postponed(_, entry):
                return entry if entry is not None and entry.state == "delayed" else None
            case Ignored():
                return None
        assert_never(result)

    def _announcements(
        self, result: Result, entry: Entry | None, message: Delivery | Unreadable
    ) -> list[Announcement]:
        match result, message:
            case Rejected(error), _:
                return self._announcer.invalid(message, error)
            case Postponed(wait_s, waiting), Delivery():
                return [self._announcer.postponed(message, wait_s, waiting)]
            case _, Delivery() if entry is not None:
                again = isinstance(result, AlreadyKnown) and result.asked_again
                return self._announcer.announcements(entry, message, asked_again=again)
        return []

    async def _was_taken_back(self, result: Result, entry: Entry | None) -> bool:
        """Tell whether a request was taken back during its call, and is not to wait for another."""
        if entry is None or entry.state != "delayed" or not isinstance(result, Decided):
            return False
        current = await self._ledger.get(entry.request_id)
        taken_back = current is not None and current.cancelled_at > 0
        return taken_back and entry.unsure_since is None

    async def _record(self, reached: Entry, was: Entry | None) -> Entry | None:
        """Write an outcome however long it takes; a call that the portal accepted always wins."""
        reached = replace(reached, clock_offset_s=self._ages.clock_offset_s())
        while True:
            try:
                written = await self._ledger.put(reached, was)
                if written is not None:
                    self._ages.note(written, was)
                if written is not None or reached.confirmed_by != "answer":
                    return written
                was = await self._ledger.get(reached.request_id)
                if was is not None and was.state == "started":
                    return None
            except LedgerDown as error:
                await self._recovery.wait(error)

    async def _send(self, announcements: Sequence[Announcement], entry: Entry | None) -> None:
        """Publish in order; once the first is out, note so in the ledger, if *entry* is there."""
        for announcement in announcements:
            await self._publisher.send(announcement.outgoing)
            if entry is not None and announcement is announcements[0]:
                await self._mark_published(entry)
            if announcement.counter is not None:
                announcement.counter.inc()
            if announcement.event:
                tell = log.warning if announcement.level == "warning" else log.info
                tell(announcement.event, **announcement.fields)

    async def _mark_published(self, entry: Entry) -> None:
        if entry.published:
            return
        try:
            await self._ledger.put(replace(entry, published=True), entry)
        except LedgerDown:
            log.warning("ledger.not_marked")  # the next copy of the message publishes it once more

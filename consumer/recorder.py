"""The result of a step is recorded and published here, and nowhere else."""

import time
from collections.abc import Sequence
from dataclasses import replace

import structlog

from consumer.announcer import Announcer
from consumer.delivery import Delivery, Unreadable
from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.ledger.ages import Ages
from consumer.ledger.changes import cancel
from consumer.ledger.recovery import Recovery
from consumer.messages import Invalid
from consumer.rabbitmq.outgoing import Announcement
from consumer.rabbitmq.publisher import Publisher
from consumer.results import (
    AlreadyKnown,
    Closing,
    Decided,
    Ignored,
    LetPass,
    Passing,
    Postponed,
    Rejected,
    Result,
    entry_after,
)

log = structlog.get_logger(__name__)


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
        if entry is None and isinstance(result, Closing):
            log.warning("call.overtaken")
            return False
        if isinstance(result, Passing) or await self._was_taken_back(result, entry):
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
            cancelled = cancel(entry, entry.replay, time.time(), entry.body_digest)
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
            case AlreadyKnown(entry):
                return entry
            case Postponed(_, entry):
                return entry if entry.state == "delayed" else None
            case Ignored() | LetPass():
                return None
            case _:
                return await self._record(entry_after(result, time.time()), result.was)

    def _announcements(
        self, result: Result, entry: Entry | None, message: Delivery | Unreadable
    ) -> list[Announcement]:
        match result, message:
            case Rejected(error), _:
                return self._announcer.invalid(message, error)
            case LetPass(), Delivery():
                return [self._announcer.let_pass(message)]
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
        offset_s = self._ages.clock_offset_s()
        if offset_s != reached.clock_offset_s:
            reached = replace(reached, clock_offset_s=offset_s)
        while True:
            try:
                if was is not None and was.state == "started" and reached.state != "started":
                    await self._ledger.earlier.remember_call(was)
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
        """Note that what belongs to a closed request is out: of dead letters there is to be one."""
        if entry.published or entry.state == "delayed":
            return
        if entry.state == "started":
            self._ledger.published.add(entry)
            return
        try:
            await self._ledger.put(replace(entry, published=True), entry)
        except LedgerDown:
            self._ledger.published.add(entry)  # until then a copy publishes it once more

"""What a step came to is recorded and published here, and nowhere else."""

from dataclasses import dataclass, replace
from typing import assert_never

import structlog

from consumer.announcer import Announcer
from consumer.delivery import Delivery
from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.ledger.ages import Ages
from consumer.ledger.recovery import Recovery
from consumer.messages import Invalid

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


class Recorder:
    """Writes what steps come to into the ledger, then publishes it."""

    def __init__(
        self, ledger: Ledger, ages: Ages, recovery: Recovery, announcer: Announcer
    ) -> None:
        self._ledger = ledger
        self._ages = ages
        self._recovery = recovery
        self._announcer = announcer

    async def carry_out(self, result: Result, delivery: Delivery) -> bool:
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
                    self._ages.note(written, was)
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

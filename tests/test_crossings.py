"""Cancellations, pauses and blocks against all that can happen to a request: a model of it.

The model is ten lines: what was forbidden before a claim is never dialled after it; nobody is
phoned twice unless it is proved that the phone did not ring; each replay has one final event; what
was taken back and never started ends as cancelled.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from consumer.blocks import Block
from consumer.caller import GivenBack, Turn
from consumer.decision import Announce, Decision, Fail, Failure, Reconcile, Retry
from consumer.delivery import read_headers
from consumer.findings import Found, HistoryFinding, LookUpFailed, NotFound
from consumer.ledger import Ledger
from tests.desk import Desk
from tests.fakes import FakePublisher, delivery

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from consumer.delivery import Delivery
    from consumer.messages import CallRequested
    from consumer.rabbitmq.outgoing import Outgoing

T = TypeVar("T")
OUTCOMES: dict[str, Decision] = {
    "placed": Announce(None),
    "unavailable": Retry(5.0, 2, Failure("HTTP_503")),
    "refused": Fail("refused", Failure("ERROR_CORE")),
    "lost, and it rang": Reconcile(5.0, Failure("READ_TIMEOUT")),
    "lost, and it did not": Reconcile(5.0, Failure("READ_TIMEOUT")),
}
ACTS = ["cancel", "pause", "block"]
BLOCK = Block("b-1", "metadata", "campaign", "42", "wrong text", 0.0, "ann")


class Crossings(RuleBasedStateMachine):
    """One request, its copies and replays, a worker, an operator and an upstream."""

    url = "sqlite://"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.call_id = uuid4().hex  # machines share a database, and a call is one request's
        self.queue: list[Delivery] = []
        self.dead: list[Outgoing] = []
        self.events: dict[str, dict[str, Any]] = {}
        self.phone_rang = 0
        self.dialled_forbidden = False
        self.cancelled = self.paused = self.blocked = False
        self.crossing: tuple[str, str] | None = None
        self.outcome = "placed"

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    @initialize()
    def start(self) -> None:
        ledger = Ledger(self.url, f"queue-{uuid4().hex}")
        self.run(ledger.open())
        self.desk = Desk(ledger)
        self.run(self.desk.controls.refresh())
        setattr(self.desk.caller, "place", self.place)  # noqa: B010  # or mypy minds the names
        setattr(self.desk.caller, "turn", self.turn)  # noqa: B010  # the same
        self.processor = self.desk.processor(lag_s=0.0)
        self.queue.append(self.message(0))

    def teardown(self) -> None:
        if hasattr(self, "desk"):
            self.settle()
            self.run(self.desk.ledger.close())
        self.loop.close()

    @staticmethod
    def message(replay: int, *, redelivered: bool = False) -> Delivery:
        return delivery(metadata={"campaign": "42"}, replay=replay, redelivered=redelivered)

    # --- what happens

    async def place(
        self, call: CallRequested, attempt: int, turn: Turn, *, send_before: float
    ) -> Decision:
        assert (call.request_id, attempt > 0, turn.epoch, send_before > 0) == ("r-1", True, 0, True)
        self.dialled_forbidden |= self.cancelled or self.paused or self.blocked
        await self.cross("call")
        self.phone_rang += self.outcome in {"placed", "lost, and it rang"}
        return Announce(self.call_id) if self.outcome == "placed" else OUTCOMES[self.outcome]

    async def turn(self) -> Turn:
        self.desk.caller.check()
        await self.cross("turn")
        self.desk.caller.check()
        return Turn(0)

    async def cross(self, moment: str) -> None:
        """Do what comes while a request waits for its turn, or in mid-call."""
        match self.crossing:
            case (act, at) if at == moment:
                self.crossing = None
            case _:
                return
        if act == "cancel":
            await self.desk.take_back()
            self.cancelled = True
        elif act == "pause":
            await self.desk.ledger.controls.pause("wrong text", "ann")
            self.paused = True
        elif not self.blocked:
            await self.desk.ledger.controls.add_block(BLOCK)
            self.blocked = True

    @rule()
    def publish_a_copy(self) -> None:
        self.queue.append(self.message(0))

    @precondition(lambda self: self.queue)
    @rule(
        outcome=st.sampled_from(list(OUTCOMES)),
        crossing=st.none() | st.tuples(st.sampled_from(ACTS), st.sampled_from(["turn", "call"])),
        history=st.booleans(),
    )
    def deliver(self, outcome: str, crossing: tuple[str, str] | None, *, history: bool) -> None:
        self.outcome, self.crossing = outcome, crossing
        self.desk.reconciler.findings = [self.finding() if history else LookUpFailed("away")]
        self.process(self.queue.pop(0))

    @rule()
    def let_time_pass(self) -> None:
        entry = self.run(self.desk.ledger.get("r-1"))
        if entry is not None and entry.state == "delayed":
            self.run(self.desk.ledger.put(replace(entry, due_at=entry.changed_at), entry))

    @rule()
    def cancel(self) -> None:
        self.run(self.desk.take_back())
        self.cancelled = True
        self.collect()

    @rule(to=st.booleans())
    def pause_or_resume(self, *, to: bool) -> None:
        controls = self.desk.ledger.controls
        self.run(controls.pause("wrong text", "ann") if to else controls.resume())
        self.paused = to

    @rule(to=st.booleans())
    def block_or_not(self, *, to: bool) -> None:
        controls = self.desk.ledger.controls
        if to != self.blocked:
            self.run(controls.add_block(BLOCK) if to else controls.remove_block("b-1"))
        self.blocked = to

    @rule()
    def restart(self) -> None:
        self.processor = self.desk.processor(lag_s=0.0)

    @precondition(lambda self: self.dead)
    @rule()
    def replay(self) -> None:
        letter = self.dead.pop(0)
        self.queue.append(self.message(int(letter.headers["x-replay"]) + 1))

    # --- what follows

    def finding(self) -> HistoryFinding:
        return Found(self.call_id) if self.phone_rang else NotFound(conclusive=True)

    def process(self, message: Delivery) -> None:
        if self.desk.controls.paused:  # as the worker asks every second
            self.run(self.desk.controls.refresh())
        try:
            self.run(self.processor.process(message))
        except GivenBack:
            self.queue.append(message)
        self.collect()

    def collect(self) -> None:
        """Take what was published to where it belongs."""
        for out in self.desk.publisher.sent:
            name = FakePublisher.name_of(out)
            if name == "dead letter":
                self.dead.append(out)
            elif name == "postponed":
                headers = read_headers(out.headers, ours=True, now=datetime.now(UTC))
                again = self.message(headers.replay)
                self.queue.append(replace(again, headers=headers))
            else:
                self.note(out)
        self.desk.publisher.sent.clear()

    def note(self, out: Outgoing) -> None:
        event = json.loads(out.body)
        known = self.events.setdefault(event["event_id"], event)
        same = {key: value for key, value in event.items() if key != "confirmed_by"}
        assert same == {key: value for key, value in known.items() if key != "confirmed_by"}

    def settle(self) -> None:
        """Let everything go on until nothing is left to do, and see how it ended."""
        self.run(self.desk.ledger.controls.resume())
        self.paused = False
        self.outcome, self.crossing = "placed", None
        for _ in range(200):
            if not self.queue and self.dead and not self.blocked:
                self.replay()
            if not self.queue:
                break
            self.let_time_pass()
            self.desk.reconciler.findings = [self.finding()]
            self.process(self.queue.pop(0))
        assert self.queue == []
        self.see_how_it_ended()

    def see_how_it_ended(self) -> None:
        self.run(self.desk.ledger.published.flush())
        entry = self.run(self.desk.ledger.get("r-1"))
        assert entry is not None
        assert entry.state in {"started", "failed"}
        assert entry.published
        assert sum("started_at" in event for event in self.events.values()) == self.phone_rang
        last = [event for event in self.events.values() if event["replay"] == entry.replay]
        assert entry.reason in {event.get("reason") for event in last}
        if self.cancelled and not self.phone_rang:
            assert entry.reason == "cancelled" or self.dead

    @invariant()
    def nothing_forbidden_is_dialled(self) -> None:
        assert not self.dialled_forbidden

    @invariant()
    def nobody_is_phoned_twice(self) -> None:
        assert self.phone_rang <= 1


class SharedCrossings(Crossings):
    """The same over PostgreSQL."""


def test_every_crossing_ends_as_the_rules_say() -> None:
    run_state_machine_as_test(
        Crossings, settings=settings(max_examples=60, stateful_step_count=25, deadline=None)
    )


def test_every_crossing_ends_so_in_postgresql(database_url: str) -> None:
    SharedCrossings.url = database_url
    run_state_machine_as_test(
        SharedCrossings,
        settings=settings(
            max_examples=10,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )

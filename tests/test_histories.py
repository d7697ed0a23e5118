"""All that can happen to one request, in any order, against the ten rules of `promises`.

A history is made up of copies, replays, cancellations, pauses, blocks, lost answers, processes that
are killed between any two writes, and two workers that share a ledger. The ledger is real; portal
and broker are played. `make histories` makes up 10,000.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import pytest
import structlog
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
from consumer.decision import Decision, Failure, Outcome, Placed, Refused, Unavailable, Unsure
from consumer.decision import decide as decision_on
from consumer.delivery import Delivery, read_headers
from consumer.findings import Found, HistoryFinding, LookUpFailed, NotFound
from consumer.ledger import Ledger
from tests.desk import Desk
from tests.fakes import NUMBER, FakePublisher, delivery
from tests.promises import AT_ANY_TIME, CAUSES, Call, Copy, Event, Story, broken

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from consumer.ledger import Entry
    from consumer.messages import CallRequested
    from consumer.processor import Processor
    from consumer.rabbitmq.outgoing import Outgoing

T = TypeVar("T")
DELAYS_S = (5, 30)
OTHER_NUMBER = "+12025550199"
LONG_S = 10_000.0
"""Longer than anything that a request waits for."""
OUTCOMES: dict[str, Outcome] = {
    "placed": Placed(None),
    "unavailable": Unavailable(Failure("HTTP_503")),
    "refused": Refused(Failure("ERROR_CORE")),
    "lost, and it rang": Unsure(Failure("READ_TIMEOUT")),
    "lost, and it did not": Unsure(Failure("READ_TIMEOUT")),
}
RINGS = {"placed", "lost, and it rang"}
ACTS = ["cancel", "pause", "block", "a copy comes"]
BLOCK = Block("b-1", "metadata", "campaign", "42", "wrong text", 0.0, "ann")


class KilledError(BaseException):
    """SIGKILL: no handler may take it for an error."""


@dataclass
class Fuse:
    """Kills a process at a write: just before it, or just after; None: never."""

    left: int | None = None

    def burn(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                self.left = None
                raise KilledError

    def at(self, write: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., Any]:
        async def watched(*arguments: object) -> T:
            self.burn()
            written = await write(*arguments)
            self.burn()
            return written

        return watched


@dataclass
class Clock:
    """Counts what happens, and the seconds that were let pass."""

    happened: int = 0
    passed_s: float = 0.0

    def tick(self) -> float:
        self.happened += 1
        return float(self.happened)


@dataclass
class Seen:
    """What the world sees of the request."""

    calls: list[Call] = field(default_factory=list)
    numbers: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    dead: list[tuple[int, Delivery]] = field(default_factory=list)
    queue: list[Delivery] = field(default_factory=list)
    causes: set[str] = field(default_factory=set)
    forbidden: list[tuple[float, float]] = field(default_factory=list)
    allowed: int = 1
    replays: int = 0

    def story(self) -> Story:
        waiting = [Copy("requests", each.headers.replay, dead=False) for each in self.queue]
        dead = [Copy("dead letters", replay, dead=True) for replay, _ in self.dead]
        return Story(
            calls=self.calls,
            events=self.events,
            copies=[*waiting, *dead],
            allowed=self.allowed,
            causes=frozenset(self.causes),
            forbidden=self.forbidden,
            replays=self.replays,
        )


class Histories(RuleBasedStateMachine):
    """One request, its copies and replays, two workers, an operator and an upstream."""

    url = "sqlite://"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.seen, self.clock, self.fuse = Seen(), Clock(), Fuse()
        self.paused_since: float | None = None
        self.blocked_since: float | None = None
        self.numbers: dict[int, set[str]] = defaultdict(set)
        self.crossing: tuple[str, str] | None = None
        self.outcome = "placed"
        self.history_answers = True
        self.works_now = 0

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    @initialize(expires=st.booleans())
    def start(self, *, expires: bool) -> None:
        ledger = Ledger(self.url, f"queue-{uuid4().hex}")
        self.run(ledger.open())
        self.run(ledger.begin())
        self.desk = Desk(ledger, clock=lambda: self.clock.passed_s)
        self.run(self.desk.controls.refresh())
        for neighbour, name, played in (
            (self.desk.caller, "place", self.place),
            (self.desk.caller, "turn", self.turn),
            (self.desk.reconciler, "look", self.look),
            (ledger, "claim", self.fuse.at(ledger.claim)),
            (ledger, "put", self.fuse.at(ledger.put)),
            (self.desk.publisher, "send", self.fuse.at(self.desk.publisher.send)),
        ):
            setattr(neighbour, name, played)
        self.processors = [self.new_process(), self.new_process()]
        self.fields: dict[str, object] = {"metadata": {"campaign": "42"}}
        if expires:  # before the second retry
            soon = datetime.now(UTC) + timedelta(seconds=20)
            self.fields["expires_at"] = soon.isoformat()
            self.seen.causes.add(CAUSES["expired"])
        self.seen.queue.append(self.message())

    def new_process(self) -> Processor:
        return self.desk.processor(lag_s=10.0)

    def teardown(self) -> None:
        try:
            if hasattr(self, "desk"):
                self.settle()
        finally:
            self.run(self.close())
            self.loop.close()

    async def close(self) -> None:
        if hasattr(self, "desk"):
            await self.desk.ledger.close()

    def message(self, replay: int = 0, *, redial: bool = False, **fields: object) -> Delivery:
        return delivery(replay=replay, redial=redial, **(self.fields | fields))  # type: ignore[arg-type]

    # --- the neighbours

    async def place(
        self, call: CallRequested, attempt: int, turn: Turn, *, send_before: float
    ) -> Decision:
        assert (turn.epoch, send_before > 0) == (0, True)
        begun, outcome = self.clock.tick(), self.outcome
        rings = outcome in RINGS
        call_id = uuid4().hex
        if rings:
            self.seen.calls.append(Call(begun, call_id))
            self.seen.numbers[call_id] = call.to_number
        await self.cross("call")
        self.fuse.burn()
        answer = Placed(call_id) if outcome == "placed" else OUTCOMES[outcome]
        return decision_on(answer, attempt, DELAYS_S)

    async def turn(self) -> Turn:
        self.desk.caller.check()
        await self.cross("turn")
        self.desk.caller.check()
        return Turn(0)

    async def look(self, entry: Entry, call: CallRequested) -> HistoryFinding:
        if not self.history_answers:
            return LookUpFailed("away")
        told = {event.call_id for event in self.seen.events} | {entry.call_id}
        calls = self.seen.numbers.items()
        ours = [each for each, number in calls if number == call.to_number and each not in told]
        return Found(ours[-1]) if ours else NotFound(conclusive=True)

    async def cross(self, moment: str) -> None:
        """Do what comes while a request waits for its turn, or in mid-call."""
        match self.crossing:
            case (act, at) if at == moment:
                self.crossing = None
            case _:
                return
        left, self.fuse.left = self.fuse.left, None  # it is another process that acts now
        await self.act(act)
        self.fuse.left = left

    async def act(self, act: str) -> None:
        match act:
            case "cancel":
                await self.desk.take_back()
                self.note_cancellation()
            case "pause":
                await self.desk.ledger.controls.pause("wrong text", "ann")
                self.paused_since = self.paused_since or self.clock.tick()
            case "block":
                if self.blocked_since is None:
                    await self.desk.ledger.controls.add_block(BLOCK)
                    self.note_block()
            case _:
                await self.give(self.message(), 1 - self.works_now)

    # --- what happens

    @rule(redelivered=st.booleans())
    def publish_a_copy(self, *, redelivered: bool) -> None:
        self.seen.queue.append(replace(self.message(), redelivered=redelivered))

    @rule()
    def publish_other_content(self) -> None:
        self.seen.causes.add(CAUSES["invalid"])
        self.seen.queue.append(self.message(text_to_pronounce="Something else."))

    @precondition(lambda self: self.seen.queue)
    @rule(
        outcome=st.sampled_from(list(OUTCOMES)),
        crossing=st.none() | st.tuples(st.sampled_from(ACTS), st.sampled_from(["turn", "call"])),
        history=st.booleans(),
        worker=st.integers(0, 1),
        killed_at=st.none() | st.integers(1, 12),
    )
    def deliver(
        self,
        outcome: str,
        crossing: tuple[str, str] | None,
        worker: int,
        killed_at: int | None,
        *,
        history: bool,
    ) -> None:
        self.outcome, self.crossing = outcome, crossing
        self.history_answers = history
        self.fuse.left = killed_at
        self.process(self.seen.queue.pop(0), worker)

    @rule()
    def let_time_pass(self) -> None:
        self.clock.passed_s += LONG_S

    @rule()
    def cancel(self) -> None:
        self.run(self.desk.take_back())
        self.note_cancellation()
        self.collect()

    @rule(to=st.booleans())
    def pause_or_resume(self, *, to: bool) -> None:
        controls = self.desk.ledger.controls
        self.run(controls.pause("wrong text", "ann") if to else controls.resume())
        self.end("paused_since")
        self.paused_since = self.clock.tick() if to else None

    @rule(to=st.booleans())
    def block_or_not(self, *, to: bool) -> None:
        controls = self.desk.ledger.controls
        if to and self.blocked_since is None:
            self.run(controls.add_block(BLOCK))
            self.note_block()
        elif not to and self.blocked_since is not None:
            self.run(controls.remove_block("b-1"))
            self.end("blocked_since")

    @rule(worker=st.integers(0, 1))
    def restart(self, worker: int) -> None:
        self.processors[worker] = self.new_process()

    @precondition(lambda self: self.seen.dead)
    @rule(redial=st.booleans(), edited=st.booleans())
    def replay(self, *, redial: bool = False, edited: bool = False) -> None:
        replay, letter = self.seen.dead.pop(0)
        fields = {"to_number": OTHER_NUMBER} if edited else {}
        number = letter.fields.get("to_number", NUMBER)
        again = self.message(replay + 1, redial=redial, **({"to_number": number} | fields))
        self.seen.allowed += redial or edited
        self.seen.replays = max(self.seen.replays, replay + 1)
        self.numbers[replay + 1].add(str(again.fields["to_number"]))
        if len(self.numbers[replay + 1]) > 1:  # two copies of a dead letter, one of them edited
            self.seen.causes.add(CAUSES["invalid"])
        self.seen.queue.append(again)

    # --- what follows

    def note_cancellation(self) -> None:
        self.seen.causes.add(CAUSES["cancelled"])
        self.seen.forbidden.append((self.clock.tick(), float("inf")))

    def note_block(self) -> None:
        self.seen.causes.add(CAUSES["blocked"])
        self.blocked_since = self.clock.tick()

    def end(self, name: str) -> None:
        """Note that calls were forbidden until now."""
        if (since := getattr(self, name)) is not None:
            self.seen.forbidden.append((since, self.clock.tick()))
            setattr(self, name, None)

    def process(self, message: Delivery, worker: int = 0) -> None:
        if self.desk.controls.paused:  # as the worker asks every second
            self.run(self.desk.controls.refresh())
        self.works_now = worker
        self.run(self.give(message, worker))
        self.fuse.left = None
        self.collect()

    async def give(self, message: Delivery, worker: int) -> None:
        """Give a worker a message; where it is killed, the broker delivers it once more."""
        try:
            await self.processors[worker].process(message)
        except GivenBack:
            self.seen.queue.append(message)
        except KilledError:
            self.processors[worker] = self.new_process()
            self.seen.queue.append(replace(message, redelivered=True))

    def collect(self) -> None:
        """Take what was published to where it belongs."""
        for out in self.desk.publisher.sent:
            match FakePublisher.name_of(out):
                case "dead letter":
                    self.keep(out)
                case "postponed":
                    self.seen.queue.append(self.read(out))
                case _:
                    self.note(json.loads(out.body), out.kind or "")
        self.desk.publisher.sent.clear()

    def read(self, out: Outgoing) -> Delivery:
        headers = read_headers(out.headers, ours=True, now=datetime.now(UTC))
        fields = json.loads(out.body)
        del fields["request_id"]
        return replace(self.message(**fields), headers=headers)

    def keep(self, out: Outgoing) -> None:
        """Keep a dead letter; one of other content is discarded, as its advice says."""
        if out.headers["x-reason"] != "invalid":
            self.seen.dead.append((int(out.headers["x-replay"]), self.read(out)))

    def note(self, body: dict[str, Any], kind: str) -> None:
        told = {key: value for key, value in body.items() if key != "confirmed_by"}
        known = self.seen.bodies.setdefault(body["event_id"], told)
        if body.get("reason") == "invalid":
            # It leaves no entry: a copy, or a replay, tells of itself under the same id.
            known |= {"failed_at": told["failed_at"], "replay": told["replay"]}
        assert told == known, "an event was repeated otherwise than it was"
        self.seen.events.append(
            Event(
                self.clock.tick(),
                kind,
                body["event_id"],
                body["replay"],
                body.get("reason"),
                body.get("call_id"),
            )
        )

    def settle(self) -> None:
        """Let all go on until nothing is left to do, and see how it ended."""
        self.run(self.desk.ledger.controls.resume())
        self.end("paused_since")
        self.outcome, self.crossing, self.history_answers = "placed", None, True
        for _ in range(200):
            if not self.seen.queue:
                break
            self.let_time_pass()
            self.process(self.seen.queue.pop(0))
        self.see(broken(self.seen.story()))

    def see(self, wrong: list[str]) -> None:
        assert not wrong, f"{'; '.join(wrong)}\n{self.seen.story()}"

    @invariant()
    def no_rule_is_broken(self) -> None:
        self.see(broken(self.seen.story(), AT_ANY_TIME))


class SharedHistories(Histories):
    """The same over PostgreSQL."""


@pytest.fixture(autouse=True)
def _without_log() -> None:
    """Leave a counterexample alone on the screen."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def test_no_history_breaks_a_rule(pytestconfig: pytest.Config) -> None:
    number = pytestconfig.getoption("histories")
    run_state_machine_as_test(Histories, settings=settings(max_examples=number, deadline=None))


def test_no_history_breaks_a_rule_in_postgresql(
    database_url: str, pytestconfig: pytest.Config
) -> None:
    SharedHistories.url = database_url
    number = pytestconfig.getoption("histories") // 5
    run_state_machine_as_test(
        SharedHistories,
        settings=settings(
            max_examples=number,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )

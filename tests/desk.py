"""A processor with stand-ins for all around it but the ledger."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from consumer.announcer import Announcer
from consumer.attempts import Attempts
from consumer.controls import LiveControls
from consumer.interruptible import Interruptible
from consumer.ledger import Ledger
from consumer.ledger.ages import Ages
from consumer.ledger.changes import cancel_unseen
from consumer.ledger.recovery import Recovery
from consumer.limits.calling_hours import CallingHours
from consumer.limits.own_rules import OwnRules
from consumer.processor import Processor
from consumer.rabbitmq.topology import build_topology
from consumer.reconciler import Reconciler
from consumer.recorder import Recorder
from tests.fakes import FakeCaller, FakePublisher, FakeReconciler, FakeSubscription

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from consumer.decision import Decision
    from consumer.ledger import Entry


@dataclass
class Desk:
    """A processor and its neighbours."""

    ledger: Ledger
    caller: FakeCaller = field(default_factory=FakeCaller)
    reconciler: FakeReconciler = field(default_factory=FakeReconciler)
    publisher: FakePublisher = field(default_factory=FakePublisher)
    subscription: FakeSubscription = field(default_factory=FakeSubscription)
    rules: OwnRules = field(default_factory=OwnRules)
    hours: CallingHours = field(default_factory=CallingHours)
    waiting: int = 0
    clock: Callable[[], float] = time.monotonic
    controls: LiveControls = field(init=False)

    def __post_init__(self) -> None:
        self.controls = LiveControls(self.ledger.controls, self.subscription, self.count_waiting)
        self.caller.paused_by_hand = lambda: self.controls.paused

    async def count_waiting(self) -> int:
        return self.waiting

    def processor(self, *, lag_s: float = 300.0, retry_unsure: bool = False) -> Processor:
        """Return a new process's processor."""
        history: Any = None
        caller: Any = self.caller
        ages = Ages(lambda: None, clock=self.clock)
        recovery = Recovery(self.ledger, self.subscription)
        waits = Interruptible()
        reconciler = Reconciler(
            self.ledger,
            history,
            ages,
            lag_s=lag_s,
            delays_s=(5, 30),
            retry_unsure=retry_unsure,
        )
        reconciler.look = self.reconciler.look  # type: ignore[method-assign]
        return Processor(
            ledger=self.ledger,
            ages=ages,
            recovery=recovery,
            attempts=Attempts(
                owner=str(uuid4()),
                ledger=self.ledger,
                ages=ages,
                recovery=recovery,
                caller=caller,
                controls=self.controls,
                rules=self.rules,
                hours=self.hours,
                waits=waits,
            ),
            caller=caller,
            reconciler=reconciler,
            recorder=self.recorder(ages),
            waits=waits,
            timeout_s=65.0,
        )

    def recorder(self, ages: Ages | None = None) -> Recorder:
        """Return a recorder, which replicas share as they share the ledger."""
        publisher: Any = self.publisher
        return Recorder(
            ledger=self.ledger,
            ages=ages or Ages(lambda: None),
            recovery=Recovery(self.ledger, self.subscription),
            announcer=Announcer(build_topology("calls", "q", (5, 30))),
            publisher=publisher,
        )

    async def take_back(self, request_id: str = "r-1", why: str | None = None) -> Entry:
        """Take a request back, as another replica does."""
        return await self.recorder().take_back(cancel_unseen(request_id, "other", why, time.time()))

    async def entry(self, request_id: str = "r-1") -> Entry:
        entry = await self.ledger.get(request_id)
        assert entry is not None
        return entry


def deciding(desk: Desk, *decisions: Decision) -> Processor:
    desk.caller.decisions = list(decisions)
    return desk.processor()


@asynccontextmanager
async def opened_desk(url: str = "sqlite://") -> AsyncIterator[Desk]:
    """Lend a desk, with a ledger in memory unless *url* names another."""
    ledger = Ledger(url, "queue")
    await ledger.open()
    desk = Desk(ledger)
    await desk.controls.refresh()
    yield desk
    await ledger.close()

"""Small stand-ins for the neighbours of the part under test; each remembers what it was told."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from consumer.caller import GivenBack, Turn
from consumer.delivery import Delivery, MessageHeaders
from consumer.ledger import Entry
from consumer.messages import Defaults, read_json, read_request
from tests.canary import TEXT

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.decision import Decision
    from consumer.findings import HistoryFinding
    from consumer.messages import CallRequested
    from consumer.rabbitmq.outgoing import Outgoing

NUMBER = "+12025550100"


def delivery(
    request_id: str = "r-1",
    *,
    replay: int = 0,
    redial: bool = False,
    redelivered: bool = False,
    unsure_since: datetime | None = None,
    defaults: Defaults | None = None,
    **fields: object,
) -> Delivery:
    """Make a delivery as it is read from a message."""
    whole = {"request_id": request_id, "to_number": NUMBER, "text_to_pronounce": TEXT} | fields
    body = json.dumps(whole).encode()
    headers = MessageHeaders(
        replay=replay,
        redial=redial,
        unsure_since=unsure_since,
        first_seen_at=datetime.now(UTC),
    )
    request = read_request(read_json(body), defaults or Defaults(line="reg1"))
    identity = (request_id, 1, replay, None)
    return Delivery(body, whole, request_id, request, headers, identity, redelivered)


def placing(request_id: str) -> Entry:
    """Make the entry of a request that somebody dials just now."""
    return Entry(
        request_id=request_id,
        state="placing",
        attempt=1,
        replay=0,
        owner="a worker",
        first_seen_at=0,
        changed_at=0,
        body_digest="",
    )


@dataclass
class FakeCaller:
    """Calls as it is told; the last decision stays."""

    decisions: list[Decision] = field(default_factory=list)
    placed: list[tuple[CallRequested, int]] = field(default_factory=list)
    stopping: bool = False
    paused: bool = False
    free: bool = True
    paused_by_hand: Callable[[], bool] = lambda: False

    def check(self) -> None:
        if self.stopping or self.paused or self.paused_by_hand():
            raise GivenBack

    def is_free(self) -> bool:
        return self.free

    async def turn(self) -> Turn:
        self.check()
        return Turn(0)

    async def place(
        self, call: CallRequested, attempt: int, _: Turn, *, send_before: float
    ) -> Decision:
        assert send_before > 0
        self.placed.append((call, attempt))
        return self.decisions.pop(0) if len(self.decisions) > 1 else self.decisions[0]


@dataclass
class FakeReconciler:
    """Finds what it is told; the last finding stays."""

    findings: list[HistoryFinding] = field(default_factory=list)
    looked_up: list[Entry] = field(default_factory=list)

    async def look(self, entry: Entry, call: CallRequested) -> HistoryFinding:
        assert call.request_id == entry.request_id
        self.looked_up.append(entry)
        return self.findings.pop(0) if len(self.findings) > 1 else self.findings[0]


@dataclass
class FakePublisher:
    """Remembers what was published, in order."""

    sent: list[Outgoing] = field(default_factory=list)

    async def send(self, outgoing: Outgoing) -> None:
        self.sent.append(outgoing)

    @property
    def names(self) -> list[str]:
        """Name each message: an event's type, or the kind of queue it went to."""
        return [self.name_of(outgoing) for outgoing in self.sent]

    @staticmethod
    def name_of(outgoing: Outgoing) -> str:
        """Name a message as `names` does."""
        if outgoing.kind is not None:
            return outgoing.kind.removeprefix("call.")
        return "dead letter" if outgoing.routing_key.endswith(".dlq") else "postponed"

    @property
    def last(self) -> dict[str, Any]:
        """The fields of the last event."""
        return dict(json.loads(self.sent[-1].body))


@dataclass
class FakeSubscription:
    """Remembers why it is held."""

    queue: str = "call.requested"
    paused_by: set[str] = field(default_factory=set)
    prefetch: int | None = None

    def pause(self, reason: str) -> None:
        self.paused_by.add(reason)

    def resume(self, reason: str) -> None:
        self.paused_by.discard(reason)

    def set_prefetch(self, prefetch: int | None) -> None:
        self.prefetch = prefetch

    async def until_idle(self) -> None:
        pass

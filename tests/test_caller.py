"""One call within the limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from consumer.bitrix24.responses import Usage
from consumer.caller import LONGEST_BLOCK_S, Caller, GivenBack
from consumer.decision import (
    Announce,
    Decision,
    Fail,
    Failure,
    Outcome,
    Placed,
    Reconcile,
    Refused,
    Retry,
    Unavailable,
    Unsure,
)
from consumer.limits.circuit_breaker import CircuitBreaker
from tests.fakes import FakeSubscription, delivery

if TYPE_CHECKING:
    from consumer.messages import CallRequested

NOW = 1_790_000_000.0
REVOKED = Refused(Failure("INVALID_CREDENTIALS", "", 401), "portal")
TOO_LONG = Unavailable(Failure("OPERATION_TIME_LIMIT", "", 429), counts=False)


@dataclass
class FakePortal:
    """Answers in turn; the last answer stays."""

    outcomes: list[Outcome | Exception] = field(default_factory=list)
    usage: Usage | None = None

    async def place(self, _: CallRequested, *, send_before: float) -> Outcome:
        assert send_before == math.inf
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@dataclass
class FakeLimiter:
    """Remembers what it was told."""

    taken: int = 0
    emptied: int = 0
    blocks_s: list[float] = field(default_factory=list)

    async def acquire_for_call(self) -> None:
        self.taken += 1

    def empty(self) -> None:
        self.emptied += 1

    def block_for(self, seconds: float) -> None:
        self.blocks_s.append(seconds)


@dataclass
class Phone:
    """A caller and its neighbours."""

    portal: FakePortal = field(default_factory=FakePortal)
    limiter: FakeLimiter = field(default_factory=FakeLimiter)
    number: int = 0
    paused: bool = False

    def __post_init__(self) -> None:
        async def well(*_: object) -> bool:
            return False

        self.breaker = CircuitBreaker(2, FakeSubscription(), well, None)
        portal: Any = self.portal
        limiter: Any = self.limiter
        self.caller = Caller(
            portal,
            limiter,
            self.breaker,
            paused=lambda: self.paused,
            delays_s=(5, 30),
            operating_limit_s=400,
        )

    async def call(self, *outcomes: Outcome | Exception) -> Decision:
        """Place a call of another request that is answered like that."""
        self.portal.outcomes = list(outcomes)
        self.number += 1
        call = delivery(f"r-{self.number}").call
        assert call is not None
        return await self.caller.place(call, 1, await self.caller.turn(), send_before=math.inf)


@pytest.fixture
def phone() -> Phone:
    return Phone()


DECISIONS: dict[str, tuple[Outcome, Decision]] = {
    "placed": (Placed("c1"), Announce("c1")),
    "refused": (REVOKED, Fail("refused", REVOKED.failure)),
    "unavailable": (
        Unavailable(Failure("HTTP_503", "", 503)),
        Retry(5, 2, Failure("HTTP_503", "", 503)),
    ),
    "unsure": (Unsure(Failure("READ_TIMEOUT", "")), Reconcile(5, Failure("READ_TIMEOUT", ""))),
}


@pytest.mark.parametrize(("outcome", "decision"), DECISIONS.values(), ids=DECISIONS)
async def test_an_answer_leads_to_a_decision(
    phone: Phone, outcome: Outcome, decision: Decision
) -> None:
    assert await phone.call(outcome) == decision
    assert phone.limiter.taken == 1


async def test_whatever_goes_wrong_with_an_answer_the_phone_may_ring(phone: Phone) -> None:
    decision = await phone.call(OverflowError("date value out of range"))

    assert isinstance(decision, Reconcile)
    assert decision.failure.code == "WORKER_ERROR"
    assert "OverflowError" in decision.failure.description


async def test_while_paused_or_stopping_there_is_no_turn(phone: Phone) -> None:
    await phone.call(REVOKED)
    await phone.call(REVOKED)
    with pytest.raises(GivenBack):
        await phone.caller.turn()

    other = Phone()
    other.caller.stopping = True
    with pytest.raises(GivenBack):
        await other.caller.turn()


async def test_a_stop_while_waiting_for_the_rate_leaves_no_turn(phone: Phone) -> None:
    async def slow() -> None:
        phone.caller.stopping = True

    phone.limiter.acquire_for_call = slow  # type: ignore[method-assign]

    with pytest.raises(GivenBack):
        await phone.caller.turn()


async def test_the_one_call_of_a_half_open_breaker_is_tried_again(phone: Phone) -> None:
    await phone.call(REVOKED)
    await phone.call(REVOKED)
    phone.breaker.state = "half_open"

    decision = await phone.call(REVOKED)

    assert isinstance(decision, Retry)
    assert (decision.attempt, decision.failure) == (1, REVOKED.failure)


# What the portal says of its operating time; the answer; for how long no call is made.
BLOCKS: dict[str, tuple[Usage | None, Outcome, list[float]]] = {
    "nothing known": (None, Placed("c1"), []),
    "far from the limit": (Usage(10.0, NOW + 30), Placed("c1"), []),
    "at the limit": (Usage(400.0, NOW + 30), Placed("c1"), [30.0]),
    "at the limit, for long": (Usage(400.0, NOW + 300), Placed("c1"), [LONGEST_BLOCK_S]),
    "at the limit, but over": (Usage(400.0, NOW - 1), Placed("c1"), []),
    "beyond it": (Usage(10.0, NOW + 30), TOO_LONG, [30.0]),
    "beyond it, nothing known": (None, TOO_LONG, [LONGEST_BLOCK_S]),
    "beyond it, known too long ago": (Usage(10.0, NOW - 1), TOO_LONG, [LONGEST_BLOCK_S]),
}


@pytest.mark.parametrize(("usage", "outcome", "blocks_s"), BLOCKS.values(), ids=BLOCKS)
async def test_calls_wait_for_operating_time_to_drop_out(
    phone: Phone,
    monkeypatch: pytest.MonkeyPatch,
    usage: Usage | None,
    outcome: Outcome,
    blocks_s: list[float],
) -> None:
    monkeypatch.setattr("consumer.caller.time.time", lambda: NOW)
    phone.portal.usage = usage

    await phone.call(outcome)

    assert phone.limiter.blocks_s == blocks_s
    assert phone.limiter.emptied == isinstance(outcome, Unavailable)

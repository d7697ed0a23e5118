"""What may happen to a call and what follows from it. Pure: no Bitrix24, no RabbitMQ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

Trouble = Literal["request", "portal", "line", "rate"]
"""Whose trouble an answer tells of: one request's, everybody's, a line's, or our own haste's."""


@dataclass(frozen=True, slots=True)
class Placed:
    """The portal accepted the call; its id may be missing."""

    call_id: str | None


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Certainly not dialled, and may work later.

    Attributes:
        counts: Whether this used up an attempt; a refusal for haste does not.
        retry_after_s: The least wait the other side asked for, in seconds.
    """

    code: str
    description: str
    http_status: int | None = None
    counts: bool = True
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Refused:
    """The portal understood and will say no however often we ask."""

    code: str
    description: str
    http_status: int | None = None
    whose: Trouble = "request"


@dataclass(frozen=True, slots=True)
class Unsure:
    """The phone may be ringing: the answer was lost, or does not tell."""

    code: str
    description: str
    http_status: int | None = None


Outcome = Placed | Unavailable | Refused | Unsure


@dataclass(frozen=True, slots=True)
class Announce:
    """Publish `call.started`."""

    call_id: str | None


@dataclass(frozen=True, slots=True)
class Retry:
    """Wait *delay_s* seconds, then make attempt number *attempt*."""

    delay_s: float
    attempt: int
    code: str
    description: str
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class Verify:
    """Dial no more before the call history has been asked, *delay_s* seconds from now at first."""

    delay_s: float
    code: str
    description: str
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Publish `call.failed` and keep a dead letter."""

    reason: Literal["refused", "exhausted", "unsure"]
    code: str
    description: str
    http_status: int | None = None


Decision = Announce | Retry | Verify | GiveUp


def decide(outcome: Outcome, attempt: int, delays_s: Sequence[int]) -> Decision:
    """Say what follows from *outcome*.

    Args:
        outcome: How the attempt went.
        attempt: The attempt that was made, counting from 1.
        delays_s: One wait in seconds per allowed retry, growing; not empty.
    """
    tries_left = attempt <= len(delays_s)
    match outcome:
        case Placed(call_id):
            return Announce(call_id)
        case Unavailable(code, description, status, counts=False, retry_after_s=wait_s):
            return Retry(max(delays_s[0], wait_s), attempt, code, description, status)
        case Unavailable(code, description, status, retry_after_s=wait_s) if tries_left:
            delay_s = max(delays_s[attempt - 1], wait_s)
            return Retry(delay_s, attempt + 1, code, description, status)
        case Unavailable(code, description, status):
            return GiveUp("exhausted", code, description, status)
        case Refused(code, description, status):
            return GiveUp("refused", code, description, status)
        case Unsure(code, description, status):
            return Verify(delays_s[0], code, description, status)
    assert_never(outcome)


LONGEST_DOUBT_S = 86_400.0
"""How long failing look-ups are repeated before a person has to decide."""


@dataclass(frozen=True, slots=True)
class Found:
    """The call history holds a call that only this request can have placed."""

    call_id: str


@dataclass(frozen=True, slots=True)
class Contested:
    """The call history holds a call that this request or another doubtful one placed."""


@dataclass(frozen=True, slots=True)
class Absent:
    """A complete answer holds no such call; *proved* if the history has shown calls of ours."""

    proved: bool


@dataclass(frozen=True, slots=True)
class NoHistory:
    """The portal will not let us read its call history."""


@dataclass(frozen=True, slots=True)
class LookUpFailed:
    """This look-up says nothing: no connection, no time, or the portal is busy."""


Sighting = Found | Contested | Absent | NoHistory | LookUpFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A call that may have been placed.

    Attributes:
        attempt: The attempt in doubt, counting from 1.
        age_s: Seconds since the answer was lost.
        may_retry: Whether to dial again where no history can tell.
    """

    attempt: int
    age_s: float
    may_retry: bool
    code: str
    description: str
    http_status: int | None = None


def settle(
    doubt: Doubt, sighting: Sighting, delays_s: Sequence[int], lag_s: float
) -> Announce | Retry | GiveUp | Verify:
    """Say what follows from a look into the call history.

    Args:
        doubt: What is not known.
        sighting: What the history shows.
        delays_s: One wait in seconds per allowed retry, growing; not empty.
        lag_s: A call's absence proves nothing until so many seconds after the doubt.
    """
    told = (doubt.code, doubt.description, doubt.http_status)
    look_again = Verify(max(float(delays_s[0]), min(doubt.age_s, lag_s - doubt.age_s)), *told)
    match sighting:
        case Found(call_id):
            return Announce(call_id)
        case Contested():
            return GiveUp("unsure", *told)
        case LookUpFailed() if doubt.age_s < LONGEST_DOUBT_S:
            return Verify(min(max(delays_s[0], doubt.age_s), delays_s[-1]), *told)
        case LookUpFailed():
            return GiveUp("unsure", *told)
        case Absent() if doubt.age_s < lag_s:
            return look_again
        case Absent(proved=True):
            return _dial_again(doubt, doubt.age_s, [0.0] * len(delays_s))
        case Absent() | NoHistory() if doubt.may_retry:
            return _dial_again(doubt, doubt.age_s, delays_s)
        case Absent() | NoHistory():
            return GiveUp("unsure", *told)
    assert_never(sighting)


def _dial_again(doubt: Doubt, waited_s: float, delays_s: Sequence[float]) -> Retry | GiveUp:
    told = (doubt.code, doubt.description, doubt.http_status)
    if doubt.attempt > len(delays_s):
        return GiveUp("exhausted", *told)
    delay_s = max(0.0, delays_s[doubt.attempt - 1] - waited_s)
    return Retry(delay_s, doubt.attempt + 1, *told)

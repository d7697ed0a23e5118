"""What an answer means for a call, and what follows from it. Pure: no Bitrix24, no RabbitMQ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

Scope = Literal["request", "portal", "login", "line", "rented lines", "rate"]
"""Whom an error concerns: one request, every call, every call until a person logs in, the calls
of one line, those of every line that is no SIP line, or our own request rate."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong.

    Attributes:
        code: For programs; the portal's own where it gave one.
        description: For people; holds no number, text or secret.
        http_status: The portal's, if it answered.
    """

    code: str = ""
    description: str = ""
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """The portal accepted the call; its id may be missing."""

    call_id: str | None


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Certainly not dialled, and may work later.

    Attributes:
        counts: Whether this used up an attempt; a refusal because of the request rate does not.
        retry_after_s: The shortest wait the other side asked for, in seconds.
    """

    failure: Failure
    counts: bool = True
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Refused:
    """The portal understood the request, and will refuse it every time."""

    failure: Failure
    scope: Scope = "request"


@dataclass(frozen=True, slots=True)
class Unsure:
    """The phone may be ringing: the answer was lost, or does not tell."""

    failure: Failure


Outcome = Placed | Unavailable | Refused | Unsure


@dataclass(frozen=True, slots=True)
class Announce:
    """Publish `call.started`, and say what shows that the call was placed."""

    call_id: str | None
    confirmed_by: Literal["answer", "history"] = "answer"


@dataclass(frozen=True, slots=True)
class Retry:
    """Wait *delay_s* seconds, then make attempt number *attempt*, counting from 1."""

    delay_s: float
    attempt: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Do not dial; ask the call history in *delay_s* seconds whether the call was placed."""

    delay_s: float
    failure: Failure


@dataclass(frozen=True, slots=True)
class Fail:
    """Publish `call.failed`, and keep a dead letter unless upstream took the request back."""

    reason: Literal["refused", "exhausted", "unsure", "cancelled"]
    failure: Failure


Decision = Announce | Retry | Reconcile | Fail


def decide(outcome: Outcome, attempt: int, delays_s: Sequence[int]) -> Decision:
    """Say what follows from *outcome*.

    Args:
        outcome: How the attempt went.
        attempt: The attempt that was made, counting from 1.
        delays_s: One wait in seconds per allowed retry, growing; not empty.
    """
    match outcome:
        case Placed(call_id):
            return Announce(call_id)
        case Unavailable(counts=False, retry_after_s=wait_s):
            return Retry(max(delays_s[0], wait_s), attempt, outcome.failure)
        case Unavailable(retry_after_s=wait_s) if attempt <= len(delays_s):
            return Retry(max(delays_s[attempt - 1], wait_s), attempt + 1, outcome.failure)
        case Unavailable():
            return Fail("exhausted", outcome.failure)
        case Refused():
            return Fail("refused", outcome.failure)
        case Unsure():
            return Reconcile(delays_s[0], outcome.failure)
    assert_never(outcome)

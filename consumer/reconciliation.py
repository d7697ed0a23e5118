"""What follows from a look into the portal's call history. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from consumer.decision import Announce, Fail, Failure, Reconcile, Retry
from consumer.findings import (
    Ambiguous,
    Found,
    HistoryFinding,
    LookUpFailed,
    NoHistory,
    NotFound,
)

LONGEST_LOOKING_S = 86_400.0
"""How long failing look-ups are repeated before a person has to decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtfulCall:
    """A call that may have been placed.

    Attributes:
        attempt: The attempt in doubt, counting from 1.
        replayed: Whether a person, who knew of the doubt, wants the request tried again.
        age_s: Seconds since the answer was lost.
        looking_s: Seconds since it is looked up: since the answer was lost, or since its replay.
        may_retry: Whether to dial again where no history can tell.
        taken_back: What to say if upstream took the request back: it is not dialled again.
    """

    attempt: int
    replayed: bool
    age_s: float
    looking_s: float
    may_retry: bool
    failure: Failure
    taken_back: Failure | None = None


def reconcile(
    doubt: DoubtfulCall, finding: HistoryFinding, delays_s: Sequence[int], lag_s: float
) -> Announce | Retry | Fail | Reconcile:
    """Say what follows from a look into the call history.

    Args:
        doubt: What is not known.
        finding: What the history shows.
        delays_s: One wait in seconds per allowed retry, growing; not empty.
        lag_s: That a call is absent proves nothing until so many seconds after the doubt.
    """
    decision = _reconcile(doubt, finding, delays_s, lag_s)
    if doubt.taken_back is None or not isinstance(decision, Retry):
        return decision
    rang_not = isinstance(finding, NotFound) and finding.conclusive
    return Fail("cancelled", doubt.taken_back) if rang_not else Fail("unsure", doubt.failure)


def _reconcile(
    doubt: DoubtfulCall, finding: HistoryFinding, delays_s: Sequence[int], lag_s: float
) -> Announce | Retry | Fail | Reconcile:
    shortest_s = float(delays_s[0])
    match finding:
        case Found(call_id):
            return Announce(call_id, "history")
        case Ambiguous():
            return Fail("unsure", doubt.failure)
        case LookUpFailed() if doubt.looking_s < LONGEST_LOOKING_S:
            wait_s = min(max(shortest_s, doubt.looking_s), float(delays_s[-1]))
            return Reconcile(wait_s, doubt.failure)
        case LookUpFailed():
            return Fail("unsure", doubt.failure)
        case NotFound() if doubt.age_s < lag_s:
            wait_s = min(max(doubt.age_s, 0.0), lag_s - doubt.age_s)
            return Reconcile(max(shortest_s, wait_s), doubt.failure)
        case NotFound() | NoHistory() if doubt.replayed:
            return Retry(0.0, 1, doubt.failure)
        case NotFound(conclusive=True):
            return _dial_again(doubt, [0.0] * len(delays_s))
        case NotFound() | NoHistory() if doubt.may_retry:
            return _dial_again(doubt, delays_s)
        case NotFound() | NoHistory():
            return Fail("unsure", doubt.failure)
    assert_never(finding)


def _dial_again(doubt: DoubtfulCall, delays_s: Sequence[float]) -> Retry | Fail:
    if doubt.attempt > len(delays_s):
        return Fail("exhausted", doubt.failure)
    delay_s = max(0.0, delays_s[doubt.attempt - 1] - doubt.age_s)
    return Retry(delay_s, doubt.attempt + 1, doubt.failure)

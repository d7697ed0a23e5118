"""What follows from a look into the call history."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.decision import Announce, Decision, Fail, Failure, Reconcile, Retry
from consumer.findings import Ambiguous, Found, HistoryFinding, LookUpFailed, NoHistory, NotFound
from consumer.reconciliation import LONGEST_LOOKING_S, DoubtfulCall, reconcile

DELAYS_S = (5, 30, 300)
LAG_S = 300.0
LOST = Failure("READ_TIMEOUT", "no answer", 504)


def doubt(
    age_s: float,
    *,
    attempt: int = 1,
    may_retry: bool = False,
    replayed: bool = False,
    looking_s: float | None = None,
) -> DoubtfulCall:
    return DoubtfulCall(
        attempt=attempt,
        replayed=replayed,
        age_s=age_s,
        looking_s=age_s if looking_s is None else looking_s,
        may_retry=may_retry,
        failure=LOST,
    )


def look_again(delay_s: float) -> Reconcile:
    return Reconcile(delay_s, LOST)


def retry(delay_s: float, attempt: int) -> Retry:
    return Retry(delay_s, attempt, LOST)


UNSURE = Fail("unsure", LOST)
EXHAUSTED = Fail("exhausted", LOST)
CONCLUSIVE, INCONCLUSIVE = NotFound(conclusive=True), NotFound(conclusive=False)

CONSEQUENCES: dict[str, tuple[DoubtfulCall, HistoryFinding, Decision]] = {
    "found at once": (doubt(0), Found("c1"), Announce("c1", "history")),
    "found after the lag": (doubt(9000), Found("c1"), Announce("c1", "history")),
    "found though no retry is left": (doubt(5, attempt=4), Found("c1"), Announce("c1", "history")),
    "contested": (doubt(5), Ambiguous(), UNSURE),
    "contested, whatever the setting": (doubt(5, may_retry=True), Ambiguous(), UNSURE),
    "look-up failed, young": (doubt(1), LookUpFailed(), look_again(5)),
    "look-up failed, waits as long again": (doubt(40), LookUpFailed(), look_again(40)),
    "look-up failed, longest delay at most": (doubt(4000), LookUpFailed(), look_again(300)),
    "look-up failed, almost a day": (doubt(LONGEST_LOOKING_S - 1), LookUpFailed(), look_again(300)),
    "look-up failed, a day": (doubt(LONGEST_LOOKING_S), LookUpFailed(), UNSURE),
    "look-up failed, a day, whatever the setting": (
        doubt(LONGEST_LOOKING_S, may_retry=True),
        LookUpFailed(),
        UNSURE,
    ),
    "look-up failed, no retry left": (doubt(40, attempt=4), LookUpFailed(), look_again(40)),
    "absent, first look": (doubt(1), CONCLUSIVE, look_again(5)),
    "absent, waits as long again": (doubt(40), CONCLUSIVE, look_again(40)),
    "absent, half the lag left": (doubt(200), CONCLUSIVE, look_again(100)),
    "absent, end of the lag": (doubt(299), CONCLUSIVE, look_again(5)),
    "absent, no history shown, before the lag": (
        doubt(40, may_retry=True),
        INCONCLUSIVE,
        look_again(40),
    ),
    "absent, no retry left, before the lag": (doubt(40, attempt=4), CONCLUSIVE, look_again(40)),
    "absent and proved": (doubt(300), CONCLUSIVE, retry(0.0, 2)),
    "absent and proved, third attempt": (doubt(300, attempt=3), CONCLUSIVE, retry(0.0, 4)),
    "absent and proved, no retry left": (doubt(300, attempt=4), CONCLUSIVE, EXHAUSTED),
    "absent, not proved": (doubt(300), INCONCLUSIVE, UNSURE),
    "absent, not proved, may retry": (doubt(300, may_retry=True), INCONCLUSIVE, retry(0.0, 2)),
    "absent, not proved, may retry later": (
        doubt(300, attempt=3, may_retry=True),
        INCONCLUSIVE,
        retry(0.0, 4),
    ),
    "absent, not proved, no retry left": (
        doubt(300, attempt=4, may_retry=True),
        INCONCLUSIVE,
        EXHAUSTED,
    ),
    "no history": (doubt(5), NoHistory(), UNSURE),
    "no history, may retry": (doubt(6, may_retry=True), NoHistory(), retry(0.0, 2)),
    "no history, may retry, too early": (
        doubt(6, attempt=2, may_retry=True),
        NoHistory(),
        retry(24.0, 3),
    ),
    "no history, may retry, no retry left": (
        doubt(5, attempt=4, may_retry=True),
        NoHistory(),
        EXHAUSTED,
    ),
    "replayed, found": (doubt(9000, replayed=True), Found("c1"), Announce("c1", "history")),
    "replayed, ambiguous": (doubt(9000, replayed=True), Ambiguous(), UNSURE),
    "replayed, absent before the lag": (doubt(40, replayed=True), CONCLUSIVE, look_again(40)),
    "replayed, absent before the lag, no history shown": (
        doubt(40, replayed=True),
        INCONCLUSIVE,
        look_again(40),
    ),
    "replayed, absent": (doubt(300, attempt=4, replayed=True), CONCLUSIVE, retry(0.0, 1)),
    "replayed, absent, no history shown": (
        doubt(300, attempt=4, replayed=True),
        INCONCLUSIVE,
        retry(0.0, 1),
    ),
    "replayed, no history": (doubt(5, attempt=2, replayed=True), NoHistory(), retry(0.0, 1)),
    "replayed, look-up failed, however old the doubt": (
        doubt(2 * LONGEST_LOOKING_S, replayed=True, looking_s=1),
        LookUpFailed(),
        look_again(5),
    ),
    "replayed, look-up failed for a day": (
        doubt(2 * LONGEST_LOOKING_S, replayed=True, looking_s=LONGEST_LOOKING_S),
        LookUpFailed(),
        UNSURE,
    ),
}


@pytest.mark.parametrize(
    ("doubtful", "finding", "decision"), CONSEQUENCES.values(), ids=CONSEQUENCES
)
def test_each_finding_has_one_consequence(
    doubtful: DoubtfulCall, finding: HistoryFinding, decision: Decision
) -> None:
    assert reconcile(doubtful, finding, DELAYS_S, LAG_S) == decision


def test_without_a_lag_absence_proves_at_once() -> None:
    assert reconcile(doubt(0), CONCLUSIVE, DELAYS_S, 0.0) == retry(0.0, 2)


def test_without_history_a_fresh_doubt_waits_the_ordinary_delay() -> None:
    decision = reconcile(doubt(0.0, may_retry=True), NoHistory(), DELAYS_S, LAG_S)

    assert decision == retry(5.0, 2)


FINDINGS = st.sampled_from(
    [Found("c1"), Ambiguous(), CONCLUSIVE, INCONCLUSIVE, NoHistory(), LookUpFailed()]
)


@given(st.floats(-1e5, 1e6), st.integers(1, 5), st.booleans(), FINDINGS, st.floats(0.0, 1e5))
@settings(deadline=None)
def test_no_look_leads_to_a_busy_loop_or_to_an_attempt_too_many(
    age_s: float,
    attempt: int,
    may_retry: bool,  # noqa: FBT001
    finding: HistoryFinding,
    lag_s: float,
) -> None:
    decision = reconcile(
        doubt(age_s, attempt=attempt, may_retry=may_retry), finding, DELAYS_S, lag_s
    )

    if isinstance(decision, Reconcile):
        assert decision.delay_s >= DELAYS_S[0]
    if isinstance(decision, Retry):
        assert decision.delay_s >= 0
        assert decision.attempt == attempt + 1 <= len(DELAYS_S) + 1
        assert may_retry or finding == CONCLUSIVE

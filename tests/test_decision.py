"""What follows from an outcome, and from a look into the call history."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.decision import (
    LONGEST_DOUBT_S,
    Absent,
    Announce,
    Contested,
    Decision,
    Doubt,
    Found,
    GiveUp,
    LookUpFailed,
    NoHistory,
    Outcome,
    Placed,
    Refused,
    Retry,
    Sighting,
    Unavailable,
    Unsure,
    Verify,
    decide,
    settle,
)

DELAYS_S = (5, 30, 300)
LAG_S = 300.0

DOWN = Unavailable("HTTP_503", "no error code", 503)
TOO_FAST = Unavailable("QUERY_LIMIT_EXCEEDED", "Too many requests", 503, counts=False)

DECISIONS: dict[str, tuple[Outcome, int, Decision]] = {
    "placed": (Placed("c1"), 1, Announce("c1")),
    "placed, id unknown": (Placed(None), 4, Announce(None)),
    "down, first attempt": (DOWN, 1, Retry(5, 2, "HTTP_503", "no error code", 503)),
    "down, second attempt": (DOWN, 2, Retry(30, 3, "HTTP_503", "no error code", 503)),
    "down, last retry left": (DOWN, 3, Retry(300, 4, "HTTP_503", "no error code", 503)),
    "down, no retry left": (DOWN, 4, GiveUp("exhausted", "HTTP_503", "no error code", 503)),
    "down, more attempts than delays": (
        DOWN,
        9,
        GiveUp("exhausted", "HTTP_503", "no error code", 503),
    ),
    "not reached": (
        Unavailable("CONNECT_ERROR", "the portal could not be reached"),
        1,
        Retry(5, 2, "CONNECT_ERROR", "the portal could not be reached", None),
    ),
    "asked to wait longer": (
        Unavailable("HTTP_503", "", 503, retry_after_s=120.0),
        1,
        Retry(120.0, 2, "HTTP_503", "", 503),
    ),
    "asked to wait less": (
        Unavailable("HTTP_503", "", 503, retry_after_s=1.0),
        2,
        Retry(30, 3, "HTTP_503", "", 503),
    ),
    "asked to wait after the last attempt": (
        Unavailable("HTTP_503", "", 503, retry_after_s=120.0),
        4,
        GiveUp("exhausted", "HTTP_503", "", 503),
    ),
    "too fast, uncounted": (
        TOO_FAST,
        2,
        Retry(5, 2, "QUERY_LIMIT_EXCEEDED", "Too many requests", 503),
    ),
    "too fast, even after the last attempt": (
        TOO_FAST,
        4,
        Retry(5, 4, "QUERY_LIMIT_EXCEEDED", "Too many requests", 503),
    ),
    "too fast, asked to wait longer": (
        Unavailable("OPERATION_TIME_LIMIT", "", 429, counts=False, retry_after_s=60.0),
        4,
        Retry(60.0, 4, "OPERATION_TIME_LIMIT", "", 429),
    ),
    "refused": (
        Refused("ERROR_CORE", "Phone number is not correct", 400),
        1,
        GiveUp("refused", "ERROR_CORE", "Phone number is not correct", 400),
    ),
    "refused by the whole portal": (
        Refused("NO_AUTH_FOUND", "", 401, "portal"),
        4,
        GiveUp("refused", "NO_AUTH_FOUND", "", 401),
    ),
    "unsure, first attempt": (
        Unsure("READ_TIMEOUT", "no answer"),
        1,
        Verify(5, "READ_TIMEOUT", "no answer", None),
    ),
    "unsure, last attempt": (Unsure("HTTP_502", "", 502), 4, Verify(5, "HTTP_502", "", 502)),
}


@pytest.mark.parametrize(("outcome", "attempt", "decision"), DECISIONS.values(), ids=DECISIONS)
def test_each_outcome_has_one_consequence(
    outcome: Outcome, attempt: int, decision: Decision
) -> None:
    assert decide(outcome, attempt, DELAYS_S) == decision


def test_with_one_delay_there_are_two_attempts() -> None:
    assert decide(DOWN, 1, [7]) == Retry(7, 2, "HTTP_503", "no error code", 503)
    assert decide(DOWN, 2, [7]) == GiveUp("exhausted", "HTTP_503", "no error code", 503)


# --- doubts


def doubt(age_s: float, *, attempt: int = 1, may_retry: bool = False) -> Doubt:
    return Doubt(
        attempt=attempt,
        age_s=age_s,
        may_retry=may_retry,
        code="READ_TIMEOUT",
        description="no answer",
        http_status=504,
    )


def verify(delay_s: float) -> Verify:
    return Verify(delay_s, "READ_TIMEOUT", "no answer", 504)


def retry(delay_s: float, attempt: int) -> Retry:
    return Retry(delay_s, attempt, "READ_TIMEOUT", "no answer", 504)


UNSURE = GiveUp("unsure", "READ_TIMEOUT", "no answer", 504)
EXHAUSTED = GiveUp("exhausted", "READ_TIMEOUT", "no answer", 504)
PROVED, UNPROVED = Absent(proved=True), Absent(proved=False)

SETTLEMENTS: dict[str, tuple[Doubt, Sighting, Decision]] = {
    "found at once": (doubt(0), Found("c1"), Announce("c1")),
    "found after the lag": (doubt(9000), Found("c1"), Announce("c1")),
    "found though no retry is left": (doubt(5, attempt=4), Found("c1"), Announce("c1")),
    "contested": (doubt(5), Contested(), UNSURE),
    "contested, whatever the setting": (doubt(5, may_retry=True), Contested(), UNSURE),
    "look-up failed, young": (doubt(1), LookUpFailed(), verify(5)),
    "look-up failed, waits as long again": (doubt(40), LookUpFailed(), verify(40)),
    "look-up failed, longest delay at most": (doubt(4000), LookUpFailed(), verify(300)),
    "look-up failed, almost a day": (doubt(LONGEST_DOUBT_S - 1), LookUpFailed(), verify(300)),
    "look-up failed, a day": (doubt(LONGEST_DOUBT_S), LookUpFailed(), UNSURE),
    "look-up failed, a day, whatever the setting": (
        doubt(LONGEST_DOUBT_S, may_retry=True),
        LookUpFailed(),
        UNSURE,
    ),
    "look-up failed, no retry left": (doubt(40, attempt=4), LookUpFailed(), verify(40)),
    "absent, first look": (doubt(1), PROVED, verify(5)),
    "absent, waits as long again": (doubt(40), PROVED, verify(40)),
    "absent, half the lag left": (doubt(200), PROVED, verify(100)),
    "absent, end of the lag": (doubt(299), PROVED, verify(5)),
    "absent, no history shown, before the lag": (doubt(40, may_retry=True), UNPROVED, verify(40)),
    "absent, no retry left, before the lag": (doubt(40, attempt=4), PROVED, verify(40)),
    "absent and proved": (doubt(300), PROVED, retry(0.0, 2)),
    "absent and proved, third attempt": (doubt(300, attempt=3), PROVED, retry(0.0, 4)),
    "absent and proved, no retry left": (doubt(300, attempt=4), PROVED, EXHAUSTED),
    "absent, not proved": (doubt(300), UNPROVED, UNSURE),
    "absent, not proved, may retry": (doubt(300, may_retry=True), UNPROVED, retry(0.0, 2)),
    "absent, not proved, may retry later": (
        doubt(300, attempt=3, may_retry=True),
        UNPROVED,
        retry(0.0, 4),
    ),
    "absent, not proved, no retry left": (
        doubt(300, attempt=4, may_retry=True),
        UNPROVED,
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
}


@pytest.mark.parametrize(
    ("doubtful", "sighting", "decision"), SETTLEMENTS.values(), ids=SETTLEMENTS
)
def test_each_sighting_has_one_consequence(
    doubtful: Doubt, sighting: Sighting, decision: Decision
) -> None:
    assert settle(doubtful, sighting, DELAYS_S, LAG_S) == decision


def test_without_a_lag_absence_proves_at_once() -> None:
    assert settle(doubt(0), PROVED, DELAYS_S, 0.0) == retry(0.0, 2)


def test_without_history_a_fresh_doubt_waits_the_ordinary_delay() -> None:
    decision = settle(doubt(0.0, may_retry=True), NoHistory(), DELAYS_S, LAG_S)

    assert decision == retry(5.0, 2)


SIGHTINGS = st.sampled_from(
    [Found("c1"), Contested(), PROVED, UNPROVED, NoHistory(), LookUpFailed()]
)


@given(st.floats(-1e5, 1e6), st.integers(1, 5), st.booleans(), SIGHTINGS, st.floats(0.0, 1e5))
@settings(deadline=None)
def test_no_look_leads_to_a_busy_loop_or_to_an_attempt_too_many(
    age_s: float,
    attempt: int,
    may_retry: bool,  # noqa: FBT001
    sighting: Sighting,
    lag_s: float,
) -> None:
    decision = settle(doubt(age_s, attempt=attempt, may_retry=may_retry), sighting, DELAYS_S, lag_s)

    if isinstance(decision, Verify):
        assert decision.delay_s >= DELAYS_S[0]
    if isinstance(decision, Retry):
        assert decision.delay_s >= 0
        assert decision.attempt == attempt + 1 <= len(DELAYS_S) + 1
        assert may_retry or sighting == PROVED

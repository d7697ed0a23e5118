"""What follows from an outcome."""

import pytest

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
    decide,
)

DELAYS_S = (5, 30, 300)

DOWN = Unavailable(Failure("HTTP_503", "no error code", 503))
TOO_FAST = Unavailable(Failure("QUERY_LIMIT_EXCEEDED", "Too many requests", 503), counts=False)

DECISIONS: dict[str, tuple[Outcome, int, Decision]] = {
    "placed": (Placed("c1"), 1, Announce("c1")),
    "placed, id unknown": (Placed(None), 4, Announce(None)),
    "down, first attempt": (DOWN, 1, Retry(5, 2, Failure("HTTP_503", "no error code", 503))),
    "down, second attempt": (DOWN, 2, Retry(30, 3, Failure("HTTP_503", "no error code", 503))),
    "down, last retry left": (DOWN, 3, Retry(300, 4, Failure("HTTP_503", "no error code", 503))),
    "down, no retry left": (DOWN, 4, Fail("exhausted", Failure("HTTP_503", "no error code", 503))),
    "down, more attempts than delays": (
        DOWN,
        9,
        Fail("exhausted", Failure("HTTP_503", "no error code", 503)),
    ),
    "not reached": (
        Unavailable(Failure("CONNECT_ERROR", "the portal could not be reached")),
        1,
        Retry(5, 2, Failure("CONNECT_ERROR", "the portal could not be reached")),
    ),
    "asked to wait longer": (
        Unavailable(Failure("HTTP_503", "", 503), retry_after_s=120.0),
        1,
        Retry(120.0, 2, Failure("HTTP_503", "", 503)),
    ),
    "asked to wait less": (
        Unavailable(Failure("HTTP_503", "", 503), retry_after_s=1.0),
        2,
        Retry(30, 3, Failure("HTTP_503", "", 503)),
    ),
    "asked to wait after the last attempt": (
        Unavailable(Failure("HTTP_503", "", 503), retry_after_s=120.0),
        4,
        Fail("exhausted", Failure("HTTP_503", "", 503)),
    ),
    "too fast, uncounted": (
        TOO_FAST,
        2,
        Retry(5, 2, Failure("QUERY_LIMIT_EXCEEDED", "Too many requests", 503)),
    ),
    "too fast, even after the last attempt": (
        TOO_FAST,
        4,
        Retry(5, 4, Failure("QUERY_LIMIT_EXCEEDED", "Too many requests", 503)),
    ),
    "too fast, asked to wait longer": (
        Unavailable(Failure("OPERATION_TIME_LIMIT", "", 429), counts=False, retry_after_s=60.0),
        4,
        Retry(60.0, 4, Failure("OPERATION_TIME_LIMIT", "", 429)),
    ),
    "refused": (
        Refused(Failure("ERROR_CORE", "Phone number is not correct", 400)),
        1,
        Fail("refused", Failure("ERROR_CORE", "Phone number is not correct", 400)),
    ),
    "refused by the whole portal": (
        Refused(Failure("NO_AUTH_FOUND", "", 401), "portal"),
        4,
        Fail("refused", Failure("NO_AUTH_FOUND", "", 401)),
    ),
    "unsure, first attempt": (
        Unsure(Failure("READ_TIMEOUT", "no answer")),
        1,
        Reconcile(5, Failure("READ_TIMEOUT", "no answer")),
    ),
    "unsure, last attempt": (
        Unsure(Failure("HTTP_502", "", 502)),
        4,
        Reconcile(5, Failure("HTTP_502", "", 502)),
    ),
}


@pytest.mark.parametrize(("outcome", "attempt", "decision"), DECISIONS.values(), ids=DECISIONS)
def test_each_outcome_has_one_consequence(
    outcome: Outcome, attempt: int, decision: Decision
) -> None:
    assert decide(outcome, attempt, DELAYS_S) == decision


def test_with_one_delay_there_are_two_attempts() -> None:
    assert decide(DOWN, 1, [7]) == Retry(7, 2, Failure("HTTP_503", "no error code", 503))
    assert decide(DOWN, 2, [7]) == Fail("exhausted", Failure("HTTP_503", "no error code", 503))

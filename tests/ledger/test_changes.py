"""The entry that follows from another, whole: no field is left to chance."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumer.decision import Announce, Failure, Reconcile, Retry
from consumer.ledger import Entry
from consumer.ledger.changes import (
    apply_decision,
    cancel,
    cancel_unseen,
    expire,
    forbid,
    in_doubt,
    reopened,
    schedule,
    taken_back,
)
from consumer.ledger.entry import UNSEEN_BODY
from consumer.results import Decided, Expired, Forbidden, Scheduled, TakenBack, entry_after

NOW = 1_800_000_000.0
DRAFT = Entry(
    request_id="r-1",
    state="placing",
    attempt=3,
    replay=1,
    owner="w-1",
    first_seen_at=NOW - 900,
    changed_at=NOW - 2,
    body_digest="b-1",
    target_digest="t-1",
    number_digest="n-1",
    line="reg1",
)
WAS = replace(
    DRAFT,
    state="delayed",
    owner="w-0",
    first_claimed_at=NOW - 800,
    claimed_at=NOW - 700,
    changed_at=NOW - 690,
    due_at=NOW - 10,
    rows_from=NOW - 850,
    code="HTTP_503",
    published=True,
    version=7,
)
DOUBT = replace(WAS, unsure_since=NOW - 690, scheduled="not_before", reason="unsure")


@pytest.mark.parametrize(
    ("code", "description"),
    [
        ("LEDGER_LOST", "the ledger does not know whether it was dialled"),
        ("WORKER_LOST", "the worker ended during the call"),
    ],
)
def test_a_doubt_is_looked_up_at_once(code: str, description: str) -> None:
    claimed = replace(WAS, state="placing")
    assert in_doubt(claimed, code, NOW) == replace(  # type: ignore[arg-type]
        WAS,
        changed_at=NOW,
        due_at=NOW,
        unsure_since=NOW,
        published=False,
        code=code,
        description=description,
    )


def test_a_call_that_is_found_waits_for_nothing_and_lacks_nothing() -> None:
    found = apply_decision(DOUBT, Announce("c-1", "history"), NOW, expires_at=NOW - 1)

    assert found == replace(
        WAS,
        state="started",
        changed_at=NOW,
        call_id="c-1",
        confirmed_by="history",
        published=False,
    )


@pytest.mark.parametrize(
    ("expires_at", "reached"),
    [(NOW + 61, ("delayed", None)), (NOW + 60, ("failed", "expired")), (None, ("delayed", None))],
)
def test_a_retry_that_would_come_too_late_is_none(
    expires_at: float | None, reached: tuple[str, str | None]
) -> None:
    retry = Retry(60.0, 4, Failure("HTTP_503", "the portal is busy"))

    entry = entry_after(Decided(replace(WAS, state="placing"), retry, expires_at), NOW)

    assert (entry.state, entry.reason) == reached


def test_a_doubt_is_as_old_as_the_look_up_says() -> None:
    later = Reconcile(30.0, Failure("HTTP_503", "the history is away"))

    entry = entry_after(Decided(DOUBT, later, doubt_age_s=40.0), NOW)

    assert (entry.unsure_since, entry.due_at) == (NOW - 40, NOW + 30)


def test_a_replay_of_a_doubt_keeps_the_doubt() -> None:
    failed = replace(DOUBT, state="failed")
    assert reopened(failed, 2, "b-2", NOW) == replace(
        DOUBT,
        replay=2,
        replayed_at=NOW,
        changed_at=NOW,
        due_at=NOW,
        body_digest="b-2",
        reason=None,
        published=False,
    )


SCHEDULED = replace(DRAFT, state="delayed", changed_at=NOW, due_at=NOW + 60, scheduled="not_before")


@pytest.mark.parametrize(
    ("was", "expected"),
    [
        (None, SCHEDULED),
        (
            WAS,
            replace(SCHEDULED, rows_from=NOW - 850, first_claimed_at=NOW - 800),
        ),
        (replace(WAS, replay=0), replace(SCHEDULED, rows_from=NOW - 850)),
        (
            replace(WAS, first_seen_at=NOW - 950, replay=0, state="started"),
            replace(SCHEDULED, first_seen_at=NOW - 950, rows_from=NOW),
        ),
    ],
)
def test_an_attempt_that_waits_for_its_time_was_not_made(
    was: Entry | None, expected: Entry
) -> None:
    assert schedule(DRAFT, was, NOW + 60, NOW, calling_hours=False) == expected
    hours = replace(expected, scheduled="calling_hours")
    assert entry_after(Scheduled(DRAFT, was, NOW + 60, calling_hours=True), NOW) == hours


TOO_LATE = "expires_at has passed, or would have before the next try"


@pytest.mark.parametrize(
    ("was", "code"),
    [(None, "EXPIRED"), (replace(WAS, code=""), "EXPIRED"), (WAS, "HTTP_503")],
)
def test_an_expiry_tells_what_went_wrong_before(was: Entry | None, code: str) -> None:
    expected = replace(
        DRAFT, state="failed", attempt=2, reason="expired", code=code, description=TOO_LATE
    )
    assert expire(DRAFT, was) == entry_after(Expired(DRAFT, was), NOW) == expected


def test_what_is_forbidden_was_not_tried() -> None:
    failure = Failure("COUNTRY", "not there", 400)
    expected = replace(
        DRAFT,
        state="failed",
        attempt=2,
        reason="blocked",
        code="COUNTRY",
        description="not there",
        http_status=400,
    )
    assert forbid(DRAFT, "blocked", failure) == expected
    assert entry_after(Forbidden(DRAFT, None, failure), NOW) == expected


CANCELLED = replace(
    DOUBT,
    state="failed",
    reason="cancelled",
    cancelled_at=NOW - 5,
    cancelled_for="moved",
    changed_at=NOW,
    scheduled=None,
    unsure_since=None,
    published=False,
    code="CANCELLED",
    description="taken back: moved",
)


@pytest.mark.parametrize(
    ("state", "replay", "changes"),
    [
        ("delayed", 1, {"attempt": 2}),
        ("delayed", 0, {"attempt": 2}),
        ("failed", 1, {"attempt": 3}),
        ("failed", 2, {"attempt": 0, "replay": 2, "body_digest": "b-2"}),
    ],
)
def test_what_was_taken_back_ends_so(state: str, replay: int, changes: dict[str, object]) -> None:
    entry = replace(DOUBT, state=state, cancelled_at=NOW - 5, cancelled_for="moved")  # type: ignore[arg-type]
    expected = replace(CANCELLED, **changes)  # type: ignore[arg-type]
    assert cancel(entry, replay, NOW, "b-2") == expected
    assert entry_after(TakenBack(entry, replay, "b-2"), NOW) == expected


@pytest.mark.parametrize(("why", "text"), [("moved", "taken back: moved"), (None, "taken back")])
def test_what_was_taken_back_before_it_came_has_an_entry(why: str | None, text: str) -> None:
    assert taken_back(why) == Failure("CANCELLED", text)
    assert cancel_unseen("r-1", "w-1", why, NOW) == Entry(
        request_id="r-1",
        state="failed",
        reason="cancelled",
        attempt=0,
        replay=0,
        owner="w-1",
        first_seen_at=NOW,
        changed_at=NOW,
        cancelled_at=NOW,
        cancelled_for=why,
        body_digest=UNSEEN_BODY,
        code="CANCELLED",
        description=text,
    )

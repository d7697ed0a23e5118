"""What a message asks for, for every combination, and where each decision leads."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product

import pytest

from consumer.decision import Announce, Decision, Fail, Failure, Reconcile, Retry
from consumer.delivery import MessageHeaders
from consumer.ledger import Entry
from consumer.ledger.changes import about_to_dial, apply_decision, in_doubt, reopened
from consumer.steps import (
    Cancelled,
    Due,
    Duplicate,
    IdConflict,
    InDoubt,
    Known,
    NotYet,
    Orphaned,
    Replayed,
    Step,
    Superseded,
    next_step,
)

NOW = 1773748800.0
UNDECIDED_S = 75.0
REPLAY = 2

STATES = ("started", "failed", "placing", "delayed", "doubtful")
REPLAYS = {"lower": REPLAY - 1, "equal": REPLAY, "higher": REPLAY + 1}
CONTENTS = {"same": "digest", "other": "another digest"}
OWNERS = ("own", "other")
TIMES = ("early", "late")
"""Before or after its time: when it is due, or when another process can be dialling no longer."""


@dataclass(frozen=True)
class Case:
    """A combination of what the ledger knows and what the message says."""

    state: str
    replay: str
    content: str
    owner: str
    time: str

    def __str__(self) -> str:
        return (
            f"{self.state}, {self.replay} replay, {self.content} content,"
            f" {self.owner} owner, {self.time}"
        )

    def known(self) -> Known:
        entry = Entry(
            request_id="r-1",
            state="placing",
            attempt=2,
            replay=REPLAY,
            owner="someone",
            first_seen_at=NOW - 5000,
            first_claimed_at=NOW - 4000,
            claimed_at=NOW - 100,
            changed_at=NOW - 29,
            due_at=NOW + 1,
            body_digest="digest",
        )
        entry = {
            "started": replace(entry, state="started", call_id="c1"),
            "failed": replace(entry, state="failed", reason="refused"),
            "delayed": replace(entry, state="delayed"),
            "doubtful": replace(entry, state="delayed", unsure_since=NOW - 200),
            "placing": entry,
        }[self.state]
        waits_s = UNDECIDED_S if self.state == "placing" else 30.0
        age_s = waits_s if self.time == "late" else waits_s - 1
        return Known(entry, age_s, NOW, self.owner == "own", UNDECIDED_S)

    def headers(self) -> MessageHeaders:
        return MessageHeaders(replay=REPLAYS[self.replay], first_seen_at=datetime.now(UTC))


CASES = [Case(*row) for row in product(STATES, REPLAYS, CONTENTS, OWNERS, TIMES)]

# Each rule: state, replay, content, owner and time, where * is any; and the step.
RULES: dict[str, tuple[str, Step]] = {
    "another request has this id": ("* equal other * *", IdConflict()),
    "an old copy of a started one": ("started lower same * *", Duplicate(asked_again=False)),
    "an old copy of a started one, edited since": ("started lower other * *", Superseded()),
    "a copy of a started one": ("started equal same * *", Duplicate(asked_again=False)),
    "a replay of a started one": ("started higher * * *", Duplicate(asked_again=True)),
    "an old copy of a failed one": ("failed lower same * *", Duplicate(asked_again=False)),
    "an old copy of a failed one, edited since": ("failed lower other * *", Superseded()),
    "a copy of a failed one": ("failed equal same * *", Duplicate(asked_again=False)),
    "a replay of a failed one, edited or not": ("failed higher * * *", Replayed()),
    "our own call of which nothing is in flight, old": ("placing lower * own *", Orphaned()),
    "our own call of which nothing is in flight": ("placing equal same own *", Orphaned()),
    "our own call of which nothing is in flight, new": ("placing higher * own *", Orphaned()),
    "another process may be dialling, old": ("placing lower * other early", NotYet(1.0)),
    "another process may be dialling": ("placing equal same other early", NotYet(1.0)),
    "another process may be dialling, new": ("placing higher * other early", NotYet(1.0)),
    "another process has ended, old": ("placing lower * other late", Orphaned()),
    "another process has ended": ("placing equal same other late", Orphaned()),
    "another process has ended, new": ("placing higher * other late", Orphaned()),
    "not due, old": ("delayed lower * * early", NotYet(1.0)),
    "not due": ("delayed equal same * early", NotYet(1.0)),
    "not due, new": ("delayed higher * * early", NotYet(1.0)),
    "due, old": ("delayed lower same * late", Due()),
    "due": ("delayed equal same * late", Due()),
    "due, but for other content": ("delayed lower other * late", NotYet(UNDECIDED_S)),
    "due, and replayed": ("delayed higher * * late", Replayed()),
    "in doubt, not due, old": ("doubtful lower * * early", NotYet(1.0)),
    "in doubt, not due": ("doubtful equal same * early", NotYet(1.0)),
    "in doubt, not due, new": ("doubtful higher * * early", NotYet(1.0)),
    "in doubt, old": ("doubtful lower same * late", InDoubt()),
    "in doubt": ("doubtful equal same * late", InDoubt()),
    "in doubt, but for other content": ("doubtful lower other * late", NotYet(UNDECIDED_S)),
    "in doubt, and replayed": ("doubtful higher * * late", Replayed()),
}


def steps_for(case: Case) -> list[Step]:
    told = (case.state, case.replay, case.content, case.owner, case.time)
    return [
        step
        for pattern, step in RULES.values()
        if all(want in {"*", got} for want, got in zip(pattern.split(), told, strict=True))
    ]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_for_each_case_there_is_one_rule_and_it_is_followed(case: Case) -> None:
    assert [next_step(case.known(), case.headers(), CONTENTS[case.content])] == steps_for(case)


# A started call is dialled again only for a higher replay that says so.
REDIALS: dict[str, tuple[str, str, type[Step]]] = {
    "started, higher": ("started", "higher", Replayed),
    "started, equal": ("started", "equal", Duplicate),
    "started, lower": ("started", "lower", Duplicate),
    "failed, higher": ("failed", "higher", Replayed),
    "failed, equal": ("failed", "equal", Duplicate),
    "failed, lower": ("failed", "lower", Duplicate),
    "placing, higher": ("placing", "higher", NotYet),
    "delayed, higher": ("delayed", "higher", NotYet),
    "doubtful, higher": ("doubtful", "higher", NotYet),
}


@pytest.mark.parametrize(("state", "replay", "step"), REDIALS.values(), ids=REDIALS)
def test_redialling_is_for_a_higher_replay_of_a_closed_request(
    state: str, replay: str, step: type[Step]
) -> None:
    case = Case(state, replay, "same", "other", "early")
    headers = replace(case.headers(), redial=True)

    assert isinstance(next_step(case.known(), headers, "digest"), step)


TAKEN_BACK: dict[str, tuple[str, float | None, Step]] = {
    "failed": ("failed", None, Cancelled()),
    "failed, in doubt": ("failed", NOW - 200, Replayed()),
    "started": ("started", None, Duplicate(asked_again=True)),
}


@pytest.mark.parametrize(("state", "unsure_since", "step"), TAKEN_BACK.values(), ids=TAKEN_BACK)
def test_a_replay_of_what_was_taken_back_dials_nothing(
    state: str, unsure_since: float | None, step: Step
) -> None:
    case = Case(state, "higher", "same", "other", "late")
    known = case.known()
    entry = replace(known.entry, cancelled_at=NOW - 1, unsure_since=unsure_since)
    headers = replace(case.headers(), redial=True)

    assert next_step(replace(known, entry=entry), headers, "digest") == step


# Seconds since the change, certain ones; the wall clock's; how long it waits yet.
WAITS: dict[str, tuple[float, float, Step]] = {
    "on time": (10.0, 10.0, NotYet(20.0)),
    "the clock was set back": (10.0, -3600.0, NotYet(20.0)),
    "the clock was set back, due": (30.0, -3600.0, Due()),
    "written by another process": (0.0, 10.0, NotYet(20.0)),
    "written by another process, due": (0.0, 30.0, Due()),
}


@pytest.mark.parametrize(("age_s", "passed_s", "step"), WAITS.values(), ids=WAITS)
def test_no_wait_is_longer_than_it_was_at_first(age_s: float, passed_s: float, step: Step) -> None:
    case = Case("delayed", "equal", "same", "own", "early")
    entry = replace(case.known().entry, changed_at=NOW, due_at=NOW + 30)
    known = Known(entry, age_s, NOW + passed_s, own=True, undecided_s=UNDECIDED_S)

    assert next_step(known, case.headers(), "digest") == step


# --- where a decision leads

WAS = Entry(
    request_id="r-1",
    state="placing",
    attempt=2,
    replay=REPLAY,
    owner="this process",
    first_seen_at=NOW - 50,
    first_claimed_at=NOW - 40,
    claimed_at=NOW - 2,
    changed_at=NOW - 2,
    line="reg1",
    published=True,
    body_digest="digest",
    target_digest="target",
    version=7,
)
DOUBTFUL = replace(WAS, state="delayed", unsure_since=NOW - 30, code="READ_TIMEOUT")
AFRESH = replace(WAS, changed_at=NOW, published=False)

RETRY = Retry(30.0, 3, Failure("HTTP_503", "no error code", 503))
RECONCILE = Reconcile(5.0, Failure("READ_TIMEOUT", "no answer"))
WAITING = replace(
    AFRESH,
    state="delayed",
    attempt=3,
    due_at=NOW + 30,
    code="HTTP_503",
    description="no error code",
    http_status=503,
)
EXPIRED = replace(WAITING, state="failed", reason="expired", attempt=2, due_at=0.0)
IN_DOUBT = replace(
    AFRESH,
    state="delayed",
    due_at=NOW + 5,
    unsure_since=NOW,
    code="READ_TIMEOUT",
    description="no answer",
)


def failed(decision: Fail, unsure_since: float | None = None) -> Entry:
    return replace(
        AFRESH,
        state="failed",
        reason=decision.reason,
        code=decision.failure.code,
        description=decision.failure.description,
        http_status=decision.failure.http_status,
        unsure_since=unsure_since,
    )


REFUSED = Fail("refused", Failure("NO_AUTH_FOUND", "Wrong", 401))
EXHAUSTED = Fail("exhausted", Failure("HTTP_503", "no error code", 503))
UNSURE = Fail("unsure", Failure("READ_TIMEOUT", "no answer"))

REACHED: dict[str, tuple[Entry, Decision, float | None, Entry]] = {
    "announced": (
        WAS,
        Announce("c1"),
        None,
        replace(AFRESH, state="started", call_id="c1", confirmed_by="answer"),
    ),
    "announced, id unknown": (
        WAS,
        Announce(None),
        None,
        replace(AFRESH, state="started", confirmed_by="answer"),
    ),
    "announced, though expired meanwhile": (
        WAS,
        Announce("c1"),
        NOW - 1,
        replace(AFRESH, state="started", call_id="c1", confirmed_by="answer"),
    ),
    "retry": (WAS, RETRY, None, WAITING),
    "retry in time": (WAS, RETRY, NOW + 30.001, WAITING),
    "retry just too late": (WAS, RETRY, NOW + 30, EXPIRED),
    "retry of what has expired": (WAS, RETRY, NOW - 1, EXPIRED),
    "retry ends a doubt": (
        DOUBTFUL,
        RETRY,
        None,
        WAITING,
    ),
    "retry too late ends a doubt": (DOUBTFUL, RETRY, NOW, EXPIRED),
    "doubt": (WAS, RECONCILE, None, IN_DOUBT),
    "doubt does not expire": (WAS, RECONCILE, NOW - 1, IN_DOUBT),
    "refused": (WAS, REFUSED, None, failed(REFUSED)),
    "refused, whatever the expiry": (WAS, REFUSED, NOW - 1, failed(REFUSED)),
    "exhausted": (WAS, EXHAUSTED, None, failed(EXHAUSTED)),
    "exhausted after a doubt": (DOUBTFUL, EXHAUSTED, None, failed(EXHAUSTED)),
    "unsure": (WAS, UNSURE, None, failed(UNSURE, NOW)),
}


@pytest.mark.parametrize(
    ("was", "decision", "expires_at", "reached"), REACHED.values(), ids=REACHED
)
def test_each_decision_leads_to_one_state(
    was: Entry, decision: Decision, expires_at: float | None, reached: Entry
) -> None:
    assert apply_decision(was, decision, NOW, expires_at=expires_at) == reached


@pytest.mark.parametrize("decision", [RECONCILE, UNSURE])
def test_a_doubt_that_goes_on_is_dated_by_our_clock(decision: Decision) -> None:
    reached = apply_decision(DOUBTFUL, decision, NOW, expires_at=None, unsure_since=NOW - 31)

    assert reached.unsure_since == NOW - 31


def test_what_was_found_in_the_history_is_confirmed_by_it() -> None:
    found = apply_decision(DOUBTFUL, Announce("c1", "history"), NOW, expires_at=None)

    assert (found.state, found.call_id, found.confirmed_by) == ("started", "c1", "history")
    assert found.unsure_since is None


def test_a_replay_that_waits_forgets_why_the_one_before_failed() -> None:
    was = replace(WAS, reason="refused")

    assert apply_decision(was, RETRY, NOW, expires_at=None).reason is None
    assert apply_decision(was, Announce("c1"), NOW, expires_at=None).reason is None


# --- claims, and entries in doubt

DRAFT = replace(WAS, first_seen_at=NOW, first_claimed_at=0.0, claimed_at=0.0, version=0)
STARTED = replace(WAS, state="started", call_id="c1")
FAILED = replace(WAS, state="failed", reason="refused")
UNSURE_ONE = replace(FAILED, reason="unsure", unsure_since=NOW - 20)

# What the ledger knew, the claim's replay; since when this replay has been dialling, and from
# when on the call history can be about it alone.
CLAIMS: dict[str, tuple[Entry | None, int, float, float]] = {
    "new": (None, 0, NOW, 0.0),
    "the next attempt": (WAS, REPLAY, NOW - 40, 0.0),
    "the next attempt of what rang before": (
        replace(WAS, rows_from=NOW - 45),
        REPLAY,
        NOW - 40,
        NOW - 45,
    ),
    "the next attempt after a doubt": (DOUBTFUL, REPLAY, NOW - 40, 0.0),
    "a replay of a refused one": (FAILED, REPLAY + 1, NOW, 0.0),
    "a replay of a started one": (STARTED, REPLAY + 1, NOW, NOW),
    "a replay of an unsure one": (UNSURE_ONE, REPLAY + 1, NOW, NOW),
    "a replay that was looked up first": (
        reopened(UNSURE_ONE, REPLAY + 1, "digest", NOW - 5),
        REPLAY + 1,
        NOW,
        NOW,
    ),
}


@pytest.mark.parametrize(
    ("was", "replay", "first_claimed_at", "rows_from"), CLAIMS.values(), ids=CLAIMS
)
def test_a_claim_knows_since_when_its_replay_dials(
    was: Entry | None, replay: int, first_claimed_at: float, rows_from: float
) -> None:
    claimed = about_to_dial(replace(DRAFT, replay=replay), was, NOW)

    assert (claimed.claimed_at, claimed.first_claimed_at) == (NOW, first_claimed_at)
    assert claimed.rows_from == rows_from
    assert claimed.first_seen_at == (NOW if was is None else was.first_seen_at)
    assert claimed.replayed_at == 0


@pytest.mark.parametrize("code", ["LEDGER_LOST", "WORKER_LOST"])
def test_a_doubt_is_looked_up_at_once(code: str) -> None:
    doubt = in_doubt(WAS, code, NOW)  # type: ignore[arg-type]  # one of two

    assert (doubt.state, doubt.due_at, doubt.unsure_since, doubt.code) == (
        "delayed",
        NOW,
        NOW,
        code,
    )
    assert doubt.description
    assert not doubt.published


def test_a_replayed_doubt_stays_one_under_the_new_number() -> None:
    again = reopened(UNSURE_ONE, REPLAY + 1, "edited", NOW)

    assert (again.state, again.replay, again.body_digest) == ("delayed", REPLAY + 1, "edited")
    assert (again.unsure_since, again.replayed_at, again.due_at) == (NOW - 20, NOW, NOW)
    assert again.reason is None

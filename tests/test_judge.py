"""What a message is to its request, for every combination, and where each decision leads."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product

import pytest

from consumer.decision import Announce, Decision, GiveUp, Retry, Verify
from consumer.judge import (
    Asker,
    Inherit,
    New,
    Reopen,
    Repeat,
    Resume,
    Reused,
    Step,
    Wait,
    judge,
    reach,
)
from consumer.ledger import Entry
from consumer.messages import Trail

NOW = 1773748800.0
ME = Asker("this life", undecided_s=75.0)
REPLAY = 2

STATES = ("started", "failed", "placing", "delayed")
REPLAYS = {"lower": REPLAY - 1, "equal": REPLAY, "higher": REPLAY + 1}
CONTENTS = {"same": "digest", "other": "another digest"}
OWNERS = {"own": "this life", "other": "another life"}
TIMES = ("early", "late")
"""Before or after its time: when it is due, or when another life can be dialling no longer."""


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

    def entry(self) -> Entry:
        late = self.time == "late"
        whole = Entry(
            request_id="r-1",
            state="placing",
            attempt=2,
            replay=REPLAY,
            owner=OWNERS[self.owner],
            first_seen_at=NOW - 5000,
            first_claimed_at=NOW - 4000,
            claimed_at=NOW - (ME.undecided_s if late else ME.undecided_s - 1),
            changed_at=NOW - 1,
            due_at=NOW if late else NOW + 30,
            body_digest="digest",
        )
        match self.state:
            case "started":
                return replace(whole, state="started", call_id="c1")
            case "failed":
                return replace(whole, state="failed", reason="refused")
            case "delayed":
                return replace(whole, state="delayed")
            case _:
                return whole

    def trail(self) -> Trail:
        return Trail(replay=REPLAYS[self.replay], first_seen_at=datetime.now(UTC))


CASES = [Case(*row) for row in product(STATES, REPLAYS, CONTENTS, OWNERS, TIMES)]

# Each rule: state, replay, content, owner and time, where * is any; and the step, by name.
RULES: dict[str, tuple[str, str]] = {
    "another request has this id": ("* equal other * *", "reused"),
    "a lower replay of a started one is a copy": ("started lower * * *", "copy"),
    "a copy of a started one": ("started equal same * *", "copy"),
    "a replay of a started one is announced again": ("started higher * * *", "asked again"),
    "a lower replay of a failed one is a copy": ("failed lower * * *", "copy"),
    "a copy of a failed one": ("failed equal same * *", "copy"),
    "a replay of a failed one opens it, mended or not": ("failed higher * * *", "reopen"),
    "our own call of which nothing is in flight, old": ("placing lower * own *", "inherit"),
    "our own call of which nothing is in flight": ("placing equal same own *", "inherit"),
    "our own call of which nothing is in flight, new": ("placing higher * own *", "inherit"),
    "another life may be dialling, old": ("placing lower * other early", "wait for it"),
    "another life may be dialling": ("placing equal same other early", "wait for it"),
    "another life may be dialling, new": ("placing higher * other early", "wait for it"),
    "another life has ended, old": ("placing lower * other late", "inherit"),
    "another life has ended": ("placing equal same other late", "inherit"),
    "another life has ended, new": ("placing higher * other late", "inherit"),
    "not due, old": ("delayed lower * * early", "wait till due"),
    "not due": ("delayed equal same * early", "wait till due"),
    "not due, new": ("delayed higher * * early", "wait till due"),
    "due, old": ("delayed lower same * late", "resume"),
    "due": ("delayed equal same * late", "resume"),
    "due, new": ("delayed higher same * late", "resume"),
    "due, but for other content, old": ("delayed lower other * late", "let pass"),
    "due, but for other content": ("delayed higher other * late", "let pass"),
}


def rules_for(case: Case) -> list[str]:
    told = (case.state, case.replay, case.content, case.owner, case.time)
    return [
        step
        for pattern, step in RULES.values()
        if all(want in {"*", got} for want, got in zip(pattern.split(), told, strict=True))
    ]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_for_each_case_there_is_one_rule_and_it_is_followed(case: Case) -> None:
    entry = case.entry()
    steps: dict[str, Step] = {
        "reused": Reused(),
        "copy": Repeat(entry, asked_again=False),
        "asked again": Repeat(entry, asked_again=True),
        "reopen": Reopen(entry),
        "inherit": Inherit(entry),
        "wait for it": Wait(entry, NOW + 1),
        "wait till due": Wait(entry, NOW + 30),
        "resume": Resume(entry),
        "let pass": Wait(entry, NOW + 75),
    }

    step = judge(entry, case.trail(), CONTENTS[case.content], NOW, ME)

    (rule,) = rules_for(case)
    assert step == steps[rule]


@pytest.mark.parametrize("replay", REPLAYS.values(), ids=REPLAYS)
def test_what_the_ledger_does_not_know_is_new(replay: int) -> None:
    trail = Trail(replay=replay, redial=True, first_seen_at=datetime.now(UTC))

    assert judge(None, trail, "digest", NOW, ME) == New()


# A started call is dialled again only for a higher replay that says so.
REDIALS: dict[str, tuple[str, str, type[Step]]] = {
    "started, higher": ("started", "higher", Reopen),
    "started, equal": ("started", "equal", Repeat),
    "started, lower": ("started", "lower", Repeat),
    "failed, higher": ("failed", "higher", Reopen),
    "failed, equal": ("failed", "equal", Repeat),
    "failed, lower": ("failed", "lower", Repeat),
    "placing, higher": ("placing", "higher", Wait),
    "delayed, higher": ("delayed", "higher", Wait),
}


@pytest.mark.parametrize(("state", "replay", "step"), REDIALS.values(), ids=REDIALS)
def test_redialling_is_for_a_higher_replay_of_a_closed_request(
    state: str, replay: str, step: type[Step]
) -> None:
    case = Case(state, replay, "same", "other", "early")
    trail = replace(case.trail(), redial=True)

    assert isinstance(judge(case.entry(), trail, "digest", NOW, ME), step)


# --- where a decision leads

WAS = Entry(
    request_id="r-1",
    state="placing",
    attempt=2,
    replay=REPLAY,
    owner="this life",
    first_seen_at=NOW - 50,
    first_claimed_at=NOW - 40,
    claimed_at=NOW - 2,
    changed_at=NOW - 2,
    line="reg1",
    out=True,
    body_digest="digest",
    target_digest="target",
    version=7,
)
DOUBTFUL = replace(WAS, state="delayed", unsure_since=NOW - 30, code="READ_TIMEOUT")
AFRESH = replace(WAS, changed_at=NOW, out=False)

RETRY = Retry(30.0, 3, "HTTP_503", "no error code", 503)
VERIFY = Verify(5.0, "READ_TIMEOUT", "no answer", None)
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


def failed(decision: GiveUp, unsure_since: float | None = None) -> Entry:
    return replace(
        AFRESH,
        state="failed",
        reason=decision.reason,
        code=decision.code,
        description=decision.description,
        http_status=decision.http_status,
        unsure_since=unsure_since,
    )


REFUSED = GiveUp("refused", "NO_AUTH_FOUND", "Wrong", 401)
EXHAUSTED = GiveUp("exhausted", "HTTP_503", "no error code", 503)
UNSURE = GiveUp("unsure", "READ_TIMEOUT", "no answer")

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
    "doubt": (WAS, VERIFY, None, IN_DOUBT),
    "doubt goes on": (DOUBTFUL, VERIFY, None, replace(IN_DOUBT, unsure_since=NOW - 30)),
    "doubt since the epoch": (
        replace(DOUBTFUL, unsure_since=0.0),
        VERIFY,
        None,
        replace(IN_DOUBT, unsure_since=0.0),
    ),
    "doubt does not expire": (WAS, VERIFY, NOW - 1, IN_DOUBT),
    "refused": (WAS, REFUSED, None, failed(REFUSED)),
    "refused, whatever the expiry": (WAS, REFUSED, NOW - 1, failed(REFUSED)),
    "exhausted": (WAS, EXHAUSTED, None, failed(EXHAUSTED)),
    "exhausted after a doubt": (DOUBTFUL, EXHAUSTED, None, failed(EXHAUSTED)),
    "unsure": (WAS, UNSURE, None, failed(UNSURE, NOW)),
    "unsure for a while": (DOUBTFUL, UNSURE, None, failed(UNSURE, NOW - 30)),
}


@pytest.mark.parametrize(
    ("was", "decision", "expires_at", "reached"), REACHED.values(), ids=REACHED
)
def test_each_decision_leads_to_one_state(
    was: Entry, decision: Decision, expires_at: float | None, reached: Entry
) -> None:
    assert reach(was, decision, NOW, expires_at=expires_at) == reached


def test_what_was_found_in_the_history_is_confirmed_by_it() -> None:
    found = reach(DOUBTFUL, Announce("c1"), NOW, expires_at=None, confirmed_by="history")

    assert (found.state, found.call_id, found.confirmed_by) == ("started", "c1", "history")
    assert found.unsure_since is None


def test_a_replay_that_waits_forgets_why_the_one_before_failed() -> None:
    reopened = replace(WAS, reason="refused")

    assert reach(reopened, RETRY, NOW, expires_at=None).reason is None
    assert reach(reopened, Announce("c1"), NOW, expires_at=None).reason is None

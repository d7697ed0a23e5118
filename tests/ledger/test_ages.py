"""Ages count on a clock that nobody sets; other hosts' clocks are believed where they agree."""

from dataclasses import dataclass, replace

import pytest

from consumer.ledger import Entry
from consumer.ledger.ages import CLOCKS_AGREE_S, Ages

EPOCH = 1_790_000_000.0


@dataclass
class Clocks:
    """Ours, and how far the portal's is ahead of it."""

    passed_s: float = 0.0
    set_forward_s: float = 0.0
    portal_ahead_s: float | None = 0.0

    def time(self) -> float:
        return EPOCH + self.passed_s + self.set_forward_s

    def ages(self) -> Ages:
        return Ages(lambda: self.portal_ahead_s, clock=lambda: self.passed_s)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr("consumer.ledger.ages.time", clocks)
    return clocks


@pytest.mark.parametrize("forward_s", [0.0, 400.0, -3600.0])
def test_our_own_ages_do_not_hang_on_the_wall_clock(clocks: Clocks, forward_s: float) -> None:
    ages = clocks.ages()
    ages.begin("doubt")

    clocks.set_forward_s = forward_s
    clocks.passed_s += 30

    assert ages.age_s("doubt", EPOCH, 0.0) == 30


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(0.0, 0.0), (600.0, 600.0 + CLOCKS_AGREE_S)],
    ids=["right", "wrong alike"],
)
def test_another_hosts_time_is_believed_where_the_clocks_agree(
    clocks: Clocks, theirs: float | None, ours: float | None
) -> None:
    clocks.portal_ahead_s = ours
    ages = clocks.ages()

    assert ages.age_s("doubt", EPOCH - 100, theirs) == 100
    clocks.passed_s += 30
    assert ages.age_s("doubt", EPOCH - 100, theirs) == 130


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(0.0, -400.0), (-400.0, 0.0), (None, 0.0), (0.0, None), (None, None)],
    ids=["ours is ahead", "theirs was ahead", "theirs unknown", "ours unknown", "unknown"],
)
def test_else_an_age_counts_from_when_we_first_saw_it(
    clocks: Clocks, theirs: float | None, ours: float | None
) -> None:
    clocks.portal_ahead_s = ours
    ages = clocks.ages()

    assert ages.age_s("doubt", EPOCH - 5000, theirs) == 0
    clocks.passed_s += 30
    clocks.portal_ahead_s = theirs
    assert ages.age_s("doubt", EPOCH - 5000, theirs) == 30


def test_nothing_is_younger_than_now(clocks: Clocks) -> None:
    assert clocks.ages().age_s("doubt", EPOCH + 3600, 0.0) == 0


def test_a_settled_request_pushes_out_nothing_that_waits(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.ledger.ages.REMEMBERED", 1)
    ages = clocks.ages()
    waits = Entry(
        request_id="r-1",
        state="delayed",
        attempt=2,
        replay=0,
        owner="w",
        first_seen_at=EPOCH,
        changed_at=EPOCH,
        body_digest="b",
    )
    ages.note(waits, None)
    for state in ("started", "failed"):
        ages.note(replace(waits, request_id="r-2", state=state), None)

    clocks.passed_s += 30

    assert ages.age_of(waits) == 30


def test_what_is_forgotten_is_measured_anew(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.ledger.ages.REMEMBERED", 2)
    ages = clocks.ages()
    for key in ("first", "second", "third"):
        ages.begin(key)

    clocks.passed_s += 30

    assert [ages.age_s(key, EPOCH, None) for key in ("third", "first")] == [30, 0]

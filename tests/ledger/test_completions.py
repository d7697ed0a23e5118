"""How calls ended, and who follows them up: on every store."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from consumer.ledger import Entry, Ledger, follow_lease
from consumer.messages import Ending

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ANSWERED = Ending(
    outcome="answered",
    code="200",
    description="successful call",
    duration_s=12.5,
    cost=0.01,
    cost_currency="USD",
)
BUSY = Ending(outcome="busy", code="486", description="busy", duration_s=0)


@pytest.fixture(params=["a file", "PostgreSQL"])
async def ledgers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Ledger, Ledger]]:
    """Lend the ledgers of two workers, which share one store."""
    file = f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}"
    url = file if request.param == "a file" else request.getfixturevalue("database_url")
    both = Ledger(url, "queue"), Ledger(url, "queue")
    for ledger in both:
        await ledger.open()
        await ledger.completions.follow()
    yield both
    for ledger in both:
        await ledger.close()


async def started(ledger: Ledger, request_id: str = "r-1", *, published: bool = True) -> Entry:
    """Write a request that has started."""
    entry = Entry(
        request_id=request_id,
        state="started",
        attempt=1,
        replay=0,
        owner="o",
        first_seen_at=time.time(),
        claimed_at=time.time(),
        changed_at=time.time(),
        call_id=f"call of {request_id}",
        published=published,
        body_digest="b",
    )
    written = await ledger.put(entry, None)
    assert written is not None
    return written


async def note(ledger: Ledger, request_id: str, ending: Ending) -> None:
    (call,) = await ledger.completions.open_among([f"call of {request_id}"])
    await ledger.completions.note(call, ending, time.time())


async def test_a_call_is_open_until_its_end_is_noted(ledgers: tuple[Ledger, Ledger]) -> None:
    ledger, _ = ledgers
    await ledger.completions.lease.beat("me", at_once=False)
    assert not await ledger.completions.something_open()
    await started(ledger)
    await started(ledger, "r-2")

    await note(ledger, "r-1", ANSWERED)

    assert [call.request_id for call in await ledger.completions.open_calls(10)] == ["r-2"]
    (completion,) = await ledger.completions.to_announce(time.time())
    assert (completion.request_id, completion.ending) == ("r-1", ANSWERED)
    entry = await ledger.get("r-1")
    assert entry is not None
    assert (entry.outcome, entry.ended_code, entry.duration_s) == ("answered", "200", 12.5)

    await ledger.completions.note_announced(completion)

    assert await ledger.completions.to_announce(time.time()) == []
    assert await ledger.completions.outcomes_since(0) == {"answered": 1}


async def test_it_is_announced_after_the_start(ledgers: tuple[Ledger, Ledger]) -> None:
    ledger, _ = ledgers
    await ledger.completions.lease.beat("me", at_once=False)
    entry = await started(ledger, published=False)
    await note(ledger, "r-1", BUSY)
    assert await ledger.completions.to_announce(time.time()) == []

    assert await ledger.put(replace(entry, published=True), entry)

    assert len(await ledger.completions.to_announce(time.time())) == 1


async def test_a_call_stays_open_when_another_takes_its_place(
    ledgers: tuple[Ledger, Ledger],
) -> None:
    ledger, _ = ledgers
    entry = await started(ledger)

    await ledger.earlier.remember_call(entry)
    assert len(await ledger.completions.open_calls(10)) == 1
    again = replace(entry, replay=1, call_id="call of r-1 again")
    assert await ledger.put(again, entry)

    calls = await ledger.completions.open_calls(10)
    assert {(c.replay, c.call_id) for c in calls} == {
        (0, "call of r-1"),
        (1, "call of r-1 again"),
    }


async def test_an_end_has_the_trace_of_its_own_call(ledgers: tuple[Ledger, Ledger]) -> None:
    ledger, _ = ledgers
    await ledger.completions.lease.beat("me", at_once=False)
    entry = await started(ledger)
    await ledger.earlier.remember_call(entry)
    trace = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
    again = replace(entry, replay=1, call_id="call of r-1 again", traceparent=trace)
    assert await ledger.put(again, entry)

    for call in await ledger.completions.open_calls(10):
        await ledger.completions.note(call, ANSWERED, time.time())

    ended = await ledger.completions.to_announce(time.time())
    assert {each.replay: each.traceparent for each in ended} == {0: None, 1: trace}


async def test_of_several_calls_the_latest_end_that_is_known_is_told(
    ledgers: tuple[Ledger, Ledger],
) -> None:
    ledger, _ = ledgers
    await ledger.completions.lease.beat("me", at_once=False)
    entry = await started(ledger)
    await started(ledger, "r-2")
    await ledger.earlier.remember_call(entry)
    again = replace(entry, replay=1, call_id="call of r-1 again")
    written = await ledger.put(again, entry)
    assert written is not None
    await note(ledger, "r-1", ANSWERED)

    told = await ledger.completions.latest(["r-1", "r-2", "r-3"])
    assert {id_: (each.replay, each.ending) for id_, each in told.items()} == {"r-1": (0, ANSWERED)}

    (call,) = await ledger.completions.open_among(["call of r-1 again"])
    await ledger.completions.note(call, BUSY, time.time())
    told = await ledger.completions.latest(["r-1"])
    assert (told["r-1"].replay, told["r-1"].ending) == (1, BUSY)


async def test_the_first_end_counts_and_only_under_the_lease(
    ledgers: tuple[Ledger, Ledger],
) -> None:
    ours, theirs = ledgers
    await started(ours)
    await ours.completions.lease.beat("us", at_once=False)
    (call,) = await ours.completions.open_calls(10)
    await theirs.completions.lease.beat("them", at_once=True)

    await ours.completions.note(call, BUSY, time.time())
    assert await ours.completions.outcomes_since(0) == {}

    for ending in (ANSWERED, BUSY):
        await theirs.completions.note(call, ending, time.time())
    assert await theirs.completions.outcomes_since(0) == {"answered": 1}


async def test_calls_of_a_time_without_following_stay_closed(
    ledgers: tuple[Ledger, Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, _ = ledgers
    await ledger.completions.stop_following()
    await started(ledger)
    assert not await ledger.completions.something_open()

    monkeypatch.setattr("consumer.ledger.completions.FOLLOWED_BEFORE_S", 0)
    await ledger.completions.follow()

    assert not await ledger.completions.something_open()


async def test_a_lease_is_taken_over_from_who_is_silent_or_gives_it_back(
    ledgers: tuple[Ledger, Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = (ledger.completions.lease for ledger in ledgers)
    now = time.monotonic()
    monkeypatch.setattr("consumer.ledger.follow_lease.time.monotonic", lambda: now)
    await ours.beat("us", at_once=False)
    await theirs.beat("them", at_once=False)
    assert (ours.held, theirs.held) == (True, False)

    now += follow_lease.STALE_S - 1
    await ours.beat("us", at_once=False)
    now += 2
    await theirs.beat("them", at_once=False)
    assert (ours.held, theirs.held) == (True, False)

    now += follow_lease.STALE_S
    await theirs.beat("them", at_once=False)
    assert (ours.held, theirs.held) == (False, True)
    await ours.move_cursor(7)
    await theirs.move_cursor(5)
    assert await ours.cursor() == 5

    await theirs.release("them")
    await ours.beat("us", at_once=False)
    assert (ours.held, theirs.held) == (True, False)
    assert await ours.cursor() == 5

"""What workers write of themselves, and what is read from it; on each store."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from consumer.ledger import Ledger
from consumer.ledger.letter_acts import LetterAct
from consumer.ledger.search import Waiting
from consumer.ledger.workers import GONE_AFTER_S, KEPT_S, Phase, Role, WorkerRow, WorkerState, roles
from tests.ledger.test_ledger import NOW, QUEUE, STORES, entry


@pytest.fixture(params=STORES.values(), ids=list(STORES))
async def ledger(request: pytest.FixtureRequest) -> AsyncIterator[Ledger]:
    opened = Ledger(request.param or request.getfixturevalue("database_url"), QUEUE)
    await opened.open()
    yield opened
    await opened.close()


def worker(owner: str = "w1", handled_at: float = 0.0, phase: Phase = "calling") -> WorkerRow:
    return WorkerRow(
        owner=owner,
        host="here",
        started_at=time.time(),
        seen_at=time.time(),
        handled_at=handled_at,
        state=WorkerState(phase=phase, rate_per_s=2.0),
    )


async def test_a_worker_has_one_row_until_it_is_removed(ledger: Ledger) -> None:
    first = worker()
    later = replace(
        first,
        seen_at=first.seen_at + 5,
        handled_at=NOW,
        state=WorkerState(phase="paused", pauses={"portal": "open"}, probes_at=NOW + 30),
    )

    await ledger.workers.write(first)
    await ledger.workers.write(later)
    assert await ledger.workers.running() == [later]

    await ledger.workers.remove("w1")
    assert await ledger.workers.running() == []


async def test_who_is_not_seen_for_long_is_gone_and_then_removed(ledger: Ledger) -> None:
    silent = replace(worker("silent"), seen_at=time.time() - GONE_AFTER_S - 1)
    old = replace(worker("old"), seen_at=time.time() - KEPT_S - 1)
    for each in (old, silent, worker("here")):
        await ledger.workers.write(each)

    assert [each.owner for each in await ledger.workers.running()] == ["here"]
    rows = await ledger._store.fetch("SELECT owner FROM workers ORDER BY owner")  # noqa: SLF001  # what is kept
    assert [row[0] for row in rows] == ["here", "silent"]


async def test_a_worker_of_another_version_is_read(ledger: Ledger) -> None:
    await ledger.workers.write(worker())
    detail = json.dumps({"phase": "paused", "mood": "good"})
    await ledger._store.execute("UPDATE workers SET detail = $1", detail)  # noqa: SLF001  # as another version would

    (found,) = await ledger.workers.running()

    assert found.state == WorkerState(phase="paused")


ROLES: dict[str, tuple[Sequence[WorkerRow], Sequence[Role]]] = {
    "none": ([], []),
    "one, before its first message": ([worker()], ["active"]),
    "two, before the first message": ([worker("a"), worker("b")], ["ready", "ready"]),
    "two": ([worker("a", 1.0), worker("b", 2.0)], ["standby", "active"]),
    "the one that had the last is paused": (
        [worker("a", 1.0), worker("b", 2.0, "paused")],
        ["active", "paused"],
    ),
    "a new one beside one that stops": (
        [worker("a", 2.0, "stopping"), worker("b")],
        ["stopping", "active"],
    ),
}


@pytest.mark.parametrize(("workers", "expected"), ROLES.values(), ids=ROLES)
def test_the_active_worker_is_the_one_with_the_latest_message(
    workers: Sequence[WorkerRow], expected: Sequence[Role]
) -> None:
    assert roles(workers) == expected


async def test_what_was_done_with_a_dead_letter_is_kept_until_it_is_old(ledger: Ledger) -> None:
    sent = LetterAct(request_id="r", act="replayed", replay=1, done_at=NOW, done_by="ann")
    gone = replace(sent, act="discarded", done_at=NOW + 9, reason="a trial")

    await ledger.letter_acts.note(sent)
    await ledger.letter_acts.note(gone)
    assert await ledger.letter_acts.of(["r", "s"]) == {"r": gone}
    assert await ledger.letter_acts.of([]) == {}

    await ledger.forget_closed(NOW + 10)
    assert await ledger.letter_acts.of(["r"]) == {}


async def test_calls_that_others_took_the_place_of_are_counted_by_request(ledger: Ledger) -> None:
    named = entry("named", state="started", call_id="c1")
    nameless = entry("nameless", state="started")
    for was in (named, nameless):
        await ledger.earlier.remember_call(was)

    # A claim may be refused after that: the call is still the entry's own.
    assert await ledger.earlier.calls_of([named, nameless]) == {}
    after = [replace(named, call_id="c2", replay=1), replace(nameless, replay=1)]
    assert await ledger.earlier.calls_of(after) == {"named": 1, "nameless": 1}


async def test_what_waits_and_what_came_of_requests_is_counted(ledger: Ledger) -> None:
    for each in (
        entry("1", state="delayed", scheduled="not_before", due_at=NOW + 9),
        entry("2", state="delayed", scheduled="calling_hours", due_at=NOW + 5),
        entry("3", state="delayed", due_at=NOW + 1, claimed_at=NOW),
        entry("4", state="delayed", unsure_since=NOW, claimed_at=NOW - 60),
        entry("5", state="started", claimed_at=NOW),
        entry("6", state="failed", reason="refused", claimed_at=NOW - 1),
        entry("7", state="failed", reason="blocked"),
        entry("8", state="started", changed_at=NOW - 9),
        entry("9"),
    ):
        await ledger.put(each, None)

    assert await ledger.search.waiting() == Waiting(
        scheduled=2, next_due_at=NOW + 5, retrying=1, in_doubt=1
    )
    assert await ledger.search.outcomes(NOW - 1) == {"started": 1, "refused": 1, "blocked": 1}
    assert await ledger.search.dialled(NOW - 1) == (3, NOW - 1)
    assert await ledger.search.dialled(NOW + 1) == (0, NOW + 1)


async def test_requests_are_found_by_their_ids_and_by_the_number(ledger: Ledger) -> None:
    for each in (
        entry("late", number_digest="n", first_seen_at=NOW + 1),
        entry("early", number_digest="n"),
        entry("other", number_digest="m"),
    ):
        await ledger.put(each, None)

    assert set(await ledger.search.entries(["early", "other", "unknown"])) == {"early", "other"}
    assert await ledger.search.entries([]) == {}
    found = await ledger.search.entries_to_number("n")
    assert [each.request_id for each in found] == ["early", "late"]

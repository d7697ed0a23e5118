"""What a ledger does, whichever store keeps it; then what only the SQLite file does."""

import asyncio
import dataclasses
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.blocks import Block
from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.ledger.statements import COMPLETION

NOW = 1773748800.0
FILE = "sqlite:///ledger.db"
QUEUE = "call.requested"

STORES = {"a file": FILE, "memory": "sqlite://", "PostgreSQL": ""}
SHARED_STORES = {"a file": FILE, "PostgreSQL": ""}
"""Those that two processes can have open at once. An empty address is a fresh database's."""

Opener = Callable[..., Awaitable[Ledger]]


@pytest.fixture
async def open_ledger() -> AsyncIterator[Opener]:
    """Open ledgers, and close them after the test."""
    opened: list[Ledger] = []

    async def open_one(url: str, queue: str = QUEUE, at_once: int = 1) -> Ledger:
        ledger = Ledger(url, queue, at_once)
        opened.append(ledger)
        await ledger.open()
        return ledger

    yield open_one
    for ledger in opened:
        await ledger.close()


@pytest.fixture(params=STORES.values(), ids=list(STORES))
async def ledger(request: pytest.FixtureRequest, open_ledger: Opener) -> Ledger:
    return await open_ledger(request.param or request.getfixturevalue("database_url"))


@pytest.fixture(params=SHARED_STORES.values(), ids=list(SHARED_STORES))
def url(request: pytest.FixtureRequest) -> str:
    """Name a fresh store that may be opened more than once."""
    named: str = request.param or request.getfixturevalue("database_url")
    return named


def entry(request_id: str = "r-1", **changes: Any) -> Entry:  # noqa: ANN401
    whole = Entry(
        request_id=request_id,
        state="placing",
        attempt=1,
        replay=0,
        owner="this life",
        first_seen_at=NOW,
        changed_at=NOW,
        body_digest="digest",
    )
    return replace(whole, **changes)


FULL = Entry(
    request_id="A-z0:9._",
    state="failed",
    attempt=3,
    replay=2,
    owner="another life",
    first_seen_at=NOW + 0.125,
    first_claimed_at=NOW + 1.25,
    claimed_at=NOW + 2.5,
    changed_at=NOW + 3.75,
    due_at=NOW + 4.001,
    scheduled="not_before",
    cancelled_at=NOW + 4.25,
    cancelled_for="the appointment was moved",
    replayed_at=NOW + 4.5,
    rows_from=NOW + 4.75,
    clock_offset_s=-0.25,
    call_id="infocall.4aa8",
    confirmed_by="answer",
    unsure_since=NOW + 5.999999,
    line="reg1",
    reason="unsure",
    code="ERROR_CORE",
    description="не 'найден'; \"x\"\n\U0001f4de",
    http_status=400,
    published=True,
    body_digest="b" * 64,
    target_digest="t" * 64,
    number_digest="n" * 64,
    traceparent="00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
    version=1,
)


async def put(ledger: Ledger, new: Entry, was: Entry | None = None) -> Entry:
    """Write an entry that nothing speaks against."""
    written = await ledger.put(new, was)
    assert written is not None
    return written


# --- entries


async def test_a_note_that_cannot_be_written_is_written_later(
    open_ledger: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sqlite.BUSY_S", "published.SOON_S", "published.AGAIN_S"):
        monkeypatch.setattr(f"consumer.ledger.{name}", 0)
    ledger = await open_ledger(f"sqlite:///{tmp_path}/ledger.db")
    started = await put(ledger, entry(state="started"))
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with capture_logs() as lines:
            ledger.published.add(started)
            await ledger.published.flush()
            await ledger.published.flush()
        other.execute("ROLLBACK")

    assert [line["event"] for line in lines] == ["ledger.not_marked"]
    writing = ledger.published._writing  # noqa: SLF001  # no other sign of its end
    assert writing is not None
    await asyncio.wait_for(writing, 5)
    found = await ledger.get("r-1")
    assert found is not None
    assert found.published


async def test_what_was_never_written_is_not_known(ledger: Ledger) -> None:
    assert await ledger.get("r-1") is None


async def test_an_entry_is_read_as_it_was_written(ledger: Ledger) -> None:
    written = await ledger.put(entry(), None)

    assert written == entry(version=1)
    assert await ledger.get("r-1") == written


async def test_every_field_is_kept(ledger: Ledger) -> None:
    plain = entry()
    for field in dataclasses.fields(Entry):
        if field.name in COMPLETION:
            continue  # told by another table
        assert getattr(FULL, field.name) != getattr(plain, field.name), field.name

    await ledger.put(replace(FULL, version=0), None)

    kept = await ledger.get(FULL.request_id)
    assert kept == FULL
    assert kept.published is True


async def test_every_field_can_change(ledger: Ledger) -> None:
    was = await put(ledger, entry(FULL.request_id))

    await ledger.put(FULL, was)

    assert await ledger.get(FULL.request_id) == replace(
        FULL, version=2, cancelled_at=0.0, cancelled_for=None
    )


async def test_outcomes_are_counted_by_the_hour(ledger: Ledger) -> None:
    hour = 3600.0
    for n, (state, at) in enumerate(
        [("started", 0.2), ("started", hour - 0.1), ("failed", hour + 1), ("delayed", 1.0)]
    ):
        reason = "refused" if state == "failed" else None
        await ledger.put(entry(f"r-{n}", state=state, changed_at=NOW + at, reason=reason), None)
    await ledger.put(entry("before", state="started", changed_at=NOW - 1), None)

    by_hour = await ledger.search.outcomes_by_hour(NOW)

    assert sum(each.get("started", 0) for each in by_hour.values()) == 2
    assert by_hour[1]["refused"] == 1
    assert "refused" not in by_hour[0]


async def test_what_waits_is_found_the_next_due_first(ledger: Ledger) -> None:
    for n, due_at in enumerate((30.0, 10.0, 20.0)):
        await ledger.put(entry(f"r-{n}", state="delayed", due_at=NOW + due_at), None)
    await ledger.put(entry("done", state="started"), None)

    found = await ledger.search.next_due(2)

    assert [each.request_id for each in found] == ["r-1", "r-2"]


async def test_each_change_is_a_new_version(ledger: Ledger) -> None:
    first = await put(ledger, entry())
    second = await put(ledger, replace(first, published=True), first)
    third = await put(ledger, replace(second, attempt=2), second)

    assert [first.version, second.version, third.version] == [1, 2, 3]
    assert await ledger.get("r-1") == third


async def test_what_is_there_is_not_written_anew(ledger: Ledger) -> None:
    there = await put(ledger, entry())

    assert await ledger.put(entry(owner="another life"), None) is None
    assert await ledger.get("r-1") == there


async def test_the_same_written_again_is_one_write(ledger: Ledger) -> None:
    first = await ledger.put(entry(), None)
    assert first is not None
    second = await ledger.put(replace(first, published=True), first)

    assert await ledger.put(replace(first, published=True), first) == second
    assert await ledger.get("r-1") == second


async def test_a_new_version_is_not_published_whatever_was_noted_of_the_one_before(
    ledger: Ledger,
) -> None:
    started = await put(ledger, entry(state="started"))
    await ledger.published.write([started])  # which is no new version

    delayed = await put(ledger, replace(started, state="delayed", due_at=NOW), started)

    assert await ledger.get("r-1") == delayed
    assert delayed.published is False


async def test_what_has_changed_since_is_not_overwritten(ledger: Ledger) -> None:
    was = await put(ledger, entry())
    now = await put(ledger, replace(was, owner="another life"), was)

    assert await ledger.put(replace(was, state="started"), was) is None
    assert await ledger.get("r-1") == now


async def test_what_is_gone_is_not_changed(ledger: Ledger) -> None:
    was = await put(ledger, entry())
    await ledger.forget(was)

    assert await ledger.put(replace(was, state="started"), was) is None
    assert await ledger.get("r-1") is None


async def test_one_entry_does_not_touch_another(ledger: Ledger) -> None:
    other = await put(ledger, entry("r-2"))
    was = await put(ledger, entry("r-1"))

    await put(ledger, replace(was, state="started"), was)
    await ledger.forget(was)

    assert await ledger.get("r-2") == other


async def test_ids_that_differ_in_case_are_two(ledger: Ledger) -> None:
    await put(ledger, entry("R-1"))

    assert await ledger.get("r-1") is None


async def test_each_queue_has_requests_of_its_own(url: str, open_ledger: Opener) -> None:
    ours, theirs = await open_ledger(url), await open_ledger(url, "reminders")

    mine = await put(ours, entry(code="ours"))
    await put(theirs, entry(code="theirs"))
    await theirs.put(replace(mine, code="mixed up"), replace(mine, version=7))

    assert await ours.get("r-1") == mine
    kept = await theirs.get("r-1")
    assert kept is not None
    assert kept.code == "theirs"


# --- two that want the same


async def test_of_two_that_read_the_same_one_writes(url: str, open_ledger: Opener) -> None:
    one, two = await open_ledger(url), await open_ledger(url)
    await put(one, entry())
    seen_by_one, seen_by_two = await one.get("r-1"), await two.get("r-1")
    assert seen_by_one == seen_by_two

    first = await two.put(entry(owner="two"), seen_by_two)
    second = await one.put(entry(owner="one"), seen_by_one)

    assert first is not None
    assert second is None
    assert await one.get("r-1") == await two.get("r-1") == first


async def test_of_two_that_see_nothing_one_writes(url: str, open_ledger: Opener) -> None:
    one, two = await open_ledger(url), await open_ledger(url)

    first = await one.put(entry(owner="one"), None)
    second = await two.put(entry(owner="two"), None)

    assert first == await two.get("r-1")
    assert second is None


async def test_of_many_at_once_one_wins_each_round(url: str, open_ledger: Opener) -> None:
    rounds, lives = 15, 6
    ledger = await open_ledger(url)
    barrier = threading.Barrier(lives)

    async def live(owner: str) -> list[bool]:
        mine = Ledger(url, QUEUE)
        await mine.open()
        won = []
        for _ in range(rounds):
            was = await mine.get("r-1")
            barrier.wait(timeout=10)
            won.append(await mine.put(entry(owner=owner), was) is not None)
            barrier.wait(timeout=10)
        await mine.close()
        return won

    results = await asyncio.gather(
        *(asyncio.to_thread(asyncio.run, live(f"life {i}")) for i in range(lives))
    )

    winners = [sum(won) for won in zip(*results, strict=True)]
    last = await ledger.get("r-1")
    assert winners == [1] * rounds
    assert last is not None
    assert last.version == rounds


# --- calls

FOUND: dict[str, Any] = {"state": "started", "call_id": "c1", "confirmed_by": "history"}
ANSWERED: dict[str, Any] = {"state": "started", "call_id": "c1", "confirmed_by": "answer"}


async def test_a_call_found_in_the_history_is_adopted_once(ledger: Ledger) -> None:
    one = await put(ledger, entry("r-1"))
    two = await put(ledger, entry("r-2"))

    adopted = await ledger.put(replace(one, **FOUND), one)

    assert adopted is not None
    assert await ledger.put(replace(two, **FOUND), two) is None
    assert await ledger.put(entry("r-3", **FOUND), None) is None
    assert await ledger.get("r-2") == two
    assert await ledger.get("r-3") is None


async def test_a_call_that_the_portal_ascribed_to_a_request_is_not_adopted(
    ledger: Ledger,
) -> None:
    await put(ledger, entry("r-1", **ANSWERED))
    two = await put(ledger, entry("r-2"))

    assert await ledger.put(replace(two, **FOUND), two) is None


async def test_a_call_of_another_queue_is_not_adopted(url: str, open_ledger: Opener) -> None:
    ours, theirs = await open_ledger(url), await open_ledger(url, "reminders")
    await put(theirs, entry("r-9", **ANSWERED))
    was = await put(ours, entry())

    assert await ours.put(replace(was, **FOUND), was) is None


async def test_an_adopted_call_may_change_further(ledger: Ledger) -> None:
    adopted = await put(ledger, entry(**FOUND))

    out = await ledger.put(replace(adopted, published=True), adopted)

    assert out == replace(adopted, published=True, version=2)


async def test_an_answer_is_written_even_if_its_call_was_adopted_before(
    ledger: Ledger,
) -> None:
    await put(ledger, entry("r-1", **FOUND))
    two = await put(ledger, entry("r-2"))

    late = await ledger.put(replace(two, **ANSWERED), two)

    assert late is not None
    assert late.call_id == "c1"


async def test_calls_without_an_id_are_not_one_call(ledger: Ledger) -> None:
    nameless: dict[str, Any] = {"state": "started", "confirmed_by": "answer"}

    assert await ledger.put(entry("r-1", **nameless), None) is not None
    assert await ledger.put(entry("r-2", **nameless), None) is not None


async def test_known_calls_are_those_of_any_request(url: str, open_ledger: Opener) -> None:
    ours, theirs = await open_ledger(url), await open_ledger(url, "reminders")
    await put(ours, entry("r-1", call_id="c1"))
    await put(ours, entry("r-2"))
    await put(theirs, entry("r-3", call_id="c3"))

    assert await ours.search.known_calls(["c1", "c2", "c3", "c1"]) == {"c1": 0.0, "c3": 0.0}
    assert await ours.search.known_calls([]) == {}
    assert await ours.search.known_calls(f"c{i}" for i in range(1000)) == {"c1": 0.0, "c3": 0.0}


async def test_recent_call_ids_are_the_newest_before_a_moment(ledger: Ledger) -> None:
    for i in range(5):
        await put(ledger, entry(f"r-{i}", state="started", call_id=f"c{i}", changed_at=NOW + i))
    await put(ledger, entry("no id", state="started", changed_at=NOW))
    await put(ledger, entry("failed", state="failed", call_id="c8", changed_at=NOW))
    await put(ledger, entry("placing", state="placing", call_id="c9", changed_at=NOW))

    assert await ledger.search.recent_call_ids(NOW + 4, 3) == ["c3", "c2", "c1"]
    assert await ledger.search.recent_call_ids(NOW + 99, 99) == ["c4", "c3", "c2", "c1", "c0"]
    assert await ledger.search.recent_call_ids(NOW, 3) == []


async def test_the_oldest_failure_is_that_of_this_queue(url: str, open_ledger: Opener) -> None:
    ours, theirs = await open_ledger(url), await open_ledger(url, "reminders")
    await put(theirs, entry("r-0", state="failed", changed_at=NOW - 9))
    await put(ours, entry("r-0", state="started", changed_at=NOW - 8))
    before = await ours.search.oldest_failure()
    await put(ours, entry("r-2", state="failed", changed_at=NOW + 2))
    await put(ours, entry("r-1", state="failed", changed_at=NOW + 1))

    assert before == 0.0
    assert await ours.search.oldest_failure() == NOW + 1


# --- doubts

DOUBTS: dict[str, tuple[dict[str, Any], bool]] = {
    "in doubt, delayed": ({"state": "delayed", "unsure_since": NOW}, True),
    "in doubt, failed": ({"state": "failed", "unsure_since": NOW}, True),
    "in doubt since the epoch": ({"state": "delayed", "unsure_since": 0.0}, True),
    "dialling": ({"state": "placing"}, True),
    "waiting": ({"state": "delayed"}, False),
    "started": ({"state": "started", "call_id": "c1"}, False),
    "failed": ({"state": "failed"}, False),
    "in doubt, to another number or line": (
        {"state": "delayed", "unsure_since": NOW, "target_digest": "elsewhere"},
        False,
    ),
}


@pytest.mark.parametrize(("changes", "counts"), DOUBTS.values(), ids=DOUBTS)
async def test_others_in_doubt_may_have_placed_the_same_call(
    ledger: Ledger, changes: dict[str, Any], *, counts: bool
) -> None:
    mine = await put(ledger, entry(unsure_since=NOW, target_digest="target"))
    other = await put(ledger, entry("r-2", **{"target_digest": "target"} | changes))

    assert await ledger.search.others_in_doubt(mine) == ([other] if counts else [])


async def test_others_in_doubt_may_be_of_another_queue(url: str, open_ledger: Opener) -> None:
    ours, theirs = await open_ledger(url), await open_ledger(url, "reminders")
    mine = await put(ours, entry(target_digest="target"))
    same_id = await put(theirs, entry(target_digest="target", owner="their life"))

    assert await ours.search.others_in_doubt(mine) == [same_id]


# --- forgetting


async def test_what_is_forgotten_may_come_anew(ledger: Ledger) -> None:
    was = await put(ledger, entry())

    await ledger.forget(was)

    assert await ledger.get("r-1") is None
    assert await ledger.put(entry(), None) == was


async def test_what_has_changed_since_is_not_forgotten(ledger: Ledger) -> None:
    was = await put(ledger, entry())
    now = await put(ledger, replace(was, state="started"), was)

    await ledger.forget(was)

    assert await ledger.get("r-1") == now


async def test_closed_entries_are_forgotten_in_time_and_open_ones_never(
    ledger: Ledger,
) -> None:
    for state in ("placing", "started", "delayed", "failed"):
        for age in (1, 0):
            await put(ledger, entry(f"{state}-{age}", state=state, changed_at=NOW - age))

    forgotten = await ledger.forget_closed(NOW)

    left = [
        f"{state}-{age}"
        for state in ("placing", "started", "delayed", "failed")
        for age in (1, 0)
        if await ledger.get(f"{state}-{age}")
    ]
    assert forgotten == 2
    assert left == ["placing-1", "placing-0", "started-0", "delayed-1", "delayed-0", "failed-0"]
    assert await ledger.forget_closed(NOW) == 0


async def test_another_queues_entries_are_left_to_it(url: str, open_ledger: Opener) -> None:
    ours, theirs = await open_ledger(url), await open_ledger(url, "reminders")
    kept = await put(theirs, entry(state="started"))

    assert await ours.forget_closed(NOW + 1) == 0
    assert await theirs.get("r-1") == kept


# --- digests


async def test_a_digest_is_equal_for_what_is_equal(ledger: Ledger) -> None:
    digest = ledger.digest({"b": [1, None], "a": "ä"}, 7)

    assert digest == ledger.digest({"a": "ä", "b": [1, None]}, 7)
    assert len(digest) == 64


DIFFERENT: dict[str, tuple[object, ...]] = {
    "another number": ("+4915112345679", "reg1"),
    "another line": ("+4915112345678", "reg2"),
    "one part more": ("+4915112345678", "reg1", ""),
    "split elsewhere": ("+4915112345678r", "eg1"),
    "joined": ("+4915112345678reg1",),
    "another order": ("reg1", "+4915112345678"),
    "a list": (["+4915112345678", "reg1"],),
    "nothing": (),
}


@pytest.mark.parametrize("parts", DIFFERENT.values(), ids=DIFFERENT)
async def test_a_digest_differs_for_what_differs(ledger: Ledger, parts: tuple[object, ...]) -> None:
    assert ledger.digest(*parts) != ledger.digest("+4915112345678", "reg1")


async def test_digests_outlive_a_restart_and_are_shared(url: str, open_ledger: Opener) -> None:
    first = await open_ledger(url)
    told = first.digest("+4915112345678", "reg1")
    await first.close()

    again, beside = await open_ledger(url), await open_ledger(url, "reminders")

    assert again.digest("+4915112345678", "reg1") == told
    assert beside.digest("+4915112345678", "reg1") == told


async def test_no_two_ledgers_have_the_same_digests(open_ledger: Opener) -> None:
    one, two = await open_ledger("sqlite:///one.db"), await open_ledger("sqlite:///two.db")
    three, four = await open_ledger("sqlite://"), await open_ledger("sqlite://")

    digests = {ledger.digest("+4915112345678", "reg1") for ledger in (one, two, three, four)}

    assert len(digests) == 4


# --- opening


async def test_a_ledger_has_begun_once_any_worker_of_the_queue_says_so(
    url: str, open_ledger: Opener
) -> None:
    first, standby = await open_ledger(url), await open_ledger(url)
    assert not await standby.has_begun()

    await first.begin()
    await first.begin()

    assert await standby.has_begun()
    assert await first.has_begun()
    assert await (await open_ledger(url)).has_begun()


async def test_whether_a_ledger_has_begun_is_each_queues_own(url: str, open_ledger: Opener) -> None:
    await (await open_ledger(url)).begin()

    assert not await (await open_ledger(url, "another.queue")).has_begun()


async def test_that_the_history_was_readable_is_known_for_some_days(
    url: str, open_ledger: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = await open_ledger(url)
    assert not await ledger.history_seen.not_long_ago()

    await ledger.history_seen.note()
    assert await (await open_ledger(url)).history_seen.not_long_ago()

    monkeypatch.setattr("consumer.ledger.about.HISTORY_BELIEVED_S", 0.0)
    assert not await ledger.history_seen.not_long_ago()


async def test_a_call_stays_known_when_another_takes_its_place(ledger: Ledger) -> None:
    first = await put(ledger, entry(state="started", call_id="c1", claimed_at=NOW))
    await ledger.earlier.remember_call(first)
    await put(ledger, replace(first, state="placing", call_id=None), first)

    assert await ledger.search.known_calls(["c1", "c2"]) == {"c1": NOW}


# --- claims, cancellations and controls


async def test_who_knows_the_controls_may_claim(ledger: Ledger) -> None:
    controls = await ledger.controls.version()

    claimed = await ledger.claim(entry(), None, controls)
    assert claimed is not None
    waiting = await put(ledger, replace(claimed, state="delayed"), claimed)

    assert await ledger.claim(replace(waiting, state="placing"), waiting, controls) is not None


BLOCK = Block("b1", "metadata", "campaign", "42", "wrong text", NOW, "ann")
CHANGES: dict[str, Callable[[Ledger], Awaitable[object]]] = {
    "pause": lambda ledger: ledger.controls.pause("wrong text", "ann"),
    "resume": lambda ledger: ledger.controls.resume(),
    "block": lambda ledger: ledger.controls.add_block(BLOCK),
    "unblock": lambda ledger: ledger.controls.remove_block("b1"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_who_does_not_know_the_latest_controls_may_not_claim(
    ledger: Ledger, change: Callable[[Ledger], Awaitable[object]]
) -> None:
    waiting = await put(ledger, entry("r-2", state="delayed"))
    controls = await ledger.controls.version()

    await change(ledger)

    assert await ledger.claim(entry(), None, controls) is None
    assert await ledger.claim(replace(waiting, state="placing"), waiting, controls) is None
    assert await ledger.claim(entry(), None, (await ledger.controls.read()).version) is not None


async def test_controls_are_shared_and_kept(url: str, open_ledger: Opener) -> None:
    ours, theirs = await open_ledger(url), await open_ledger(url)
    other_queue = await open_ledger(url, "reminders")

    paused = await ours.controls.pause("wrong text", "ann")
    assert await theirs.controls.pause("something else", "bob") == paused
    await ours.controls.add_block(BLOCK)

    known = await theirs.controls.read()
    assert (known.pause, known.blocks) == (paused, (BLOCK,))
    assert (await other_queue.controls.read()).pause is None
    assert (await other_queue.controls.read()).blocks == ()

    assert await theirs.controls.resume()
    assert not await theirs.controls.resume()
    assert await theirs.controls.remove_block("b1")
    assert not await theirs.controls.remove_block("b1")
    last = await ours.controls.read()
    assert (last.pause, last.blocks) == (None, ())


UNSEEN = entry("r-9", state="failed", reason="cancelled", body_digest="", cancelled_at=NOW + 1)


async def test_what_is_taken_back_before_it_came_has_an_entry(ledger: Ledger) -> None:
    assert await ledger.cancel(UNSEEN) == replace(UNSEEN, version=1)
    assert (await ledger.cancel(replace(UNSEEN, cancelled_at=NOW + 2))).cancelled_at == NOW + 1

    assert await ledger.claim(entry("r-9"), None, await ledger.controls.version()) is None


async def test_what_is_taken_back_cannot_be_claimed(ledger: Ledger) -> None:
    waiting = await put(ledger, entry("r-9", state="delayed"))

    cancelled = await ledger.cancel(replace(UNSEEN, cancelled_for="moved"))

    assert cancelled == replace(waiting, cancelled_at=NOW + 1, cancelled_for="moved")
    claim = replace(waiting, state="placing")
    assert await ledger.claim(claim, waiting, await ledger.controls.version()) is None


async def test_a_cancellation_outlives_what_is_recorded_of_a_call_in_flight(
    ledger: Ledger,
) -> None:
    claimed = await put(ledger, entry("r-9"))

    await ledger.cancel(UNSEEN)
    await put(ledger, replace(claimed, state="delayed"), claimed)

    kept = await ledger.get("r-9")
    assert kept is not None
    assert (kept.state, kept.cancelled_at) == ("delayed", NOW + 1)


async def test_a_claim_and_a_cancellation_at_the_same_moment(url: str, open_ledger: Opener) -> None:
    """Either it is claimed, and the canceller sees so, or it cannot be claimed any more."""
    ours, theirs = await open_ledger(url), await open_ledger(url)
    controls = await ours.controls.version()
    for n in range(30):
        request_id = f"r-{n}"
        waiting = await put(ours, entry(request_id, state="delayed")) if n % 2 else None
        claim = entry(request_id) if waiting is None else replace(waiting, state="placing")
        unseen = replace(UNSEEN, request_id=request_id)

        claimed, cancelled = await asyncio.gather(
            ours.claim(claim, waiting, controls), theirs.cancel(unseen)
        )

        assert (claimed is not None) == (cancelled.state == "placing")


NUMBERS: dict[str, tuple[dict[str, Any], bool]] = {
    "started": ({"state": "started"}, True),
    "being dialled": ({"state": "placing"}, True),
    "in doubt": ({"state": "delayed", "unsure_since": NOW}, True),
    "refused": ({"state": "failed"}, False),
    "waiting": ({"state": "delayed"}, False),
    "yesterday": ({"state": "started", "claimed_at": NOW - 1}, False),
    "another number": ({"state": "started", "number_digest": "another"}, False),
    "itself, in doubt": ({"state": "delayed", "unsure_since": NOW, "request_id": "r-1"}, False),
    "itself, started": ({"state": "started", "request_id": "r-1"}, True),
}


@pytest.mark.parametrize(("changes", "counts"), NUMBERS.values(), ids=NUMBERS)
async def test_the_calls_a_number_has_had(
    ledger: Ledger, changes: dict[str, Any], *, counts: bool
) -> None:
    mine = entry(number_digest="number")
    known: dict[str, Any] = {"request_id": "r-2", "number_digest": "number", "claimed_at": NOW}
    await put(ledger, replace(mine, **known | changes))

    assert await ledger.search.calls_to_number(mine, NOW) == counts


async def test_a_doubt_stays_known_when_a_replay_to_another_number_takes_its_place(
    ledger: Ledger,
) -> None:
    mine = await put(ledger, entry(unsure_since=NOW, target_digest="target"))
    other = await put(
        ledger, entry("r-2", unsure_since=NOW, target_digest="target", state="failed")
    )
    await ledger.earlier.remember_doubt(other)
    await put(ledger, replace(other, unsure_since=None, target_digest="elsewhere"), other)

    assert await ledger.earlier.doubts_of("r-2") == [other]
    assert await ledger.earlier.doubts_of("r-1") == []
    assert await ledger.search.others_in_doubt(mine) == [other]


async def test_an_earlier_doubt_counts_once_where_the_request_is_back_at_its_number(
    ledger: Ledger,
) -> None:
    mine = await put(ledger, entry(unsure_since=NOW, target_digest="target"))
    other = await put(ledger, entry("r-2", target_digest="target", state="started", call_id="c1"))
    await ledger.earlier.remember_doubt(replace(other, unsure_since=NOW))

    assert await ledger.search.others_in_doubt(mine) == []


async def test_what_was_written_is_there_after_a_restart(url: str, open_ledger: Opener) -> None:
    first = await open_ledger(url)
    written = await put(first, entry())
    await first.close()

    assert await (await open_ledger(url)).get("r-1") == written


async def test_a_ledger_may_be_closed_twice(ledger: Ledger) -> None:
    await ledger.close()
    await ledger.close()


CLOSED: dict[str, Callable[[Ledger], Awaitable[object]]] = {
    "get": lambda ledger: ledger.get("r-1"),
    "put": lambda ledger: ledger.put(entry(), None),
    "check_writable": lambda ledger: ledger.check_writable(),
    "others_in_doubt": lambda ledger: ledger.search.others_in_doubt(entry()),
    "known_calls": lambda ledger: ledger.search.known_calls(["c1"]),
    "doubts_of": lambda ledger: ledger.earlier.doubts_of("r-1"),
    "remember_doubt": lambda ledger: ledger.earlier.remember_doubt(entry()),
    "claim": lambda ledger: ledger.claim(entry(), None, b""),
    "cancel": lambda ledger: ledger.cancel(UNSEEN),
    "controls": lambda ledger: ledger.controls.read(),
    "pause": lambda ledger: ledger.controls.pause("wrong text", "ann"),
    "recent_call_ids": lambda ledger: ledger.search.recent_call_ids(NOW, 1),
    "oldest_failure": lambda ledger: ledger.search.oldest_failure(),
    "forget": lambda ledger: ledger.forget(entry()),
    "forget_closed": lambda ledger: ledger.forget_closed(NOW),
}


@pytest.mark.parametrize("use", CLOSED.values(), ids=CLOSED)
async def test_a_closed_ledger_is_down(
    ledger: Ledger, use: Callable[[Ledger], Awaitable[object]]
) -> None:
    await ledger.close()

    with pytest.raises(LedgerDown, match="closed"):
        await use(ledger)


async def test_a_ledger_that_can_be_written_says_so(ledger: Ledger) -> None:
    await ledger.check_writable()
    await ledger.check_writable()

    assert await ledger.get("checked") is None


KILLED = """
import asyncio, os, signal, sys
sys.path[:0] = [sys.argv[2]]
from consumer.ledger import Ledger
from test_ledger import QUEUE, entry

async def main():
    ledger = Ledger(sys.argv[1], QUEUE)
    await ledger.open()
    await ledger.put(entry(), None)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_what_was_written_survives_a_process_that_is_killed(
    url: str, open_ledger: Opener
) -> None:
    arguments = [sys.executable, "-c", KILLED, url, str(Path(__file__).parent)]

    died = await asyncio.to_thread(subprocess.run, arguments, check=False, timeout=30)

    assert died.returncode == -signal.SIGKILL
    reopened = await open_ledger(url)
    assert await reopened.get("r-1") == entry(version=1)


# --- the SQLite file

ADDRESSES: dict[str, tuple[str, str]] = {
    "in this folder": ("sqlite:///calls.db", "calls.db"),
    "in a folder of it": ("sqlite:///data/calls.db", "data/calls.db"),
}


@pytest.mark.parametrize(("address", "file"), ADDRESSES.values(), ids=ADDRESSES)
async def test_the_file_is_where_its_address_says(
    address: str, file: str, tmp_path: Path, open_ledger: Opener
) -> None:
    tmp_path.joinpath("data").mkdir()

    await open_ledger(address)
    await open_ledger(f"sqlite:///{tmp_path}/absolute.db")

    assert tmp_path.joinpath(file).is_file()
    assert tmp_path.joinpath("absolute.db").is_file()


def files_in(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


async def test_in_memory_there_is_no_file(tmp_path: Path, open_ledger: Opener) -> None:
    await put(await open_ledger("sqlite://"), entry())

    assert files_in(tmp_path) == {}


async def test_a_write_is_on_disk_before_it_is_confirmed(open_ledger: Opener) -> None:
    ledger = await open_ledger(FILE)

    settings = [
        (await ledger._store.fetch(f"PRAGMA {name}"))[0][0]  # noqa: SLF001
        for name in ("journal_mode", "synchronous")
    ]

    assert settings == ["wal", 2]  # FULL


async def test_writes_of_one_moment_wait_for_the_disk_together(open_ledger: Opener) -> None:
    ledger = await open_ledger(FILE, at_once=20)
    statements: list[str] = []
    ledger._store._opened().set_trace_callback(statements.append)  # type: ignore[attr-defined]  # noqa: SLF001

    written = await asyncio.gather(*(ledger.put(entry(f"r-{n}"), None) for n in range(20)))

    assert statements.count("COMMIT") == 1
    assert [await ledger.get(f"r-{n}") for n in range(20)] == written


async def test_a_write_soon_after_another_waits_for_the_disk_with_it(open_ledger: Opener) -> None:
    ledger = await open_ledger(FILE, at_once=20)
    statements: list[str] = []
    ledger._store._opened().set_trace_callback(statements.append)  # type: ignore[attr-defined]  # noqa: SLF001

    async def after(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await ledger.claim(entry(f"r-{turns}"), None, b"")

    await asyncio.gather(*map(after, range(0, 20, 2)))

    assert statements.count("COMMIT") == 1
    assert await ledger.get("r-18") == entry("r-18", version=1)


@pytest.mark.parametrize("others", [0, 19])
async def test_nobody_is_waited_for_once_all_who_are_at_work_wait(
    open_ledger: Opener, others: int
) -> None:
    ledger = await open_ledger(FILE, at_once=20)
    turns = 0
    claims = [
        asyncio.create_task(ledger.claim(entry(f"r-{n}"), None, b"")) for n in range(1 + others)
    ]

    while not claims[0].done():
        turns += 1
        await asyncio.sleep(0)

    assert (turns < 20) is bool(others)
    await asyncio.gather(*claims)


async def test_who_works_alone_waits_for_the_disk_only(open_ledger: Opener) -> None:
    ledger = await open_ledger(FILE, at_once=1)
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1

    asyncio.get_running_loop().call_soon(turn)
    await ledger.claim(entry(), None, b"")

    assert turns == 0


async def test_what_no_database_can_hold_fails_alone(open_ledger: Opener) -> None:
    ledger = await open_ledger(FILE, at_once=4)

    results = await asyncio.gather(
        ledger.put(entry("r-1"), None),
        ledger.put(entry("r-2", description="\ud800"), None),
        ledger.put(entry("r-3", attempt=2**64), None),
        ledger.put(entry("r-4"), None),
        return_exceptions=True,
    )

    assert list(map(type, results)) == [Entry, UnicodeEncodeError, OverflowError, Entry]
    assert await ledger.get("r-4") == results[3]


async def test_whatever_goes_wrong_at_the_disk_all_that_wait_hear_of_it(
    open_ledger: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = await open_ledger(FILE, at_once=2)

    def no_memory(*_: object) -> int:
        raise MemoryError

    monkeypatch.setattr("consumer.ledger.sqlite._touched", no_memory)
    puts = (ledger.put(entry(f"r-{n}"), None) for n in range(2))
    async with asyncio.timeout(5):
        results = await asyncio.gather(*puts, return_exceptions=True)

    assert list(map(type, results)) == [MemoryError, MemoryError]
    monkeypatch.undo()
    assert await ledger.put(entry("r-1"), None) == entry("r-1", version=1)


async def test_what_waits_to_be_written_is_written_at_the_close(open_ledger: Opener) -> None:
    ledger = await open_ledger(FILE)
    writing = asyncio.create_task(ledger.put(entry(), None))
    await asyncio.sleep(0)

    await ledger.close()

    assert await writing == entry(version=1)
    assert await (await open_ledger(FILE)).get("r-1") == entry(version=1)


async def test_if_the_disk_refuses_one_of_them_none_is_written(open_ledger: Opener) -> None:
    ledger = await open_ledger(FILE)

    with disk_full():
        results = await asyncio.gather(
            *(ledger.put(entry(f"r-{n}"), None) for n in range(5)), return_exceptions=True
        )

    assert [type(result) for result in results] == [LedgerDown] * 5
    assert [await ledger.get(f"r-{n}") for n in range(5)] == [None] * 5
    assert await ledger.put(entry("r-0"), None) == entry("r-0", version=1)


async def test_neither_number_nor_text_is_in_the_file(tmp_path: Path, open_ledger: Opener) -> None:
    ledger = await open_ledger(FILE)
    number, text = "+4915112345678", "Frau Meier, your code is 4711."
    digests = {
        "body_digest": ledger.digest({"to_number": number, "text_to_pronounce": text}),
        "target_digest": ledger.digest(number, "reg1"),
    }

    await put(ledger, entry(**digests))

    for when in ("open", "closed"):
        kept = b"".join(files_in(tmp_path).values())
        assert digests["body_digest"].encode() in kept, when
        for secret in ("4915112345678", "15112345678", "Meier", "4711."):
            assert secret.encode() not in kept, when
        await ledger.close()


async def test_a_file_of_a_newer_version_is_left_alone(open_ledger: Opener) -> None:
    await (await open_ledger(FILE)).close()
    with sqlite3.connect("ledger.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(LedgerDown) as caught:
        await open_ledger(FILE)

    assert str(caught.value) == (
        "ledger.db was written by a newer version (schema 99): upgrade this one"
    )


@contextmanager
def nobody() -> Iterator[None]:
    """Have no more rights than any user: root may write everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write in *folder*, which pytest's own would hide from others than root."""
    modes = {path: path.stat().st_mode for path in (folder, *folder.iterdir())}
    for path, mode in modes.items():
        path.chmod(mode & 0o555 | 0o444)
    folder.chmod(0o555)
    try:
        with nobody():
            yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


async def test_a_file_that_cannot_be_written_is_down(open_ledger: Opener) -> None:
    with tempfile.TemporaryDirectory() as folder:
        address = f"sqlite:///{folder}/ledger.db"
        await (await open_ledger(address)).close()

        with read_only(Path(folder)), pytest.raises(LedgerDown, match="readonly database"):
            await open_ledger(address)


UNUSABLE: dict[str, tuple[str, str]] = {
    "no such folder": ("sqlite:///nowhere/ledger.db", "unable to open database file"),
    "a folder": ("sqlite:///folder", "unable to open database file"),
    "another file": ("sqlite:///notes.txt", "file is not a database"),
}


@pytest.mark.parametrize(("address", "why"), UNUSABLE.values(), ids=UNUSABLE)
async def test_a_file_that_is_no_ledger_is_down(
    address: str, why: str, tmp_path: Path, open_ledger: Opener
) -> None:
    tmp_path.joinpath("folder").mkdir()
    tmp_path.joinpath("notes.txt").write_text("Dear diary, " * 100)

    with pytest.raises(LedgerDown, match=why):
        await open_ledger(address)


@contextmanager
def disk_full() -> Iterator[None]:
    """Let no file of this process grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


async def test_on_a_full_disk_it_is_down_and_then_goes_on(open_ledger: Opener) -> None:
    ledger = await open_ledger(FILE)
    was = await put(ledger, entry())

    with disk_full():
        with pytest.raises(LedgerDown):
            await ledger.put(replace(was, attempt=2), was)
        with pytest.raises(LedgerDown):
            await ledger.check_writable()
        still_read = await ledger.get("r-1")

    assert still_read == was
    assert await ledger.put(replace(was, attempt=2), was) == replace(was, attempt=2, version=2)


async def test_while_another_writes_for_long_it_is_down_and_then_goes_on(
    open_ledger: Opener,
) -> None:
    ledger = await open_ledger(FILE)
    await ledger._store.execute("PRAGMA busy_timeout = 50")  # noqa: SLF001  # seconds are too long
    other = sqlite3.connect("ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(LedgerDown, match="locked"):
        await ledger.put(entry(), None)

    assert await ledger.get("r-1") is None
    other.execute("ROLLBACK")
    other.close()
    assert await ledger.put(entry(), None) is not None

"""One request on its way through its states, with stand-ins for all around it but the ledger."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from consumer.caller import GivenBack
from consumer.decision import Announce, Decision, Fail, Failure, Reconcile, Retry
from consumer.findings import Ambiguous, Found, HistoryFinding, LookUpFailed, NoHistory, NotFound
from consumer.ledger import Entry, LedgerDown
from consumer.messages import Defaults
from tests.desk import Desk, deciding, opened_desk
from tests.fakes import delivery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from consumer.processor import Processor

LOST = Failure("READ_TIMEOUT", "the answer was lost")
REFUSED = Failure("ERROR_CORE", "Phone number is not correct", 400)
STARTED = Announce("c1")
UNSURE = Reconcile(5.0, LOST)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with opened_desk() as desk:
        yield desk


# --- the first attempt

FIRST: dict[str, tuple[Decision, str, list[str]]] = {
    "placed": (STARTED, "started", ["started"]),
    "unavailable": (Retry(5.0, 2, Failure("HTTP_503")), "delayed", ["postponed"]),
    "unsure": (UNSURE, "delayed", ["postponed"]),
    "refused": (Fail("refused", REFUSED), "failed", ["dead letter", "failed"]),
}


@pytest.mark.parametrize(("decision", "state", "published"), FIRST.values(), ids=FIRST)
async def test_what_came_of_a_call_is_recorded_then_published(
    desk: Desk, decision: Decision, state: str, published: list[str]
) -> None:
    await deciding(desk, decision).process(delivery())

    await desk.ledger.published.flush()
    entry = await desk.entry()
    assert (entry.state, entry.published) == (state, state != "delayed")
    assert desk.publisher.names == published
    assert len(desk.caller.placed) == 1


async def test_the_claim_is_written_before_the_call(desk: Desk) -> None:
    seen: list[str] = []

    async def place(*_: object, **__: object) -> Decision:
        seen.append((await desk.entry()).state)
        return STARTED

    desk.caller.place = place  # type: ignore[method-assign]
    await desk.processor().process(delivery())

    assert seen == ["placing"]


async def test_an_invalid_request_leaves_no_entry(desk: Desk) -> None:
    await deciding(desk, STARTED).process(delivery(to_number="12"))

    assert desk.publisher.names == ["dead letter", "failed"]
    assert desk.publisher.last["reason"] == "invalid"
    assert await desk.ledger.get("r-1") is None


async def test_before_its_time_a_request_waits_and_after_it_expires(desk: Desk) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=9)).isoformat()
    past = (datetime.now(UTC) - timedelta(minutes=9)).isoformat()
    processor = deciding(desk, STARTED)

    await processor.process(delivery("early", not_before=soon))
    await processor.process(delivery("late", expires_at=past))

    assert desk.publisher.names == ["postponed", "dead letter", "failed"]
    assert (await desk.entry("late")).reason == "expired"
    assert desk.caller.placed == []


# --- copies


@pytest.mark.parametrize("decision", [STARTED, Fail("refused", REFUSED)])
async def test_a_copy_is_announced_again_and_not_dialled(desk: Desk, decision: Decision) -> None:
    processor = deciding(desk, decision)
    await processor.process(delivery())
    desk.publisher.sent.clear()

    await processor.process(delivery())

    assert desk.publisher.names == ["started" if decision == STARTED else "failed"]
    assert len(desk.caller.placed) == 1


async def test_the_same_id_with_other_content_is_invalid(desk: Desk) -> None:
    processor = deciding(desk, STARTED)
    await processor.process(delivery())

    await processor.process(delivery(text_to_pronounce="Something else."))

    assert desk.publisher.last["code"] == "request_id_reused"
    assert (await desk.entry()).state == "started"


async def test_a_copy_from_before_an_edit_changes_and_tells_nothing(desk: Desk) -> None:
    processor = deciding(desk, Fail("refused", REFUSED))
    await processor.process(delivery())
    await processor.process(delivery(replay=1, text_to_pronounce="Corrected."))
    told = list(desk.publisher.sent)

    await processor.process(delivery())

    assert desk.publisher.sent == told


# --- a call whose process has ended


async def test_another_processs_call_is_waited_for(desk: Desk) -> None:
    async def killed(*_: object, **__: object) -> Decision:
        raise asyncio.CancelledError

    desk.caller.place = killed  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await desk.processor().process(delivery())

    await desk.processor().process(delivery(redelivered=True))

    assert desk.publisher.names == ["postponed"]
    assert (await desk.entry()).state == "placing"


async def test_our_own_lost_call_is_looked_up(desk: Desk) -> None:
    processor = deciding(desk, STARTED)
    place = desk.caller.place

    async def cut_off(*_: object, **__: object) -> Decision:
        raise asyncio.CancelledError

    desk.caller.place = cut_off  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await processor.process(delivery())
    desk.caller.place = place  # type: ignore[method-assign]
    desk.reconciler.findings = [Found("c7")]

    await processor.process(delivery(redelivered=True))

    entry = await desk.entry()
    assert (entry.state, entry.call_id, entry.confirmed_by) == ("started", "c7", "history")
    assert desk.caller.placed == []


# --- doubts


async def doubtful(desk: Desk, processor: Processor) -> None:
    """Bring a request into doubt, and let its time come."""
    desk.caller.decisions = [UNSURE, STARTED]
    await processor.process(delivery())
    was = await desk.entry()
    await desk.ledger.put(replace(was, due_at=was.changed_at), was)
    desk.publisher.sent.clear()


FINDINGS: dict[str, tuple[HistoryFinding, float, str, list[str]]] = {
    "found": (Found("c7"), 300.0, "started", ["started"]),
    "ambiguous": (Ambiguous(), 300.0, "failed", ["dead letter", "failed"]),
    "failed": (LookUpFailed("busy"), 300.0, "delayed", ["postponed"]),
    "absent, too early": (NotFound(conclusive=True), 300.0, "delayed", ["postponed"]),
    "absent": (NotFound(conclusive=True), 0.0, "started", ["started"]),
    "absent, not conclusive": (
        NotFound(conclusive=False),
        0.0,
        "failed",
        ["dead letter", "failed"],
    ),
    "no history": (NoHistory(), 300.0, "failed", ["dead letter", "failed"]),
}


@pytest.mark.parametrize(
    ("finding", "lag_s", "state", "published"), FINDINGS.values(), ids=FINDINGS
)
async def test_a_doubt_is_settled_by_what_the_history_shows(
    desk: Desk,
    finding: HistoryFinding,
    lag_s: float,
    state: str,
    published: list[str],
) -> None:
    processor = desk.processor(lag_s=lag_s)
    await doubtful(desk, processor)
    desk.reconciler.findings = [finding]

    await processor.process(delivery())

    assert (await desk.entry()).state == state
    assert desk.publisher.names == published
    dialled_again = isinstance(finding, NotFound) and state == "started"
    assert len(desk.caller.placed) == 1 + dialled_again


async def test_a_doubt_whose_request_cannot_be_read_any_more_is_left_to_a_person(
    desk: Desk,
) -> None:
    processor = desk.processor()
    await doubtful(desk, processor)

    await processor.process(delivery(defaults=Defaults()))

    assert (await desk.entry()).reason == "unsure"
    assert desk.reconciler.looked_up == []


async def test_while_paused_nothing_is_looked_up(desk: Desk) -> None:
    processor = desk.processor()
    await doubtful(desk, processor)
    desk.caller.paused = True

    with pytest.raises(GivenBack):
        await processor.process(delivery())

    assert desk.reconciler.looked_up == []


async def test_what_a_new_ledger_cannot_know_is_a_doubt(desk: Desk) -> None:
    desk.reconciler.findings = [NoHistory()]
    processor = deciding(desk, STARTED)

    before, ours = (
        asyncio.create_task(processor.process(each))
        for each in (
            delivery("before", redelivered=True),
            delivery("ours"),
        )
    )
    await asyncio.gather(before, ours)
    await asyncio.create_task(desk.processor().process(delivery("later", redelivered=True)))

    assert (await desk.entry("before")).code == "LEDGER_LOST"
    assert (await desk.entry("later")).state == "started"


async def test_a_doubt_that_a_header_tells_of_is_believed(desk: Desk) -> None:
    desk.reconciler.findings = [Found("c7")]

    await desk.processor().process(delivery(unsure_since=datetime.now(UTC)))

    assert desk.publisher.names == ["started"]
    assert desk.caller.placed == []


# --- replays


async def test_a_replay_of_a_refused_one_is_dialled_once_per_number(desk: Desk) -> None:
    processor = deciding(desk, Fail("refused", REFUSED), STARTED)
    await processor.process(delivery())

    await processor.process(delivery(replay=1))
    await processor.process(delivery(replay=1))

    assert len(desk.caller.placed) == 2
    assert (await desk.entry()).replay == 1


async def test_a_replay_of_a_started_one_is_announced_unless_redialled(desk: Desk) -> None:
    processor = deciding(desk, STARTED, Announce("c2"))
    await processor.process(delivery())

    await processor.process(delivery(replay=1))
    assert len(desk.caller.placed) == 1
    assert desk.publisher.last["confirmed_by"] == "ledger"

    await processor.process(delivery(replay=2, redial=True))
    assert len(desk.caller.placed) == 2
    assert await desk.ledger.search.known_calls(["c1", "c2"]) != {}
    assert set(await desk.ledger.search.known_calls(["c1", "c2"])) == {"c1", "c2"}


async def unsure(desk: Desk, processor: Processor) -> None:
    await doubtful(desk, processor)
    desk.reconciler.findings = [NoHistory()]
    await processor.process(delivery())
    desk.publisher.sent.clear()
    desk.reconciler.looked_up.clear()


async def test_a_replay_of_an_unsure_one_is_looked_up_first(desk: Desk) -> None:
    processor = desk.processor()
    await unsure(desk, processor)
    desk.reconciler.findings = [NotFound(conclusive=True), Found("c7")]

    await processor.process(delivery(replay=1))
    waiting = await desk.entry()
    await desk.ledger.put(replace(waiting, due_at=waiting.changed_at), waiting)
    await processor.process(delivery(replay=1))

    assert (waiting.state, waiting.replay) == ("delayed", 1)
    assert desk.publisher.names == ["postponed", "started"]
    assert len(desk.caller.placed) == 1


async def test_a_replay_to_another_number_is_not(desk: Desk) -> None:
    processor = desk.processor()
    await unsure(desk, processor)

    await processor.process(delivery(replay=1, to_number="+12025550109"))

    assert desk.reconciler.looked_up == []
    assert desk.publisher.names == ["started"]


async def test_a_replay_edited_back_to_the_number_in_doubt_is_looked_up_again(desk: Desk) -> None:
    processor = desk.processor()
    await unsure(desk, processor)
    claimed_at = (await desk.entry()).claimed_at
    desk.caller.decisions = [Fail("refused", REFUSED)]
    await processor.process(delivery(replay=1, to_number="+12025550109"))
    placed = len(desk.caller.placed)
    desk.reconciler.findings = [Found("c7")]

    await processor.process(delivery(replay=2))

    assert len(desk.caller.placed) == placed
    assert [entry.claimed_at for entry in desk.reconciler.looked_up] == [claimed_at]
    assert desk.publisher.names[-1] == "started"
    assert (await desk.entry()).call_id == "c7"


async def test_an_edited_replay_of_a_started_one_is_not_announced_with_another_number(
    desk: Desk,
) -> None:
    processor = deciding(desk, STARTED)
    await processor.process(delivery())

    await processor.process(delivery(replay=1, to_number="+12025550109"))
    assert desk.publisher.names == ["started"]

    await processor.process(delivery(replay=1, text_to_pronounce="Hello again."))
    assert desk.publisher.names == ["started", "started"]
    assert len(desk.caller.placed) == 1


# --- a ledger that goes down, and a stop


async def test_while_the_ledger_is_down_nothing_is_dialled(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.ledger.recovery.RETRY_S", 0.0)
    processor, claim, failures = deciding(desk, STARTED), desk.ledger.claim, 2

    async def failing(entry: Entry, was: Entry | None, controls: bytes) -> Entry | None:
        nonlocal failures
        if failures:
            failures -= 1
            assert desk.caller.placed == []
            raise LedgerDown("busy")
        return await claim(entry, was, controls)

    desk.ledger.claim = failing  # type: ignore[method-assign]
    await processor.process(delivery())

    assert len(desk.caller.placed) == 1
    assert desk.subscription.paused_by == set()


async def test_an_outcome_is_recorded_however_long_it_takes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.ledger.recovery.RETRY_S", 0.0)
    processor, put, failures = deciding(desk, STARTED), desk.ledger.put, 2

    async def failing(entry: Entry, was: Entry | None) -> Entry | None:
        nonlocal failures
        if failures and entry.state == "started":
            failures -= 1
            raise LedgerDown("busy")
        return await put(entry, was)

    desk.ledger.put = failing  # type: ignore[method-assign]
    await processor.process(delivery())

    assert len(desk.caller.placed) == 1
    assert (await desk.entry()).state == "started"


async def test_a_started_call_wins_over_whoever_thought_it_lost(desk: Desk) -> None:
    processor = deciding(desk, STARTED)

    async def slow(*_: object, **__: object) -> Decision:
        was = await desk.entry()
        doubt = replace(was, state="delayed", unsure_since=was.changed_at, owner="another")
        await desk.ledger.put(doubt, was)
        return STARTED

    desk.caller.place = slow  # type: ignore[method-assign]
    await processor.process(delivery())

    assert (await desk.entry()).state == "started"
    assert desk.publisher.names == ["started"]


async def test_any_other_outcome_gives_way(desk: Desk) -> None:
    processor = desk.processor()
    desk.reconciler.findings = [Found("c7")]

    async def slow(*_: object, **__: object) -> Decision:
        was = await desk.entry()
        doubt = replace(was, state="delayed", due_at=was.changed_at, unsure_since=was.changed_at)
        await desk.ledger.put(doubt, was)
        return Fail("refused", REFUSED)

    desk.caller.place = slow  # type: ignore[method-assign]
    await processor.process(delivery())

    assert (await desk.entry()).call_id == "c7"


async def test_what_was_claimed_when_a_stop_came_is_free_for_the_next(desk: Desk) -> None:
    processor, claim = deciding(desk, STARTED), desk.ledger.claim

    async def slow(entry: Entry, was: Entry | None, controls: bytes) -> Entry | None:
        written = await claim(entry, was, controls)
        desk.caller.stopping = True
        return written

    desk.ledger.claim = slow  # type: ignore[method-assign]
    with pytest.raises(GivenBack):
        await processor.process(delivery())
    desk.ledger.claim = claim  # type: ignore[method-assign]
    desk.caller.stopping = False
    await desk.processor().process(delivery(redelivered=True))

    assert len(desk.caller.placed) == 1
    assert (await desk.entry()).state == "started"


async def test_a_stop_interrupts_whoever_waits_for_a_turn(desk: Desk) -> None:
    waiting = asyncio.Event()

    async def turn() -> None:
        waiting.set()
        await asyncio.Event().wait()

    desk.caller.turn = turn  # type: ignore[assignment,method-assign]
    processor = desk.processor()
    task = asyncio.create_task(processor.process(delivery()))
    await waiting.wait()

    processor.stop()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert desk.caller.stopping
    assert await desk.ledger.get("r-1") is None

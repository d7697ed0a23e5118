"""Our own rules, the claim, and requests that are taken back: on their way through a processor."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from consumer.blocks import Block
from consumer.caller import GivenBack, Turn
from consumer.decision import Announce, Decision, Fail, Failure, Reconcile, Retry
from consumer.findings import Found, HistoryFinding, NoHistory, NotFound
from consumer.ledger import Entry, LedgerDown
from consumer.limits.calling_hours import CallingHours
from consumer.limits.own_rules import OwnRules
from consumer.messages.local_time import Hours
from tests.desk import Desk, deciding, opened_desk
from tests.fakes import NUMBER, delivery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from consumer.messages import CallRequested

STARTED = Announce("c1")
UNSURE = Reconcile(5.0, Failure("READ_TIMEOUT"))
UNAVAILABLE = Retry(5.0, 2, Failure("HTTP_503"))
REFUSED = Fail("refused", Failure("ERROR_CORE"))


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with opened_desk() as desk:
        yield desk


async def make_due(desk: Desk) -> None:
    waiting = await desk.entry()
    await desk.ledger.put(replace(waiting, due_at=waiting.changed_at), waiting)


def block(kind: Any = "metadata", key: str = "campaign", value: str = "42") -> Block:  # noqa: ANN401
    return Block("b-1", kind, key, value, "wrong text", time.time(), "ann")


# --- whatever waits has an entry


async def test_what_waits_for_its_time_has_an_entry(desk: Desk) -> None:
    processor = deciding(desk, STARTED)
    later = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()

    await processor.process(delivery(not_before=later))

    entry = await desk.entry()
    assert (entry.state, entry.scheduled, entry.attempt) == ("delayed", "not_before", 1)
    assert entry.due_at == pytest.approx(time.time() + 60, abs=2)
    assert desk.publisher.names == ["postponed"]


async def test_the_same_id_with_other_content_does_not_overtake_what_waits(desk: Desk) -> None:
    processor = deciding(desk, STARTED)
    later = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    await processor.process(delivery(not_before=later))

    await processor.process(delivery(text_to_pronounce="Something else."))

    assert desk.caller.placed == []
    assert desk.publisher.last["code"] == "request_id_reused"
    assert (await desk.entry()).scheduled == "not_before"


async def test_outside_the_calling_hours_a_request_waits_unless_it_is_urgent(desk: Desk) -> None:
    now = datetime.now(UTC)
    opens = (now.hour + 2) % 24
    desk.hours = CallingHours(Hours(opens * 3600, opens * 3600 + 1800))
    processor = deciding(desk, STARTED)

    await processor.process(delivery())
    entry = await desk.entry()
    assert (entry.state, entry.scheduled) == ("delayed", "calling_hours")
    assert 3600 < entry.due_at - time.time() <= 7200
    assert desk.caller.placed == []

    await processor.process(delivery("r-2", urgent=True))
    assert len(desk.caller.placed) == 1


async def test_a_retry_that_comes_due_at_night_waits_for_the_morning(desk: Desk) -> None:
    processor = deciding(desk, UNAVAILABLE)
    await processor.process(delivery())
    await make_due(desk)
    opens = (datetime.now(UTC).hour + 2) % 24
    desk.hours = CallingHours(Hours(opens * 3600, opens * 3600 + 1800))
    night = desk.processor()

    await night.process(delivery())

    entry = await desk.entry()
    assert (entry.state, entry.scheduled, entry.attempt) == ("delayed", "calling_hours", 2)
    assert len(desk.caller.placed) == 1


async def test_what_expires_before_the_hours_open_expires(desk: Desk) -> None:
    opens = (datetime.now(UTC).hour + 2) % 24
    desk.hours = CallingHours(Hours(opens * 3600, opens * 3600 + 1800))
    soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()

    await desk.processor().process(delivery(expires_at=soon))

    assert desk.publisher.last["reason"] == "expired"


# --- rules that forbid


BLOCKS: dict[str, tuple[Block, dict[str, object]]] = {
    "a metadata pair": (block(), {"metadata": {"campaign": "42"}}),
    "a line": (block("line", "", "reg9"), {"from_line": "reg9"}),
}


@pytest.mark.parametrize(("blocked", "fields"), BLOCKS.values(), ids=BLOCKS)
async def test_what_an_operator_blocked_is_a_dead_letter(
    desk: Desk, blocked: Block, fields: dict[str, object]
) -> None:
    processor = deciding(desk, STARTED)
    await desk.ledger.controls.add_block(blocked)

    await processor.process(delivery(**fields))  # type: ignore[arg-type]  # a request's fields
    await processor.process(delivery("r-2"))

    assert [call.request_id for call, _ in desk.caller.placed] == ["r-2"]
    assert desk.publisher.names == ["dead letter", "failed", "started"]
    assert (await desk.entry()).reason == "blocked"


async def test_a_blocked_number_is_known_by_its_digest(desk: Desk) -> None:
    digest = desk.ledger.digest(NUMBER)
    await desk.ledger.controls.add_block(block("number", "", digest))

    await deciding(desk, STARTED).process(delivery())

    assert desk.publisher.last["reason"] == "blocked"
    assert NUMBER not in desk.publisher.last["description"]


async def test_a_block_that_was_removed_stops_nothing(desk: Desk) -> None:
    """Not even in a worker that has not heard of it."""
    await desk.ledger.controls.add_block(block())
    await desk.controls.refresh()
    await desk.ledger.controls.remove_block("b-1")

    await deciding(desk, STARTED).process(delivery(metadata={"campaign": "42"}))

    assert desk.publisher.names == ["started"]


async def test_a_block_takes_what_already_waits(desk: Desk) -> None:
    processor = deciding(desk, UNAVAILABLE)
    await processor.process(delivery(metadata={"campaign": "42"}))
    await desk.ledger.controls.add_block(block())
    await desk.controls.refresh()

    await processor.process(delivery(metadata={"campaign": "42"}))

    assert (await desk.entry()).reason == "blocked"
    assert desk.publisher.names[-2:] == ["dead letter", "failed"]


async def test_a_replay_is_blocked_too(desk: Desk) -> None:
    processor = deciding(desk, REFUSED)
    await processor.process(delivery())
    desk.rules = OwnRules(frozenset({"DE"}))

    await desk.processor().process(delivery(replay=1))

    assert desk.publisher.last["code"] == "COUNTRY_NOT_ALLOWED"
    assert len(desk.caller.placed) == 1


async def test_a_number_gets_no_more_calls_than_allowed(desk: Desk) -> None:
    desk.rules = OwnRules(max_per_number=2)
    processor = deciding(desk, REFUSED, STARTED)

    for request_id in ("r-1", "r-2", "r-3", "r-4"):
        await processor.process(delivery(request_id))
    await processor.process(delivery("r-5", to_number="+12025550109"))

    placed = [call.request_id for call, _ in desk.caller.placed]
    assert placed == ["r-1", "r-2", "r-3", "r-5"]
    assert (await desk.entry("r-4")).code == "NUMBER_LIMIT"


async def test_while_an_operator_has_paused_nothing_is_dialled(desk: Desk) -> None:
    """Not even by a worker that has not heard of it."""
    processor = deciding(desk, STARTED)
    await desk.ledger.controls.pause("wrong text", "ann")

    with pytest.raises(GivenBack):
        await processor.process(delivery())
    assert desk.caller.placed == []
    assert desk.subscription.paused_by == {"operator"}
    assert await desk.ledger.get("r-1") is None

    await desk.ledger.controls.resume()
    await desk.controls.refresh()
    await processor.process(delivery())
    assert desk.subscription.paused_by == set()
    assert len(desk.caller.placed) == 1


# --- taken back


async def test_what_was_taken_back_before_it_came_is_not_dialled(desk: Desk) -> None:
    processor = deciding(desk, STARTED)

    await desk.take_back(why="the appointment was moved")
    await processor.process(delivery())

    assert desk.caller.placed == []
    assert desk.publisher.names == ["failed", "failed"]
    first, second = (out.body for out in desk.publisher.sent)
    assert first == second
    assert desk.publisher.last["reason"] == "cancelled"
    assert "the appointment was moved" in desk.publisher.last["description"]


@pytest.mark.parametrize("due", [True, False])
async def test_what_waits_is_taken_back_at_once(desk: Desk, *, due: bool) -> None:
    processor = deciding(desk, UNAVAILABLE)
    await processor.process(delivery())
    if due:
        await make_due(desk)

    await desk.take_back()
    await processor.process(delivery())

    assert len(desk.caller.placed) == 1
    assert desk.publisher.names == ["postponed", "failed", "failed"]
    assert (await desk.entry()).attempt == 1


FLIGHTS: dict[str, tuple[Decision, str, list[str]]] = {
    "started": (STARTED, "started", ["started"]),
    "unavailable": (UNAVAILABLE, "failed", ["failed"]),
    "refused": (REFUSED, "failed", ["dead letter", "failed"]),
}


@pytest.mark.parametrize(("decision", "state", "published"), FLIGHTS.values(), ids=FLIGHTS)
async def test_what_is_taken_back_during_its_call_is_not_dialled_again(
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    decision: Decision,
    state: str,
    published: list[str],
) -> None:
    processor, place = deciding(desk, decision), desk.caller.place

    async def crossed(
        call: CallRequested, attempt: int, turn: Turn, *, send_before: float
    ) -> Decision:
        await desk.take_back()
        return await place(call, attempt, turn, send_before=send_before)

    monkeypatch.setattr(desk.caller, "place", crossed)
    await processor.process(delivery())

    assert (await desk.entry()).state == state
    assert desk.publisher.names == published


DOUBTS: dict[str, tuple[HistoryFinding, str, str | None]] = {
    "it rang": (Found("c7"), "started", None),
    "it did not ring": (NotFound(conclusive=True), "failed", "cancelled"),
    "nobody can tell": (NoHistory(), "failed", "unsure"),
}


@pytest.mark.parametrize(("finding", "state", "reason"), DOUBTS.values(), ids=DOUBTS)
async def test_a_doubt_is_settled_and_not_dialled_again(
    desk: Desk, finding: HistoryFinding, state: str, reason: str | None
) -> None:
    await deciding(desk, UNSURE).process(delivery())
    processor = desk.processor(lag_s=0.0, retry_unsure=True)

    await desk.take_back()
    assert (await desk.entry()).state == "delayed"
    desk.reconciler.findings = [finding]
    await make_due(desk)
    await processor.process(delivery())

    entry = await desk.entry()
    assert (entry.state, entry.reason) == (state, reason)
    assert len(desk.caller.placed) == 1


async def test_a_doubt_that_is_over_is_not_dialled_if_it_is_taken_back_meanwhile(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deciding(desk, UNSURE, STARTED).process(delivery())
    desk.reconciler.findings = [NotFound(conclusive=True)]
    await make_due(desk)

    async def crossed() -> Turn:
        await desk.take_back()
        return Turn(0)

    monkeypatch.setattr(desk.caller, "turn", crossed)
    await desk.processor(lag_s=0.0).process(delivery())

    assert len(desk.caller.placed) == 1
    assert (await desk.entry()).reason == "cancelled"


async def test_a_dead_letter_that_was_taken_back_is_not_dialled_when_replayed(desk: Desk) -> None:
    processor = deciding(desk, REFUSED)
    await processor.process(delivery())

    await desk.take_back()
    assert desk.publisher.names == ["dead letter", "failed"]
    await processor.process(delivery(replay=1))
    await processor.process(delivery(replay=1))

    assert len(desk.caller.placed) == 1
    assert desk.publisher.names == ["dead letter", "failed", "failed", "failed"]
    assert (desk.publisher.last["reason"], desk.publisher.last["replay"]) == ("cancelled", 1)


async def test_an_edited_replay_of_what_was_taken_back_ends_the_same_each_time(desk: Desk) -> None:
    """The worker may be killed after writing down the end, and then gets the message again."""
    processor = deciding(desk, REFUSED)
    await processor.process(delivery())
    await desk.take_back()
    edited = delivery(replay=1, to_number="+12025550101")
    await processor.process(edited)
    await processor.process(replace(edited, redelivered=True))

    assert [desk.publisher.name_of(out) for out in desk.publisher.sent[-2:]] == ["failed"] * 2
    assert (desk.publisher.last["reason"], desk.publisher.last["replay"]) == ("cancelled", 1)


async def test_what_has_started_stays_so(desk: Desk) -> None:
    processor = deciding(desk, STARTED)
    await processor.process(delivery())

    await desk.take_back()
    await processor.process(delivery(replay=1, redial=True))

    assert len(desk.caller.placed) == 1
    assert desk.publisher.names == ["started", "started"]


async def test_what_another_process_claimed_is_waited_for(desk: Desk) -> None:
    entry = Entry(
        request_id="r-1",
        state="placing",
        attempt=1,
        replay=0,
        owner="another",
        first_seen_at=time.time(),
        claimed_at=time.time(),
        changed_at=time.time(),
        body_digest=desk.ledger.digest(delivery().fields),
    )
    await desk.ledger.put(entry, None)

    assert (await desk.take_back()).state == "placing"
    assert desk.publisher.sent == []


# --- what a hostile review broke


async def test_a_claim_that_waited_for_the_ledger_asks_again_whether_calls_are_paused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.ledger.recovery.RETRY_S", 0.0)
    processor, write, failures = deciding(desk, STARTED), desk.ledger.claim, [LedgerDown("busy")]

    async def failing(entry: Entry, was: Entry | None, controls: bytes) -> Entry | None:
        if failures:
            await desk.ledger.controls.pause("wrong text", "ann")
            await desk.controls.refresh()
            raise failures.pop()
        return await write(entry, was, controls)

    monkeypatch.setattr(desk.ledger, "claim", failing)
    with pytest.raises(GivenBack):
        await processor.process(delivery())

    assert desk.caller.placed == []


async def test_a_claim_whose_answer_was_lost_is_free_and_no_doubt(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.ledger.recovery.RETRY_S", 0.0)
    processor, write, failures = deciding(desk, STARTED), desk.ledger.claim, [LedgerDown("busy")]

    async def failing(entry: Entry, was: Entry | None, controls: bytes) -> Entry | None:
        written = await write(entry, was, controls)
        if failures:
            raise failures.pop()
        return written

    monkeypatch.setattr(desk.ledger, "claim", failing)
    await processor.process(delivery())

    assert len(desk.caller.placed) == 1
    assert (await desk.entry()).unsure_since is None
    assert desk.publisher.names == ["started"]


async def test_a_claim_that_was_written_before_a_pause_is_not_dialled_after_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.ledger.recovery.RETRY_S", 0.0)
    processor, write, failures = deciding(desk, STARTED), desk.ledger.claim, [LedgerDown("busy")]

    async def failing(entry: Entry, was: Entry | None, controls: bytes) -> Entry | None:
        written = await write(entry, was, controls)
        if failures:
            await desk.ledger.controls.pause("wrong text", "ann")
            await desk.controls.refresh()
            raise failures.pop()
        return written

    monkeypatch.setattr(desk.ledger, "claim", failing)
    with pytest.raises(GivenBack):
        await processor.process(delivery())

    assert desk.caller.placed == []
    assert (await desk.entry()).state == "delayed"


async def test_a_copy_with_other_content_that_is_blocked_ends_nothing(desk: Desk) -> None:
    await deciding(desk, REFUSED).process(delivery(metadata={"campaign": "42"}))
    desk.caller.decisions = [UNAVAILABLE]
    processor = desk.processor()
    await processor.process(delivery(replay=1))
    await desk.ledger.controls.add_block(block())
    await desk.controls.refresh()

    await processor.process(delivery(metadata={"campaign": "42"}))

    assert (await desk.entry()).state == "delayed"
    assert desk.publisher.names[-1] == "postponed"


async def test_the_first_call_stays_known_while_a_second_waits_for_the_morning(desk: Desk) -> None:
    await deciding(desk, STARTED).process(delivery())
    opens = (datetime.now(UTC).hour + 2) % 24
    desk.hours = CallingHours(Hours(opens * 3600, opens * 3600 + 1800))

    await desk.processor().process(delivery(replay=1, redial=True))

    assert (await desk.entry()).scheduled == "calling_hours"
    assert set(await desk.ledger.search.known_calls(["c1"])) == {"c1"}


async def test_calls_that_others_took_the_place_of_count_for_their_number(desk: Desk) -> None:
    desk.rules = OwnRules(max_per_number=2)
    processor = deciding(desk, STARTED, Announce("c2"), Announce("c3"))

    await processor.process(delivery())
    await processor.process(delivery(replay=1, redial=True))
    await processor.process(delivery(replay=2, redial=True))

    assert len(desk.caller.placed) == 2
    assert desk.publisher.last["code"] == "NUMBER_LIMIT"


async def unsure_and_taken_back(desk: Desk) -> None:
    await deciding(desk, UNSURE).process(delivery())
    desk.reconciler.findings = [NoHistory()]
    await make_due(desk)
    await desk.processor(lag_s=0.0).process(delivery())
    await desk.take_back()


async def test_a_doubt_that_was_left_to_a_person_is_looked_up_though_it_was_taken_back(
    desk: Desk,
) -> None:
    await unsure_and_taken_back(desk)
    desk.reconciler.findings = [Found("c7")]

    await desk.processor(lag_s=0.0).process(delivery(replay=1))

    assert (await desk.entry()).call_id == "c7"
    assert desk.publisher.names[-1] == "started"


async def test_such_a_doubt_stays_known_when_its_letter_is_edited(desk: Desk) -> None:
    await unsure_and_taken_back(desk)
    was = await desk.entry()

    await desk.processor(lag_s=0.0).process(delivery(replay=1, to_number="+12025550109"))

    assert desk.publisher.last["reason"] == "cancelled"
    assert [each.claimed_at for each in await desk.ledger.earlier.doubts_of("r-1")] == [
        was.claimed_at
    ]
    assert len(desk.caller.placed) == 1


async def test_a_redial_of_what_is_in_doubt_and_taken_back_is_looked_up(desk: Desk) -> None:
    await deciding(desk, UNSURE).process(delivery())
    await desk.take_back()
    await make_due(desk)
    desk.reconciler.findings = [NotFound(conclusive=True)]

    await desk.processor(lag_s=0.0).process(delivery(replay=1, redial=True))

    assert len(desk.reconciler.looked_up) == 1
    assert len(desk.caller.placed) == 1
    assert (await desk.entry()).reason == "cancelled"


async def test_only_a_new_block_sorts_what_waits(desk: Desk) -> None:
    desk.waiting = 5
    for change, sorts in (
        (desk.ledger.controls.add_block(block()), True),
        (desk.ledger.controls.add_block(replace(block(), id="b-2")), True),
        (desk.ledger.controls.remove_block("b-2"), False),
    ):
        await change
        await desk.controls.refresh()
        assert desk.controls._has_new_blocks == sorts  # noqa: SLF001  # nobody else tells
        await desk.controls._begin_to_sort_out()  # noqa: SLF001  # as `run` does each second

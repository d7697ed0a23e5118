"""Calls are followed up: one `call.completed` for each, whoever dies, and none for strangers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from consumer import completed, follower
from consumer.ledger import LedgerDown, completions, follow_lease
from consumer.ledger.completions import Completion, Completions
from consumer.rabbitmq.losses import NotPublished
from consumer.rabbitmq.publisher import Publisher

if TYPE_CHECKING:
    from aio_pika import Message

    from consumer.app import App
    from consumer.sandbox import SandboxPortal
    from tests.portals import ForeignPortal
    from tests.workbench import Bench

OUTCOMES = {
    "+12025550100": "answered",
    "+12025550184": "busy",
    "+12025550185": "no_answer",
    "+12025550186": "declined",
    "+12025550187": "declined",
    "+12025550188": "unreachable",
    "+12025550189": "unreachable",
    "+12025550190": "failed",
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "BEAT_S", 0.05)
    monkeypatch.setattr(follower, "WATCH_S", 0.05)
    monkeypatch.setattr(follower, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(follower, "PAUSE_S", 0.1)
    monkeypatch.setattr(follow_lease, "STALE_S", 0.5)
    monkeypatch.setattr(follow_lease, "VALID_S", 0.4)


@pytest.fixture
def portal(portal: SandboxPortal) -> SandboxPortal:
    portal.patch({"call_speed": 1000, "call_duration_s": 12})
    return portal


async def until_started(app: App, request_id: str) -> None:
    """Wait until the ledger has a request as started."""
    async with asyncio.timeout(10):
        while not (entry := await app.ledger.get(request_id)) or entry.state != "started":  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_each_call_is_told_how_it_ended(bench: Bench) -> None:
    async with bench.running(follow_up=True):
        asked = {await bench.ask(number): outcome for number, outcome in OUTCOMES.items()}

        for request_id, outcome in asked.items():
            told = await bench.completion(request_id)
            started, *_ = bench.events_of(request_id)
            assert told["outcome"] == outcome
            assert told["call_id"] == started["call_id"]
            assert told["started_at"] == started["started_at"]
            assert told["duration_s"] == (12 if outcome == "answered" else 0)
            assert told.message.correlation_id == request_id
            assert told.headers["cloudEvents_id"] == told["event_id"]

    assert all(len(bench.completed(request_id)) == 1 for request_id in asked)


async def test_the_trace_of_a_request_goes_on_to_its_end(bench: Bench) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
    asked = bench.request()

    async with bench.running(follow_up=True):
        await bench.publish(asked, {"traceparent": trace})
        told = await bench.completion(str(asked["request_id"]))

    assert told.headers["traceparent"] == trace


async def test_reading_goes_on_from_one_call_to_the_next(bench: Bench) -> None:
    async with bench.running(follow_up=True):
        for _ in range(3):
            told = await bench.completion(await bench.ask())

            assert told["outcome"] == "answered"


async def test_rows_of_strangers_and_second_rows_are_nobodys(
    bench: Bench, portal: SandboxPortal
) -> None:
    async with bench.running(follow_up=True):
        first = await bench.ask("+12025550184")
        await bench.completion(first)
        (row,) = portal.history
        portal.history += [
            replace(row, id=row.id + 1, call_id="stranger"),
            replace(row, id=row.id + 2, call_id=""),
            replace(row, id=row.id + 3, code="200"),
        ]
        portal.last_row += 3
        last = await bench.ask()
        await bench.completion(last)

    assert [event["request_id"] for event in bench.completions] == [first, last]
    assert bench.completions[0]["outcome"] == "busy"


async def test_a_call_that_the_history_never_shows_ends_unknown(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LATE_S", 0.2)
    monkeypatch.setattr(follower, "GIVE_UP_S", 0.8)

    async with bench.running(follow_up=True):
        told = await bench.completion(await bench.ask("+12025550191"))

    assert (told["outcome"], told["code"], told["duration_s"]) == ("unknown", "", 0)


async def test_a_row_that_comes_long_after_later_ones_is_found_by_its_call(
    bench: Bench, portal: SandboxPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LATE_S", 0.3)
    monkeypatch.setattr(follower, "OVERLAP", 0)
    monkeypatch.setattr(portal, "last_row", 100)

    async with bench.running(follow_up=True):
        late = await bench.ask("+12025550191")
        await bench.completion(await bench.ask())
        (call,) = [call for call in portal.calls if call.ended_at is None]
        portal.history.insert(0, replace(call, id=7))
        told = await bench.completion(late)

    assert told["outcome"] == "answered"


async def test_a_history_that_is_refused_for_a_while_loses_nothing(
    bench: Bench, portal: SandboxPortal
) -> None:
    async with bench.running(follow_up=True):
        await bench.completion(await bench.ask())
        portal.patch({"history": "denied"})
        asked = [await bench.ask() for _ in range(3)]
        await bench.until(lambda: portal.tally.by_answer["ACCESS_DENIED"] >= 2)
        portal.patch({"history": "any"})

        for request_id in asked:
            assert (await bench.completion(request_id))["outcome"] == "answered"


async def test_without_the_right_it_says_so_once_and_asks_no_more(
    bench: Bench, portal: SandboxPortal, capsys: pytest.CaptureFixture[str]
) -> None:
    portal.patch({"history": "denied"})

    async with bench.running(follow_up=True):
        await bench.event(await bench.ask())
        await bench.until(lambda: portal.tally.by_answer["ACCESS_DENIED"] > 0)
        await bench.event(await bench.ask())
        await asyncio.sleep(0.5)  # five more readings, if it went on

    assert portal.tally.by_answer["ACCESS_DENIED"] == 1
    assert capsys.readouterr().out.count("history.unreadable") == 1
    assert bench.completions == []


async def test_a_mock_that_knows_only_calls_does_as_before(
    bench: Bench, foreign: ForeignPortal, capsys: pytest.CaptureFixture[str]
) -> None:
    async with bench.running(follow_up=True, bitrix24_url=foreign.url):
        started = await bench.event(await bench.ask())
        await asyncio.sleep(0.5)

    assert started["confirmed_by"] == "answer"
    assert capsys.readouterr().out.count("history.unreadable") == 1
    assert bench.completions == []


async def test_turned_off_it_asks_nothing_and_those_calls_stay_untold(
    bench: Bench, portal: SandboxPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "FOLLOWED_BEFORE_S", 0)

    async with bench.running(follow_up=False):
        untold = await bench.ask()
        await bench.event(untold)
        asked = portal.tally.total
        await asyncio.sleep(0.3)
        assert portal.tally.total == asked
    async with bench.running(follow_up=True):
        await bench.completion(await bench.ask())

    assert bench.completed(untold) == []


async def test_a_doubt_is_settled_when_its_row_is_seen(bench: Bench, portal: SandboxPortal) -> None:
    async with bench.running(follow_up=True, retry_delays_s=(3,), history_lag_s=60) as app:
        await bench.completion(await bench.ask())
        doubtful = await bench.ask("+12025550161")
        await bench.until(lambda: len(portal.calls) == 2)
        await until_started(app, doubtful)
        assert bench.events_of(doubtful) == []  # its message waits still
        told = await bench.completion(doubtful)
        (started,) = bench.events_of(doubtful)

    assert (started["confirmed_by"], started["attempt"]) == ("history", 1)
    assert started["call_id"] == told["call_id"] == portal.calls[1].call_id
    assert len(portal.calls) == 2


async def test_a_second_call_that_a_person_asks_for_is_told_too(
    bench: Bench, portal: SandboxPortal
) -> None:
    portal.patch({"call_speed": 6})
    request = bench.request()
    request_id = str(request["request_id"])

    async with bench.running(follow_up=True):
        await bench.publish(request)
        await bench.event(request_id)  # which is open still
        await bench.publish(request, {"x-replay": 1, "x-redial": True}, to_queue=True)
        await bench.completion(request_id, 2)

    told = {event["replay"]: event["call_id"] for event in bench.completed(request_id)}
    assert told == {n: call.call_id for n, call in enumerate(portal.calls)}
    assert len({event["event_id"] for event in bench.completions}) == 2


async def test_a_broker_that_refuses_these_events_alone_keeps_no_request_waiting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[Message] = []
    publish = Publisher.publish

    async def refusing(
        publisher: Publisher,
        message: Message,
        exchange: str,
        key: str,
        **how: Any,  # noqa: ANN401
    ) -> None:
        if key == "call.completed" and len(refused) < 2:
            refused.append(message)
            raise NotPublished("disconnected", "access refused")
        await publish(publisher, message, exchange, key, **how)

    monkeypatch.setattr(Publisher, "publish", refusing)
    monkeypatch.setattr(completed, "FIRST_BACKOFF_S", 0.2)

    async with bench.running(follow_up=True) as app:
        first = await bench.ask()
        await bench.until(lambda: len(refused) > 0)
        assert app.publisher.stuck_s == 0
        assert (await bench.event(await bench.ask())).message.type == "call.started"
        told = await bench.completion(first)

    assert told["event_id"] in refused[0].body.decode()


async def test_an_event_whose_publish_was_not_noted_is_repeated_as_it_was(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker died just then, say."""
    note = Completions.note_announced
    lost: list[Completion] = []

    async def losing(table: Completions, completion: Completion) -> None:
        if not lost:
            lost.append(completion)
            raise LedgerDown("gone")
        await note(table, completion)

    monkeypatch.setattr(Completions, "note_announced", losing)

    async with bench.running(follow_up=True):
        request_id = await bench.ask()
        await bench.completion(request_id, 2)

    first, second = bench.completed(request_id)
    assert first.fields == second.fields


async def test_replicas_take_turns_at_the_history(bench: Bench, portal: SandboxPortal) -> None:
    async with bench.running(follow_up=True) as first:
        async with bench.running(follow_up=True) as second:
            await bench.completion(await bench.ask())
            held = [app.ledger.completions.lease.held for app in (first, second)]
        await bench.until(lambda: first.ledger.completions.lease.held)
        await bench.completion(await bench.ask())

    assert sorted(held) == [False, True]
    assert len(bench.completions) == len(portal.calls) == 2

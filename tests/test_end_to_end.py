"""Requests in, calls and events out, on a real broker and against the sandbox over TCP."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY
from uuid import UUID

import pamqp.encode
import pytest

from consumer.events import event_id
from consumer.messages import Invalid, read_json
from tests.canary import TEXT

if TYPE_CHECKING:
    from consumer.sandbox import SandboxPortal
    from tests.links import Link
    from tests.portals import ForeignPortal
    from tests.workbench import Bench, Seen

WORKS = "+12025550100"
WORKS_AT_THE_SECOND_TRY = "+12025550111"
NO_LINE = "+12025550122"
BAD_NUMBER = "+12025550123"
INFOCALL_FAILURE = "+12025550124"
INTERNAL_SERVER_ERROR = "+12025550152"
BAD_GATEWAY_PLACED = "+12025550164"
BAD_GATEWAY = "+12025550165"
RESET_ONCE = "+12025550180"
NEVER_CONNECTS = "+12025550182"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def at(moment: object) -> float:
    return datetime.fromisoformat(str(moment)).timestamp()


def dialled(portal: SandboxPortal) -> Counter[str]:
    """Count the calls that rang, by number."""
    return Counter(call.to_number for call in portal.calls)


def one_of(events: list[Seen]) -> Seen:
    """Return the event that *events* repeat: all are equal, each under a message id of its own."""
    first = events[0]
    assert all(event.fields == first.fields for event in events)
    assert len({event.message.message_id for event in events}) == len(events)
    return first


# What goes over the wire


async def test_a_started_call_is_announced_as_the_contract_has_it(
    bench: Bench, portal: SandboxPortal
) -> None:
    asked_at = datetime.now(UTC).replace(microsecond=0)
    asked = bench.request(WORKS, voice="ukenglishmale", metadata={"order": "7"})
    request_id = str(asked["request_id"])

    async with bench.running():
        await bench.publish(asked, {"traceparent": TRACE}, timestamp=asked_at)
        event = await bench.event(request_id)

    derived = event_id(request_id, 0, "call.started")
    (call,) = portal.calls
    assert (call.to_number, call.text, call.voice) == (WORKS, TEXT, "ukenglishmale")
    assert event.fields == {
        "event_id": derived,
        "request_id": request_id,
        "call_id": call.call_id,
        "to_number": WORKS,
        "from_line": "reg151083",
        "voice": "ukenglishmale",
        "attempt": 1,
        "replay": 0,
        "requested_at": asked_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "started_at": ANY,
        "confirmed_by": "answer",
        "metadata": {"order": "7"},
    }
    assert event.headers == {
        "cloudEvents_id": derived,
        "cloudEvents_source": f"/call-consumer/{bench.queue}",
        "cloudEvents_type": "call.started",
        "cloudEvents_specversion": "1.0",
        "cloudEvents_time": event["started_at"],
        "cloudEvents_subject": request_id,
        "traceparent": TRACE,
    }
    assert abs(at(event["started_at"]) - time.time()) < 10
    assert_is_ours(event, "call.started", request_id)


async def test_a_refused_call_is_announced_and_kept_as_the_contract_has_it(bench: Bench) -> None:
    asked = bench.request(BAD_NUMBER, metadata={"order": "7"})
    request_id = str(asked["request_id"])
    body = json.dumps(asked, indent=3).replace("Hello", "H\\u00e9llo").encode()

    async with bench.running():
        await bench.publish(body, {"traceparent": TRACE, "color": "red"}, expiration=60)
        event = await bench.event(request_id)
        (letter,) = await bench.dead_letters()

    told = {"code": "ERROR_CORE", "description": "Phone number is not correct", "http_status": 400}
    assert event.fields == told | {
        "event_id": event_id(request_id, 0, "call.failed"),
        "request_id": request_id,
        "reason": "refused",
        "attempt": 1,
        "replay": 0,
        "failed_at": ANY,
        "to_number": BAD_NUMBER,
        "from_line": "reg151083",
        "metadata": {"order": "7"},
    }
    assert_is_ours(event, "call.failed", request_id)
    assert letter.message.body == body
    assert letter.headers == {
        "x-attempt": 1,
        "x-replay": 0,
        "x-reason": "refused",
        "x-code": "ERROR_CORE",
        "x-description": "Phone number is not correct",
        "x-http-status": 400,
        "x-failed-at": event["failed_at"],
        "x-first-seen-at": ANY,
        "traceparent": TRACE,
    }
    assert letter.message.delivery_mode == 2
    assert letter.message.expiration is None
    assert letter.message.content_type == "application/json"


def assert_is_ours(event: Seen, kind: str, request_id: str) -> None:
    message = event.message
    assert message.routing_key == message.type == kind
    assert message.correlation_id == request_id
    assert message.content_type == "application/json"
    assert message.app_id == "call-consumer"
    assert message.delivery_mode == 2
    assert message.reply_to is None
    assert UUID(message.message_id).version == 4
    assert message.timestamp is not None
    assert abs(message.timestamp.timestamp() - time.time()) < 10


async def test_a_delayed_request_says_what_happened_and_what_comes_next(bench: Bench) -> None:
    asked = bench.request(NEVER_CONNECTS)
    body = json.dumps(asked, indent=3).encode()

    async with bench.running(retry_delays_s=(60, 120)):
        await bench.publish(body, {"traceparent": TRACE, "x-attempt": 7})
        (waiting,) = await bench.waiting(60)

    assert waiting.message.body == body
    assert waiting.headers == {
        "x-attempt": 2,
        "x-replay": 0,
        "x-reason": "unavailable",
        "x-code": "CONNECTION_ERROR",
        "x-description": "Error connecting to authorization server",
        "x-http-status": 401,
        "x-first-seen-at": ANY,
        "traceparent": TRACE,
    }
    assert waiting.message.delivery_mode == 2
    assert waiting.message.correlation_id == asked["request_id"]


async def test_a_doubtful_request_waits_and_says_since_when(bench: Bench) -> None:
    async with bench.running(retry_delays_s=(60, 120)):
        await bench.ask(INFOCALL_FAILURE)
        (waiting,) = await bench.waiting(60)

    assert waiting.headers["x-attempt"] == 1
    assert waiting.headers["x-reason"] == "unsure"
    assert abs(at(waiting.headers["x-unsure-since"]) - time.time()) < 10


async def test_a_call_that_works_at_the_second_try_keeps_its_trace_and_its_beginning(
    bench: Bench, portal: SandboxPortal
) -> None:
    asked_at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    asked = bench.request(WORKS_AT_THE_SECOND_TRY)

    async with bench.running():
        await bench.publish(asked, {"traceparent": TRACE}, timestamp=asked_at)
        event = await bench.event(str(asked["request_id"]))

    assert event["attempt"] == 2
    assert event.headers["traceparent"] == TRACE
    assert at(event["requested_at"]) == asked_at.timestamp()
    assert dialled(portal) == {WORKS_AT_THE_SECOND_TRY: 1}


async def test_retries_end_in_one_dead_letter(bench: Bench, portal: SandboxPortal) -> None:
    async with bench.running():
        request_id = await bench.ask(NEVER_CONNECTS)
        event = await bench.event(request_id)
        (letter,) = await bench.dead_letters()

    assert (event["reason"], event["attempt"]) == ("exhausted", 3)
    assert (letter.headers["x-reason"], letter.headers["x-attempt"]) == ("exhausted", 3)
    assert portal.tally.by_answer["CONNECTION_ERROR"] == 3


# Time


async def test_calls_are_made_at_their_time_and_never_before(
    bench: Bench, portal: SandboxPortal
) -> None:
    due = {f"+1202555010{n}": time.time() + n * 0.6 for n in range(9)}

    async with bench.running():
        for number, moment in due.items():
            not_before = datetime.fromtimestamp(moment, UTC).isoformat()
            await bench.ask(number, not_before=not_before)
        late = [await bench.ask(not_before=soon(1.9), expires_at=soon(1.95)) for _ in range(3)]
        await bench.until(lambda: len(bench.heard) == 12)

    lateness = {call.to_number: call.placed_at - due[call.to_number] for call in portal.calls}
    assert lateness.keys() == due.keys()
    assert min(lateness.values()) >= 0
    assert max(lateness.values()) < 1 + 0.8  # the smallest delay, and some haste
    assert {(await bench.event(each))["reason"] for each in late} == {"expired"}
    assert {e["attempt"] for e in bench.heard if e.message.type == "call.started"} == {1}


@pytest.mark.parametrize(
    "times", [{"expires_at": -1}, {"expires_at": 5, "not_before": 5}, {"expires_at": 0}]
)
async def test_what_has_expired_is_not_dialled(
    bench: Bench, portal: SandboxPortal, times: dict[str, float]
) -> None:
    async with bench.running():
        request_id = await bench.ask(**{name: soon(s) for name, s in times.items()})
        event = await bench.event(request_id)
        (letter,) = await bench.dead_letters()

    assert (event["reason"], event["attempt"]) == ("expired", 0)
    assert letter.headers["x-reason"] == "expired"
    assert portal.tally.total == 0


async def test_a_retry_that_would_be_too_late_is_an_expiry(
    bench: Bench, portal: SandboxPortal
) -> None:
    async with bench.running(retry_delays_s=(60, 120)):
        request_id = await bench.ask(NEVER_CONNECTS, expires_at=soon(50))
        event = await bench.event(request_id)

    assert (event["reason"], event["code"]) == ("expired", "CONNECTION_ERROR")
    assert event["attempt"] == 1
    assert portal.tally.total == 1


async def test_a_doubt_is_looked_up_before_it_expires(bench: Bench, portal: SandboxPortal) -> None:
    async with bench.running():
        request_id = await bench.ask(BAD_GATEWAY_PLACED, expires_at=soon(0.8))
        event = await bench.event(request_id)

    assert event["confirmed_by"] == "history"
    assert dialled(portal) == {BAD_GATEWAY_PLACED: 1}


# Never twice


async def test_copies_of_one_request_are_one_call(bench: Bench, portal: SandboxPortal) -> None:
    asked = bench.request()

    async with bench.running():
        await asyncio.gather(*(bench.publish(asked) for _ in range(30)))
        events = await bench.events(str(asked["request_id"]), 30)

    assert one_of(events)["confirmed_by"] == "answer"
    assert dialled(portal) == {WORKS: 1}


async def test_copies_of_a_refused_request_are_one_dead_letter(
    bench: Bench, portal: SandboxPortal
) -> None:
    asked = bench.request(BAD_NUMBER)

    async with bench.running():
        await asyncio.gather(*(bench.publish(asked) for _ in range(30)))
        events = await bench.events(str(asked["request_id"]), 30)

    one_of(events)
    assert await bench.count(f"{bench.queue}.dlq") == 1
    assert portal.tally.total == 1


async def test_copies_of_a_delayed_request_are_one_call(
    bench: Bench, portal: SandboxPortal
) -> None:
    asked = bench.request(WORKS_AT_THE_SECOND_TRY)

    async with bench.running():
        await asyncio.gather(*(bench.publish(asked) for _ in range(5)))
        events = await bench.events(str(asked["request_id"]), 5)

    assert one_of(events)["attempt"] == 2
    assert dialled(portal) == {WORKS_AT_THE_SECOND_TRY: 1}


async def test_a_later_life_announces_again_what_an_earlier_one_did(
    bench: Bench, portal: SandboxPortal
) -> None:
    started, failed = bench.request(), bench.request(BAD_NUMBER)
    for _ in range(2):
        heard = len(bench.heard)
        async with bench.running():
            await bench.publish(started)
            await bench.publish(failed)
            await bench.until(lambda heard=heard: len(bench.heard) == heard + 2)  # type: ignore[misc]

    one_of(await bench.events(str(started["request_id"]), 2))
    one_of(await bench.events(str(failed["request_id"]), 2))
    assert dialled(portal) == {WORKS: 1}
    assert await bench.count(f"{bench.queue}.dlq") == 1


@pytest.mark.parametrize("number", [WORKS, WORKS_AT_THE_SECOND_TRY])
async def test_an_id_used_for_something_else_is_invalid_and_changes_nothing(
    bench: Bench, portal: SandboxPortal, number: str
) -> None:
    first = bench.request(number)
    other = first | {"text_to_pronounce": "Something else."}
    request_id = str(first["request_id"])

    async with bench.running():
        await bench.publish(first)
        await bench.publish(other)
        await bench.publish(first)
        events = await bench.events(request_id, 3)
        (letter,) = await bench.dead_letters()

    failed = [e for e in events if e.message.type == "call.failed"]
    started = [e for e in events if e.message.type == "call.started"]
    assert [(e["reason"], e["code"]) for e in failed] == [("invalid", "request_id_reused")]
    assert one_of(started)["request_id"] == request_id
    assert letter["text_to_pronounce"] == "Something else."
    assert [call.text for call in portal.calls] == [TEXT]


async def test_a_mended_request_may_come_under_the_same_id(
    bench: Bench, portal: SandboxPortal
) -> None:
    asked = bench.request()
    wrong = asked | {"expire_at": soon(60)}

    async with bench.running():
        await bench.publish(wrong)
        await bench.publish(asked)
        first, second = await bench.events(str(asked["request_id"]), 2)

    assert (first["reason"], first["attempt"]) == ("invalid", 0)
    assert second.message.type == "call.started"
    assert dialled(portal) == {WORKS: 1}


async def test_a_new_ledger_does_not_dial_what_another_worker_may_have_dialled(
    bench: Bench, portal: SandboxPortal
) -> None:
    portal.patch({"history": "denied"})
    again = await bench.ask("+12025550101")
    # As from a worker that died with it in hand: the broker marks it as redelivered.
    await bench.take(bench.queue, put_back=True)

    async with bench.running(ledger_url="sqlite://"):
        event = await bench.event(again)
        fresh = await bench.ask("+12025550102")
        await bench.event(fresh)

    assert (event["reason"], event["code"]) == ("unsure", "LEDGER_LOST")
    assert dialled(portal) == {"+12025550102": 1}


async def test_an_answer_outlives_the_link_it_was_asked_over(
    bench: Bench, foreign: ForeignPortal, link: Link
) -> None:
    foreign.may_answer.clear()
    async with bench.running(rabbitmq_url=link.url, bitrix24_url=foreign.url):
        first = await bench.ask("+12025550101")
        await bench.until(foreign.arrived.is_set)

        link.cut()
        foreign.arrived.clear()
        second = await bench.ask("+12025550102")
        await bench.until(
            foreign.arrived.is_set
        )  # the worker is back, and has the first one once more
        foreign.may_answer.set()
        events = [await bench.event(first), await bench.event(second)]

    assert [event.message.type for event in events] == ["call.started"] * 2
    assert {event["confirmed_by"] for event in events} == {"answer"}
    assert [call["TO_NUMBER"] for call in foreign.asked] == ["+12025550101", "+12025550102"]
    assert await bench.count(bench.queue) == 0


# Doubts

PLACED_ANSWER_LOST = [
    f"+12025550{last}" for last in (161, 162, 164, 166, 167, 169, 170, 171, 174, 175, 183)
]
NOT_PLACED_ANSWER_LOST = {
    "+12025550160": "reset",
    "+12025550165": "502 page",
    "+12025550124": "Infocall failure",
    "+12025550179": "unknown 5xx",
}


async def test_a_call_whose_answer_was_lost_is_found_in_the_history(
    bench: Bench, portal: SandboxPortal
) -> None:
    async with bench.running(timeout_s=1, concurrency=20):
        ids = {number: await bench.ask(number) for number in PLACED_ANSWER_LOST}
        events = {number: await bench.event(ids[number]) for number in ids}

    calls = {call.to_number: call.call_id for call in portal.calls}
    assert {n: e.message.type for n, e in events.items()} == dict.fromkeys(ids, "call.started")
    assert {n: e["confirmed_by"] for n, e in events.items()} == dict.fromkeys(ids, "history")
    assert {n: e["call_id"] for n, e in events.items()} == calls
    assert dialled(portal) == dict.fromkeys(ids, 1)


async def test_a_call_that_did_not_ring_is_dialled_again_after_the_lag(
    bench: Bench, portal: SandboxPortal
) -> None:
    async with bench.running():
        await bench.event(await bench.ask(WORKS))  # proves that the history shows our calls
        asked_at = time.time()
        request_id = await bench.ask(RESET_ONCE)
        event = await bench.event(request_id)

    assert (event["attempt"], event["confirmed_by"]) == (2, "answer")
    assert dialled(portal) == {WORKS: 1, RESET_ONCE: 1}
    assert portal.calls[-1].placed_at - asked_at >= 2


async def test_doubts_that_never_end_use_the_attempts_up(
    bench: Bench, portal: SandboxPortal
) -> None:
    async with bench.running(retry_delays_s=(1,)):
        await bench.event(await bench.ask(WORKS))
        ids = [await bench.ask(number) for number in NOT_PLACED_ANSWER_LOST]
        reasons = [(await bench.event(each))["reason"] for each in ids]

    assert reasons == ["exhausted"] * len(ids)
    asked = {name: portal.tally.by_answer[name] for name in NOT_PLACED_ANSWER_LOST.values()}
    assert asked == dict.fromkeys(asked, 2)
    assert dialled(portal) == {WORKS: 1}


@pytest.mark.parametrize("history", ["own", "denied", "absent"])
async def test_without_a_history_a_doubt_is_left_to_a_person(
    bench: Bench, portal: SandboxPortal, history: str
) -> None:
    portal.patch({"history": history})
    async with bench.running():
        await bench.event(await bench.ask(WORKS))
        rang, not_rang = await bench.ask(BAD_GATEWAY_PLACED), await bench.ask(BAD_GATEWAY)
        reported = await bench.ask(INTERNAL_SERVER_ERROR)
        reasons = [(await bench.event(each))["reason"] for each in (rang, not_rang, reported)]
        letters = await bench.dead_letters(3)

    # The portal's own report of failure is tried again; nothing else is.
    assert reasons == ["unsure", "unsure", "exhausted"]
    assert portal.tally.by_answer["502 page, placed"] == 1
    assert portal.tally.by_answer["502 page"] == 1
    assert portal.tally.by_answer["INTERNAL_SERVER_ERROR"] == 3
    unsure = [letter for letter in letters if letter.headers["x-reason"] == "unsure"]
    assert all("x-unsure-since" in letter.headers for letter in unsure)


async def test_without_a_history_a_doubt_is_dialled_again_if_the_settings_say_so(
    bench: Bench, portal: SandboxPortal
) -> None:
    portal.patch({"history": "denied"})
    async with bench.running(when_unsure="retry"):
        event = await bench.event(await bench.ask(RESET_ONCE))

    assert (event["attempt"], event["confirmed_by"]) == (2, "answer")
    assert dialled(portal) == {RESET_ONCE: 1}


async def test_a_call_that_either_of_two_may_have_placed_is_nobodys(
    bench: Bench, portal: SandboxPortal
) -> None:
    async with bench.running(history_lag_s=4):
        await bench.event(await bench.ask(WORKS))
        portal.patch({"trouble": "502 page"})
        silent = await bench.ask(BAD_GATEWAY_PLACED)
        await bench.until(lambda: portal.tally.by_answer["502 page"] == 1)
        portal.patch({"trouble": None})
        rang = await bench.ask(BAD_GATEWAY_PLACED)
        reasons = [(await bench.event(each))["reason"] for each in (silent, rang)]

    assert reasons == ["unsure", "unsure"]
    assert dialled(portal) == {WORKS: 1, BAD_GATEWAY_PLACED: 1}
    assert await bench.count(f"{bench.queue}.dlq") == 2


# Replay


async def replay(bench: Bench, letter: Seen, **more: Any) -> None:  # noqa: ANN401
    """Send a dead letter back as the replay tool does."""
    kept = {name: value for name, value in letter.headers.items() if name != "x-failed-at"}
    headers = kept | {"x-replay": letter.headers["x-replay"] + 1} | more
    await bench.publish(letter.message.body, headers, to_queue=True)


async def test_replaying_a_doubt_adopts_the_call_if_it_rang(
    bench: Bench, portal: SandboxPortal
) -> None:
    portal.patch({"history": "denied"})
    async with bench.running():
        request_id = await bench.ask(BAD_GATEWAY_PLACED)
        (letter,) = await bench.dead_letters()
        portal.patch({"history": "any"})
        await replay(bench, letter)
        failed, started = await bench.events(request_id, 2)

    assert (failed["reason"], failed["replay"]) == ("unsure", 0)
    assert (started["confirmed_by"], started["replay"]) == ("history", 1)
    assert dialled(portal) == {BAD_GATEWAY_PLACED: 1}


async def test_replaying_a_doubt_dials_once_however_often_it_is_replayed(
    bench: Bench, portal: SandboxPortal
) -> None:
    portal.patch({"history": "denied"})
    async with bench.running():
        request_id = await bench.ask(RESET_ONCE)
        (letter,) = await bench.dead_letters()
        for _ in range(3):
            await replay(bench, letter)
        _, *started = await bench.events(request_id, 4)

    assert (one_of(started)["replay"], started[0]["attempt"]) == (1, 1)
    assert dialled(portal) == {RESET_ONCE: 1}


async def test_a_dead_letter_moved_back_as_it_is_counts_as_the_next_replay(
    bench: Bench, portal: SandboxPortal
) -> None:
    async with bench.running():
        request_id = await bench.ask(WORKS, from_line="reg7")
        (letter,) = await bench.dead_letters()
        portal.patch({"lines": {"reg7": "fixed"}})
        for _ in range(2):
            await bench.publish(letter.message.body, letter.headers, to_queue=True)
        refused, *started = await bench.events(request_id, 3)

    assert (refused["reason"], refused["replay"]) == ("refused", 0)
    assert (one_of(started)["replay"], started[0]["attempt"]) == (1, 1)
    assert started[0]["event_id"] != refused["event_id"]
    assert dialled(portal) == {WORKS: 1}


async def test_a_replay_that_fails_again_is_another_dead_letter_under_the_next_number(
    bench: Bench,
) -> None:
    async with bench.running():
        request_id = await bench.ask(BAD_NUMBER)
        (letter,) = await bench.dead_letters()
        await replay(bench, letter)
        (again,) = await bench.dead_letters()
        events = await bench.events(request_id, 2)

    assert [event["replay"] for event in events] == [0, 1]
    assert events[0]["event_id"] != events[1]["event_id"]
    assert again.headers["x-replay"] == 1
    assert again.message.body == letter.message.body


async def test_a_started_request_is_dialled_again_only_if_that_is_said(
    bench: Bench, portal: SandboxPortal
) -> None:
    asked = bench.request()
    request_id = str(asked["request_id"])

    async with bench.running():
        await bench.publish(asked)
        (first,) = await bench.events(request_id, 1)
        await bench.publish(asked, {"x-replay": 0, "x-redial": True}, to_queue=True)
        await bench.publish(asked, {"x-replay": 1}, to_queue=True)
        await bench.publish(asked, {"x-replay": 9, "x-redial": True})  # not through our queues
        repeated = (await bench.events(request_id, 4))[1:]
        assert dialled(portal) == {WORKS: 1}

        await bench.publish(asked, {"x-replay": 2, "x-redial": True}, to_queue=True)
        await bench.publish(asked, {"x-replay": 2, "x-redial": True}, to_queue=True)
        again = (await bench.events(request_id, 6))[4:]

    assert {event["event_id"] for event in repeated} == {first["event_id"]}
    assert one_of(again)["replay"] == 2
    assert dialled(portal) == {WORKS: 2}


# Drain


async def test_a_stop_finishes_the_call_in_flight_and_gives_the_rest_back(
    bench: Bench, foreign: ForeignPortal
) -> None:
    foreign.may_answer.clear()
    numbers = [f"+1202555010{n}" for n in range(5)]
    async with bench.running(bitrix24_url=foreign.url, rate_per_s=2, concurrency=3) as app:
        ids = [await bench.ask(number) for number in numbers]
        await bench.until(foreign.arrived.is_set)

        app.stop()
        await bench.until(lambda: not app.subscription.consuming)
        foreign.may_answer.set()

    assert [event["request_id"] for event in bench.heard] == ids[:1]
    assert await bench.count(bench.queue) == 4
    async with bench.running(bitrix24_url=foreign.url):
        for request_id in ids:
            await bench.event(request_id)
    assert sorted(call["TO_NUMBER"] for call in foreign.asked) == numbers


# Hostile input


def hostile_bodies() -> list[bytes]:
    """Make bodies of which none is a request."""
    good = {"request_id": "r", "to_number": WORKS, "text_to_pronounce": "Hi."}
    of_no_use: tuple[Any, ...] = (None, 1, -1.5, True, "", " ", [], {}, ["x"], {"a": 1}, "x" * 9999)
    wrong = [good | {field: value} for field in good for value in of_no_use]
    optional = ("from_line", "voice", "not_before", "expires_at", "metadata", "time_zone")
    wrong += [
        good | {field: value}
        for field in optional
        for value in of_no_use
        if (field, value) != ("metadata", {})
    ]
    wrong += [{k: v for k, v in good.items() if k != field} for field in good]
    wrong += [good | {"expire_at": soon(9)}, good | {"to_number": "+1"}, good | {"x" * 5000: 1}]
    raw = [
        b"",
        b" ",
        b"null",
        b"NaN",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe",
        b"\x00" * 1000,
        json.dumps(good).encode("utf-16"),
        b"\xef\xbb\xbf" + json.dumps(good).encode()[:-1],
        gzip.compress(json.dumps(good).encode()),
        b"\x00Sw\xa1" + json.dumps(good).encode(),
        b"[" * 60_000,
        b"[" * 5_000_000,
        b'{"a":' * 12_000,
        b" " * 5_000_000,
        json.dumps(good | {"text_to_pronounce": "x" * 5_000_000}).encode(),
        b'{"request_id": NaN}',
        b'{"request_id": -Infinity}',
        b'{"request_id": 1e999}',
        b'{"request_id": ' + b"9" * 5000 + b"}",
        b'{"request_id": "\\ud800"}',
        b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
    ]
    noise = [hash_of(n) * (1 + n % 7) for n in range(120)]
    return raw + noise + [json.dumps(each).encode() for each in wrong]


def hash_of(number: int) -> bytes:
    """Return the same noise in each run."""
    return number.to_bytes(2) + bytes((number * 37 + n * 101) % 256 for n in range(40))


async def test_every_hostile_body_is_a_dead_letter_and_an_event(
    bench: Bench, portal: SandboxPortal
) -> None:
    bodies = hostile_bodies()

    async with bench.running():
        for body in bodies:
            await bench.publish(body)
        await bench.until(lambda: len(bench.heard) == len(bodies))
        alive = await bench.event(await bench.ask(request_id="alive"))
        letters = await bench.dead_letters(len(bodies))

    failed = [event for event in bench.heard if event["request_id"] != "alive"]
    assert {(event["reason"], event["attempt"]) for event in failed} == {("invalid", 0)}
    kept_by = Counter(
        letter.headers.get("x-reason") or f"broker, {letter.headers['x-first-death-reason']}"
        for letter in letters
    )
    unreadable = sum(isinstance(read_json(body), Invalid) for body in bodies)
    assert kept_by == {"broker, rejected": unreadable, "invalid": len(bodies) - unreadable}
    assert Counter(letter.message.body for letter in letters) == Counter(bodies)
    assert alive.message.type == "call.started"
    assert await bench.count(bench.queue) == 0
    assert dialled(portal) == {WORKS: 1}


HOSTILE_HEADERS: dict[str, dict[str, Any]] = {
    "attempt in words": {"x-attempt": "many"},
    "last attempt": {"x-attempt": 999_999, "x-replay": 3},
    "negative": {"x-attempt": -1, "x-replay": -7},
    "doubt": {"x-unsure-since": "2026-01-01T00:00:00Z"},
    "failed": {"x-failed-at": "2026-01-01T00:00:00Z", "x-redial": True},
    "reasons": {"x-reason": "refused", "x-code": "x", "x-http-status": [1, {"a": None}]},
    "copies": {"CC": ["{elsewhere}"], "BCC": ["{elsewhere}"]},
    "copies to us": {"CC": ["{queue}.dlq"]},
    "death": {
        "x-death": [{"queue": "{queue}", "reason": "rejected", "count": 1, "exchange": ""}],
        "x-first-death-queue": "{queue}",
        "x-last-death-reason": "maxlen",
    },
    "delivery count": {"x-delivery-count": 5000},
    "big": {f"big-{n}": "y" * 10_000 for n in range(10)},
    "many": {f"header-{n}": n for n in range(2000)},
    "trace": {"traceparent": "x" * 500, "tracestate": "ä" * 20},
    "nothing": {"x-attempt": None, "traceparent": None},
}
HOSTILE_PROPERTIES: dict[str, dict[str, Any]] = {
    "expiration": {"expiration": 3600},
    "reply to": {"reply_to": "{elsewhere}", "correlation_id": "theirs"},
    "types": {"content_type": "text/html; charset=klingon", "content_encoding": "gzip"},
    "empty": {"content_type": "", "message_id": "", "type": "", "app_id": ""},
    "the past": {"timestamp": datetime(1970, 1, 1, tzinfo=UTC), "priority": 255},
    "the future": {"timestamp": datetime(2500, 1, 1, tzinfo=UTC), "delivery_mode": 1},
    "same message id": {"message_id": "the-same"},
    "same message id again": {"message_id": "the-same"},
}


def filled(value: Any, names: dict[str, str]) -> Any:  # noqa: ANN401
    """Fill the queues' names in."""
    match value:
        case str():
            for name, queue in names.items():
                value = value.replace(f"{{{name}}}", queue)
            return value
        case list():
            return [filled(each, names) for each in value]
        case dict():
            return {key: filled(each, names) for key, each in value.items()}
        case _:
            return value


async def test_hostile_headers_change_nothing(bench: Bench, portal: SandboxPortal) -> None:
    elsewhere = await bench.channel.declare_queue(exclusive=True)
    names = {"elsewhere": elsewhere.name, "queue": bench.queue}
    ids = []

    async with bench.running():
        for headers in HOSTILE_HEADERS.values():
            asked = bench.request(WORKS_AT_THE_SECOND_TRY)
            ids.append(str(asked["request_id"]))
            await bench.publish(asked, filled(headers, names))
        for properties in HOSTILE_PROPERTIES.values():
            asked = bench.request(BAD_NUMBER)
            ids.append(str(asked["request_id"]))
            await bench.publish(asked, **filled(properties, names))
        events = [await bench.event(request_id) for request_id in ids]
        letters = await bench.dead_letters(len(HOSTILE_PROPERTIES))

    assert {event["replay"] for event in events} == {0}
    assert len(bench.heard) == len(ids)
    assert {event["attempt"] for event in events} <= {1, 2}
    started = [event for event in events if event.message.type == "call.started"]
    assert dialled(portal) == {WORKS_AT_THE_SECOND_TRY: len(started)}
    assert len(started) == len(HOSTILE_HEADERS)
    assert all(letter.headers.keys() <= OUR_HEADERS for letter in letters)
    assert all(letter.message.reply_to is None for letter in letters)
    assert await bench.count(elsewhere.name) == 0
    assert await bench.count(bench.queue) == 0


OUR_HEADERS = {
    "x-attempt",
    "x-replay",
    "x-reason",
    "x-code",
    "x-description",
    "x-http-status",
    "x-failed-at",
    "x-first-seen-at",
}


async def test_a_timestamp_that_no_calendar_has_stops_nothing(
    bench: Bench, portal: SandboxPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some upstream counts nanoseconds, and the library that reads it knows years to 9999."""
    asked = bench.request()

    async with bench.running():
        with monkeypatch.context() as nanoseconds:
            encoded = (10**18).to_bytes(8)
            nanoseconds.setitem(pamqp.encode.METHODS, "timestamp", lambda _: encoded)
            await bench.publish(asked, timestamp=datetime.now(UTC))
        await bench.event(await bench.ask("+12025550101"))

    assert dialled(portal)["+12025550101"] == 1
    assert await bench.count(bench.queue) == 0


# Pace


async def test_the_portals_rate_is_used_and_never_exceeded(
    bench: Bench, portal: SandboxPortal
) -> None:
    portal.patch({"rate_per_s": 5, "threshold": 50})
    count = 40

    async with bench.running(rate_per_s=5, concurrency=40):
        ids = [await bench.ask() for _ in range(count)]
        await bench.until(lambda: len(bench.heard) == count)

    arrivals = list(portal.tally.arrivals)
    assert portal.tally.refused_by_rate == 0
    assert {event["request_id"] for event in bench.heard} == set(ids)
    assert (count - 1) / (arrivals[-1] - arrivals[0]) >= 0.97 * 5


def test_the_table_of_hostile_bodies_is_long_enough() -> None:
    assert len(hostile_bodies()) > 200

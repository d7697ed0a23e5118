"""What a hostile review broke: calls made twice, stuck requests, faults taken for proof."""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from consumer.app import App
from consumer.ledger import Ledger, LedgerDown
from consumer.limits import circuit_breaker
from consumer.operations.choice import Choice
from consumer.operations.dead_letters import Replay, look, send_back
from consumer.shutdown import end
from tests.workbench import Bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.links import Link
    from tests.portals import ForeignPortal

WORKS = "+12025550123"
LOST = "+12025550100"


@dataclass
class HistoryPortal:
    """A portal whose clocks, history and losses a test sets; of another make than the sandbox.

    Attributes:
        http_ahead_s: How far its web server's clock is ahead of ours.
        http_drifts_s: How much more at each answer.
        dated: Whether its answers bear a date.
        calls_ahead_s: How far the clock is ahead of ours that dates its calls.
        lose: Numbers whose next call is placed and its answer lost.
        drop: Numbers whose next call is not placed, and no answer given.
        busy: Numbers whose next call is not placed, because the portal has no time.
        history: What the history answers with instead of rows, status and body, in turn.
        hidden: Numbers whose calls still go on, and so are not in the history.
    """

    http_ahead_s: float = 0.0
    http_drifts_s: float = 0.0
    dated: bool = True
    calls_ahead_s: float = 0.0
    lose: set[str] = field(default_factory=set)
    drop: set[str] = field(default_factory=set)
    busy: set[str] = field(default_factory=set)
    history: list[tuple[int, bytes]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    looked_up: int = 0
    hidden: set[str] = field(default_factory=set)

    def dialled(self, number: str) -> int:
        return sum(row["PHONE_NUMBER"] == number for row in self.rows)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = re.search(r"content-length: (\d+)", head)
            asked = json.loads(await reader.readexactly(int(length[1]) if length else 0) or b"{}")
            status, body = 200, b'{"result":true}'
            if "startwithtext" in head:
                answer = self.place(asked)
                if answer is None:
                    writer.transport.abort()
                    return
                body = json.dumps(answer).encode()
            elif "statistic" in head:
                status, body = self.answer_history(asked["FILTER"])
            self.http_ahead_s += self.http_drifts_s
            now = formatdate(time.time() + self.http_ahead_s, usegmt=True)
            date = f"Date: {now}\r\n" if self.dated else ""
            writer.write(
                f"HTTP/1.1 {status} X\r\n{date}Content-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        writer.close()

    def place(self, asked: dict[str, str]) -> dict[str, Any] | None:
        number = asked["TO_NUMBER"]
        if number in self.drop:
            self.drop.discard(number)
            return None
        if number in self.busy:
            self.busy.discard(number)
            return {"error": "CONNECTION_ERROR"}
        call_id = f"infocall.{len(self.rows)}"
        started = datetime.fromtimestamp(time.time() + self.calls_ahead_s, UTC)
        self.rows.append(
            {
                "CALL_ID": call_id,
                "CALL_TYPE": "5",
                "PORTAL_NUMBER": asked["FROM_LINE"],
                "PHONE_NUMBER": number,
                "CALL_START_DATE": started.isoformat(timespec="seconds"),
            }
        )
        if number in self.lose:
            self.lose.discard(number)
            return None
        return {"result": {"RESULT": True, "CALL_ID": call_id}}

    def answer_history(self, wanted: dict[str, str]) -> tuple[int, bytes]:
        self.looked_up += 1
        if self.history:
            return self.history.pop(0)
        call_id = wanted.get("CALL_ID")
        seen = [row for row in self.rows if row["PHONE_NUMBER"] not in self.hidden]
        rows = [row for row in seen if call_id in (None, row["CALL_ID"])]
        return 200, json.dumps({"result": rows, "total": len(rows)}).encode()


@dataclass
class Tried:
    """A bench with a `HistoryPortal`."""

    bench: Bench
    portal: HistoryPortal
    url: str

    @asynccontextmanager
    async def running(self, **changes: Any) -> AsyncIterator[App]:  # noqa: ANN401
        """Run a worker that has seen the history show a call of its own."""
        async with self.bench.running(bitrix24_url=self.url, **changes) as app:
            yield app

    async def prove(self) -> None:
        """Let a call be placed that the history shows."""
        await self.bench.event(await self.bench.ask(WORKS))

    async def replay(self, app: App, how: Replay | None = None) -> None:
        """Send all dead letters back."""
        url = self.bench.given["rabbitmq_url"]
        letters = [letter async for letter in look(url, app.topology, Choice())]

        async def nothing(_: object) -> None:
            pass

        await send_back(url, app.topology, {x.key for x in letters}, how or Replay(), nothing)


@pytest.fixture
async def tried(bench: Bench) -> AsyncIterator[Tried]:
    portal = HistoryPortal()
    server = await asyncio.start_server(portal.serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    yield Tried(bench, portal, f"http://127.0.0.1:{port}/rest/1/s3cret-x/")
    server.close()


# --- clocks

CLOCKS = [0, 100, -100, 200, -200, 600, -600, 3600, -3600]


@pytest.mark.parametrize("ahead_s", CLOCKS)
async def test_a_wrong_clock_of_the_portals_web_server_phones_nobody_twice(
    tried: Tried, ahead_s: int
) -> None:
    tried.portal.http_ahead_s = ahead_s
    tried.portal.lose = {LOST}

    async with tried.running():
        await tried.prove()
        event = await tried.bench.event(await tried.bench.ask(LOST))

    assert (event.message.type, event["confirmed_by"]) == ("call.started", "history")
    assert tried.portal.dialled(LOST) == 1


@pytest.mark.parametrize(
    ("http_s", "calls_s"), [(0, 600), (0, -600), (0, 3600), (600, -600), (-3600, 3600)]
)
async def test_a_wrong_clock_of_the_portals_telephony_is_learned_from_calls_of_ours(
    tried: Tried, http_s: int, calls_s: int
) -> None:
    tried.portal.http_ahead_s, tried.portal.calls_ahead_s = http_s, calls_s
    tried.portal.lose = {LOST}

    async with tried.running():
        await tried.prove()
        event = await tried.bench.event(await tried.bench.ask(LOST))

    assert (event.message.type, event["confirmed_by"]) == ("call.started", "history")
    assert tried.portal.dialled(LOST) == 1


async def test_a_later_process_learns_the_telephonys_clock_before_it_decides(
    tried: Tried,
) -> None:
    """Its first look asks for no row so old: what it learns from a known call comes after."""
    tried.portal.calls_ahead_s = -4 * 3600
    tried.portal.lose = {LOST}
    async with tried.running(history_lag_s=1):
        await tried.prove()
        tried.portal.history = [(500, b"")] * 9
        request_id = await tried.bench.ask(LOST)
        await tried.bench.until(lambda: tried.portal.looked_up >= 2)

    tried.portal.history = []
    async with tried.running(history_lag_s=1):
        event = await tried.bench.event(request_id)

    assert (event.message.type, event["confirmed_by"]) == ("call.started", "history")
    assert tried.portal.dialled(LOST) == 1


async def test_a_call_near_the_time_in_question_decides_nothing(tried: Tried) -> None:
    """Its clock is not known: no call of ours has been in the history yet."""
    tried.portal.calls_ahead_s = 1800
    tried.portal.lose = {LOST}

    async with tried.running(history_lag_s=1) as app:
        request_id = await tried.bench.ask(LOST)
        await tried.bench.until(lambda: tried.portal.looked_up >= 4)
        entry = await app.ledger.get(request_id)

    assert entry is not None
    assert entry.unsure_since is not None
    assert tried.portal.dialled(LOST) == 1
    assert tried.bench.events_of(request_id) == []


async def test_a_clock_that_is_measured_otherwise_each_time_holds_nothing_up(
    tried: Tried,
) -> None:
    """The date counts whole seconds, and answers are not all equally fast."""
    tried.portal.http_ahead_s, tried.portal.http_drifts_s = -600, -2
    tried.portal.drop = {LOST}

    async with tried.running(history_lag_s=1):
        await tried.prove()
        event = await tried.bench.event(await tried.bench.ask(LOST))

    assert (event.message.type, event["attempt"]) == ("call.started", 2)
    assert tried.portal.dialled(LOST) == 1


class Shifted:
    """The module `time`, with a wall clock that is set."""

    ahead_s = 0.0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(time, name)

    def time(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Shifted:
    """Lend the worker's wall clock, to be set; the portal's goes right."""
    shifted = Shifted()
    for module in ("processor", "reconciler", "bitrix24.portal", "caller", "ledger.ages"):
        monkeypatch.setattr(f"consumer.{module}.time", shifted)
    return shifted


@pytest.mark.parametrize("ahead_s", [400.0, -400.0, 100_000.0])
async def test_a_step_of_the_clock_during_a_doubt_phones_nobody_twice(
    tried: Tried, wall: Shifted, ahead_s: float
) -> None:
    tried.portal.lose, tried.portal.hidden = {LOST}, {LOST}

    async with tried.running(history_lag_s=300):
        await tried.prove()
        request_id = await tried.bench.ask(LOST)
        await tried.bench.until(lambda: tried.portal.looked_up >= 1)
        wall.ahead_s = ahead_s
        looks = tried.portal.looked_up + (3 if ahead_s > 0 else 1)
        await tried.bench.until(lambda: tried.portal.looked_up >= looks)
        assert tried.portal.dialled(LOST) == 1
        tried.portal.hidden = set()
        event = await tried.bench.event(request_id)

    assert (event.message.type, event["confirmed_by"]) == ("call.started", "history")
    assert tried.portal.dialled(LOST) == 1


@pytest.mark.parametrize("dated", [True, False], ids=["dated", "undated"])
async def test_a_later_process_whose_clock_is_ahead_waits_a_whole_lag(
    tried: Tried, wall: Shifted, *, dated: bool
) -> None:
    tried.portal.dated = dated
    tried.portal.lose, tried.portal.hidden = {LOST}, {LOST}
    async with tried.running(history_lag_s=300):
        await tried.prove()
        request_id = await tried.bench.ask(LOST)
        await tried.bench.until(lambda: tried.portal.looked_up >= 2)

    wall.ahead_s = 400.0
    async with tried.running(history_lag_s=300):
        looked_up = tried.portal.looked_up
        await tried.bench.until(lambda: tried.portal.looked_up >= looked_up + 3)
        assert tried.portal.dialled(LOST) == 1
        tried.portal.hidden = set()
        event = await tried.bench.event(request_id)

    assert event["confirmed_by"] == "history"
    assert tried.portal.dialled(LOST) == 1


async def test_a_clock_that_was_set_back_between_two_attempts_hides_no_call(
    tried: Tried, wall: Shifted
) -> None:
    wall.ahead_s = 10_000.0
    tried.portal.busy, tried.portal.lose = {LOST}, {LOST}

    async with tried.running():
        request_id = await tried.bench.ask(LOST)
        await tried.bench.until(lambda: not tried.portal.busy)
        wall.ahead_s = 0.0
        await tried.prove()
        event = await tried.bench.event(request_id)

    assert (event.message.type, event["confirmed_by"]) == ("call.started", "history")
    assert tried.portal.dialled(LOST) == 1


async def test_a_clock_that_is_set_back_delays_nothing_for_longer(
    bench: Bench, foreign: ForeignPortal, wall: Shifted
) -> None:
    wall.ahead_s = 3600.0
    busy = foreign.reply(503, b"")
    foreign.answers[LOST] = [
        busy,
        foreign.reply(200, {"result": {"RESULT": True, "CALL_ID": "x"}}),
    ]

    async with bench.running(bitrix24_url=foreign.url):
        request_id = await bench.ask(LOST)
        await bench.until(lambda: len(foreign.asked) == 1)
        wall.ahead_s = 0.0
        event = await bench.event(request_id)

    assert (event.message.type, event["attempt"]) == ("call.started", 2)


# --- a history that can be read


def row_with(**odd: object) -> bytes:
    """Write a page of the history with one row, in which something is odd."""
    row = {
        "CALL_ID": "c",
        "CALL_TYPE": "5",
        "PORTAL_NUMBER": "reg151083",
        "PHONE_NUMBER": LOST,
        "CALL_START_DATE": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return json.dumps({"result": [row | odd]}).encode()


GLITCHES: dict[str, tuple[int, bytes]] = {
    "a maintenance page": (200, b"<html>Technical works</html>"),
    "a firewall": (403, b"<html>blocked</html>"),
    "no such page": (404, b"Not Found"),
    "a refusal": (401, b'{"error":"INVALID_CREDENTIALS"}'),
    "a gateway": (502, b"x"),
    "an empty object for rows": (200, b'{"result":{}}'),
    "a row without an id": (200, row_with(CALL_ID=None)),
    "half a surrogate pair": (200, row_with(CALL_ID="\ud800")),
    "a year beyond all calendars": (200, row_with(CALL_START_DATE="99999-11-27T10:00:00+00:00")),
    "a date that is none": (200, row_with(CALL_START_DATE=None)),
}


@pytest.mark.parametrize("glitch", GLITCHES.values(), ids=GLITCHES)
async def test_once_readable_the_history_is_believed_to_stay_so(
    tried: Tried, glitch: tuple[int, bytes]
) -> None:
    tried.portal.lose = {WORKS}

    async with tried.running(when_unsure="retry"):
        await tried.bench.event(await tried.bench.ask("+12025550107"))
        await tried.prove()  # by a doubt that the history settles
        tried.portal.history = [glitch] * 2
        tried.portal.lose = {LOST}
        event = await tried.bench.event(await tried.bench.ask(LOST))

    assert (event.message.type, event["confirmed_by"]) == ("call.started", "history")
    assert tried.portal.dialled(LOST) == 1


async def test_a_later_process_knows_that_the_history_was_readable(tried: Tried) -> None:
    tried.portal.lose = {WORKS}
    async with tried.running():
        await tried.bench.event(await tried.bench.ask("+12025550107"))
        await tried.prove()

    tried.portal.history = [(403, b"<html>blocked</html>")] * 2
    tried.portal.lose = {LOST}
    async with tried.running(when_unsure="retry"):
        event = await tried.bench.event(await tried.bench.ask(LOST))

    assert (event.message.type, event["confirmed_by"]) == ("call.started", "history")
    assert tried.portal.dialled(LOST) == 1


# --- replays of what is in doubt


async def test_a_replay_within_the_lag_waits(tried: Tried) -> None:
    tried.portal.history = [(403, b"{}")]
    tried.portal.drop = {LOST}

    async with tried.running(history_lag_s=4) as app:
        await tried.prove()
        asked_at = time.monotonic()
        request_id = await tried.bench.ask(LOST)
        failed = await tried.bench.event(request_id)
        await tried.replay(app)
        started = (await tried.bench.events(request_id, 2))[1]
        started_at = time.monotonic()

    assert failed["reason"] == "unsure"
    assert (started.message.type, started["replay"]) == ("call.started", 1)
    assert started_at - asked_at >= 4
    assert tried.portal.dialled(LOST) == 1


async def test_failing_look_ups_of_a_replay_end_after_a_day_in_a_new_dead_letter(
    tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.reconciliation.LONGEST_LOOKING_S", 2.0)
    tried.portal.history = [(404, b"")]
    tried.portal.drop = {LOST}

    async with tried.running() as app:
        request_id = await tried.bench.ask(LOST)
        await tried.bench.event(request_id)
        tried.portal.history = [(500, b"")] * 20
        await tried.replay(app)
        again = (await tried.bench.events(request_id, 2))[1]
        (letter,) = await tried.bench.dead_letters()

    assert (again["reason"], again["replay"]) == ("unsure", 1)
    assert letter.headers["x-replay"] == 1
    assert tried.portal.looked_up < 8
    assert tried.portal.dialled(LOST) == 0


async def test_a_replay_to_another_number_looks_nothing_up(tried: Tried) -> None:
    tried.portal.history = [(404, b"")]
    tried.portal.lose = {LOST}

    async with tried.running() as app:
        request_id = await tried.bench.ask(LOST)
        await tried.bench.event(request_id)
        stranger = {"TO_NUMBER": "+12025550109", "FROM_LINE": "reg151083"}
        tried.portal.place(stranger)
        looked_up = tried.portal.looked_up
        await tried.replay(app, Replay(edits={"to_number": "+12025550109"}))
        again = (await tried.bench.events(request_id, 2))[1]

    assert (again.message.type, again["confirmed_by"]) == ("call.started", "answer")
    assert tried.portal.dialled("+12025550109") == 2
    assert tried.portal.looked_up == looked_up


async def test_a_replay_by_another_line_still_looks_for_the_first_call(tried: Tried) -> None:
    tried.portal.history = [(404, b"")]
    tried.portal.lose = {LOST}

    async with tried.running() as app:
        request_id = await tried.bench.ask(LOST)
        await tried.bench.event(request_id)
        await tried.replay(app, Replay(edits={"from_line": "sip7"}))
        again = (await tried.bench.events(request_id, 2))[1]

    assert (again.message.type, again["confirmed_by"]) == ("call.started", "history")
    assert tried.portal.dialled(LOST) == 1


async def test_a_replay_takes_over_a_request_whose_own_message_is_gone(
    tried: Tried,
) -> None:
    """The broker made a dead letter of it, say; the ledger still has it open."""
    tried.portal.lose = {LOST}
    body = Bench.request(LOST)
    request_id = str(body["request_id"])

    async with tried.running(history_lag_s=300):
        await tried.prove()
        tried.portal.calls_ahead_s = -100_000  # not to be found
        await tried.bench.publish(body)
        await tried.bench.waiting(1)  # taken out of its delay queue: gone
        tried.portal.calls_ahead_s = 0
        edited = body | {"text_to_pronounce": "Corrected."}
        for row in tried.portal.rows:
            row["CALL_START_DATE"] = datetime.now(UTC).isoformat(timespec="seconds")
        await tried.bench.publish(edited, {"x-replay": 1}, to_queue=True)
        event = await tried.bench.event(request_id)

    assert (event.message.type, event["confirmed_by"]) == ("call.started", "history")
    assert event["replay"] == 1
    assert tried.portal.dialled(LOST) == 1


async def test_the_first_calls_row_is_not_taken_for_a_redialled_one(tried: Tried) -> None:
    body = Bench.request(LOST)
    request_id = str(body["request_id"])

    async with tried.running(history_lag_s=3):
        await tried.bench.publish(body)
        first = await tried.bench.event(request_id)
        tried.portal.drop = {LOST}
        await tried.bench.publish(body, {"x-replay": 1, "x-redial": True}, to_queue=True)
        second = (await tried.bench.events(request_id, 2))[1]

    assert (second.message.type, second["replay"]) == ("call.started", 1)
    assert second["call_id"] != first["call_id"]
    assert second["confirmed_by"] == "answer"
    assert tried.portal.dialled(LOST) == 2


async def test_an_old_copy_of_an_edited_request_makes_no_dead_letter(
    bench: Bench, foreign: ForeignPortal
) -> None:
    refusal = {"error": "ERROR_CORE", "error_description": "Phone number is not correct"}
    foreign.answers[LOST] = [foreign.reply(400, refusal)]
    body = Bench.request(LOST)
    request_id = str(body["request_id"])

    async with bench.running(bitrix24_url=foreign.url):
        await bench.publish(body)
        await bench.event(request_id)
        await bench.publish(body | {"text_to_pronounce": "New."}, {"x-replay": 1}, to_queue=True)
        await bench.events(request_id, 2)
        await bench.publish(body, to_queue=True)
        await bench.event(await bench.ask(WORKS))

    assert len(bench.events_of(request_id)) == 2
    assert await bench.count(f"{bench.queue}.dlq") == 2


# --- answers that our own code cannot read


@pytest.mark.parametrize(
    "retry_after",
    ["Wed, 21 Oct 99999999999999999999 07:28:00 GMT", "9" * 400, "-1", "\u00b2"],
)
async def test_an_absurd_wait_stops_nothing(
    bench: Bench, foreign: ForeignPortal, retry_after: str
) -> None:
    limit = json.dumps({"error": "QUERY_LIMIT_EXCEEDED", "error_description": "Too many requests"})
    foreign.answers[LOST] = [
        (
            f"HTTP/1.1 503 Busy\r\nDate: Fri, 27 Nov 2026 11:00:00 GMT\r\n"
            f"Retry-After: {retry_after}\r\nContent-Length: {len(limit)}\r\n"
            f"Connection: close\r\n\r\n{limit}"
        ).encode()
    ]

    async with bench.running(bitrix24_url=foreign.url) as app:
        request_id = await bench.ask(LOST)
        await bench.until(lambda: foreign.dialled(LOST) == 1)
        await bench.event(await bench.ask(WORKS))
        entry = await app.ledger.get(request_id)

    assert entry is not None
    assert (entry.state, entry.code) == ("delayed", "QUERY_LIMIT_EXCEEDED")
    assert await bench.count(f"{bench.queue}.dlq") == 0


async def test_whatever_fails_on_an_answer_is_a_doubt_and_pauses(
    bench: Bench, foreign: ForeignPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OverflowError("date value out of range")

    monkeypatch.setattr("consumer.bitrix24.portal.read_response", fails)
    given = {"bitrix24_url": foreign.url, "pause_after": 3, "concurrency": 1}
    async with bench.running(**given, retry_delays_s=(60,)) as app:
        ids = [await bench.ask(f"+1202555{1000 + n}") for n in range(12)]
        await bench.until(lambda: app.breaker.is_open)
        await bench.waiting(60, 3)
        entries = [await app.ledger.get(request_id) for request_id in ids]

    known = [entry for entry in entries if entry is not None]
    assert {entry.code for entry in known} == {"WORKER_ERROR"}
    assert len(known) == len(foreign.asked) <= 4
    assert max(foreign.dialled(call["TO_NUMBER"]) for call in foreign.asked) == 1


async def test_bugs_of_ours_pause_too(
    bench: Bench, foreign: ForeignPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.running(bitrix24_url=foreign.url, pause_after=3, concurrency=1) as app:

        async def fails(_: str) -> None:
            raise KeyError("state")

        monkeypatch.setattr(app.ledger, "get", fails)
        for n in range(20):
            await bench.ask(f"+1202555{1000 + n}")
        await bench.until(lambda: app.breaker.is_open)

    assert await bench.count(f"{bench.queue}.dlq") <= 4


async def test_a_probe_whose_answer_cannot_be_read_does_not_end_the_worker(
    bench: Bench, foreign: ForeignPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OverflowError("date value out of range")

    monkeypatch.setattr(circuit_breaker, "OTHER_WAITS_S", (0.1, 0.2))
    monkeypatch.setattr("consumer.probe.read_response", fails)
    foreign.answers[LOST] = [foreign.reply(401, {"error": "INVALID_CREDENTIALS"})]

    async with bench.running(bitrix24_url=foreign.url, pause_after=1) as app:
        await bench.event(await bench.ask(LOST))
        await bench.until(lambda: app.breaker.state == "half_open")
        event = await bench.event(await bench.ask(WORKS))

    assert event.message.type == "call.started"


# --- one portal that refuses everything

PORTALS: dict[str, list[tuple[int, Any]]] = {
    "a front server's 400": [(400, b"<html>Bad Request</html>")],
    "a proxy's 407": [(407, b"")],
    "codes that no table lists": [(400, {"error": "NEW"}), (403, {"error": "NEWER"})],
    "two reasons by turns": [
        (401, {"error": "INVALID_CREDENTIALS"}),
        (403, {"error": "ACCESS_DENIED", "error_description": "Access denied!"}),
    ],
    "refusals and failures by turns": [(401, {"error": "INVALID_CREDENTIALS"}), (502, b"x")],
    "refusals and outages by turns": [(401, {"error": "INVALID_CREDENTIALS"}), (503, b"")],
    "an argument that it does not take": [(400, {"error": "ERROR_ARGUMENT"})],
    "nested errors": [(400, {"error": {"code": "BITRIX_REST_V3", "message": "x"}})],
    "RESULT false": [(200, {"result": {"RESULT": False}})],
}


@pytest.mark.parametrize("answers", PORTALS.values(), ids=PORTALS)
async def test_forty_requests_leave_five_dead_letters_and_those_in_flight(
    bench: Bench, foreign: ForeignPortal, answers: list[tuple[int, Any]]
) -> None:
    replies = [foreign.reply(status, body) for status, body in answers]
    for n in range(40):
        foreign.answers[f"+120255501{n:02}"] = [replies[n % len(replies)]]

    async with bench.running(bitrix24_url=foreign.url, pause_after=5, concurrency=2) as app:
        for n in range(40):
            await bench.ask(f"+120255501{n:02}")
        await bench.until(lambda: app.breaker.is_open)

    assert await bench.count(f"{bench.queue}.dlq") <= 5 + 2


async def test_a_line_that_is_exempt_lets_no_refused_one_through(
    bench: Bench, foreign: ForeignPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "OTHER_WAITS_S", (0.2, 0.4))
    text = "Infocall limit for this month is exceeded"
    limit = foreign.reply(400, {"error": "ERROR_CORE", "error_description": text})
    for n in range(60):
        foreign.answers[f"+120255501{n:02}"] = [limit]

    async with bench.running(
        bitrix24_url=foreign.url, pause_after=5, concurrency=1, default_line="74950000000"
    ) as app:
        for n in range(60):
            if n % 8 == 7:
                await bench.ask(f"+1202555{2000 + n}", from_line="sip7")
            await bench.ask(f"+120255501{n:02}")
        await bench.until(lambda: app.breaker.epoch >= 6)

    assert await bench.count(f"{bench.queue}.dlq") <= 6


async def test_while_half_open_the_portals_own_wait_counts(
    bench: Bench, foreign: ForeignPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "CONNECTION_WAITS_S", (0.1, 0.2))
    wait = foreign.reply(503, b"", "Retry-After: 600")
    for n in range(5):
        foreign.answers[f"+120255501{n:02}"] = [wait]

    async with bench.running(bitrix24_url=foreign.url, pause_after=9, concurrency=1) as app:
        ids = [await bench.ask(f"+120255501{n:02}") for n in range(3)]
        await bench.until(lambda: len(foreign.asked) == 3)
        await bench.waiting(2, 3)
        entries = [await app.ledger.get(request_id) for request_id in ids]

    assert [round(e.due_at - e.changed_at) for e in entries if e is not None] == [600] * 3


# --- messages that stand in the way


async def test_an_oversized_body_is_left_to_the_broker(
    bench: Bench, foreign: ForeignPortal
) -> None:
    body = b"x" * 3_000_000

    async with bench.running(bitrix24_url=foreign.url) as app:
        await bench.publish(body)
        await bench.until(lambda: len(bench.heard) == 1)
        await bench.event(await bench.ask(WORKS))
        stuck_s = app.publisher.stuck_s
        (letter,) = await bench.dead_letters()

    assert (bench.heard[0]["reason"], bench.heard[0]["code"]) == ("invalid", "too_large")
    assert letter.message.body == body
    assert letter.headers["x-first-death-reason"] == "rejected"
    assert stuck_s == 0


@pytest.mark.parametrize("x_death", [[[]], ["text"], 7], ids=repr)
async def test_a_header_on_which_the_broker_would_stop_dead_lettering_goes_no_further(
    bench: Bench, x_death: object
) -> None:
    """RabbitMQ 3.10 ends, for all queues, where it cannot add to the header `x-death`."""
    async with bench.running():
        await bench.publish(b"no JSON", {"x-death": x_death})
        await bench.until(lambda: len(bench.heard) == 1)
        (letter,) = await bench.dead_letters()
        await bench.event(await bench.ask(WORKS))

    assert letter.message.body == b"no JSON"
    assert letter.headers["x-reason"] == "invalid"
    assert "x-death" not in letter.headers


@pytest.mark.parametrize("go_on_before_the_consumer_is_cancelled", [True, False])
async def test_at_a_stop_nothing_more_is_dialled(
    bench: Bench,
    foreign: ForeignPortal,
    monkeypatch: pytest.MonkeyPatch,
    *,
    go_on_before_the_consumer_is_cancelled: bool,
) -> None:
    """The ledger is slow, as a busy database is: ten requests are on their way to their calls."""

    async def slow_end(tasks: Any) -> None:  # noqa: ANN401
        """As where the jobs beside the calls take long to end."""
        if go_on_before_the_consumer_is_cancelled:
            go_on.set()
            await asyncio.sleep(0.3)
        await end(tasks)

    app = App(bench.settings(bitrix24_url=foreign.url, concurrency=10))
    task = asyncio.create_task(app.run())
    await bench.until(lambda: app.subscription.consuming)
    asked, go_on, get = asyncio.Semaphore(0), asyncio.Event(), app.ledger.get

    async def slow(request_id: str) -> Any:  # noqa: ANN401
        asked.release()
        await go_on.wait()
        return await get(request_id)

    app.ledger.get = slow  # type: ignore[method-assign]
    ids = [await bench.ask(f"+1202555{1000 + n}") for n in range(10)]
    for _ in ids:
        await asked.acquire()

    monkeypatch.setattr("consumer.app.end", slow_end)
    app.stop()
    if not go_on_before_the_consumer_is_cancelled:
        await bench.until(lambda: not app.subscription.consuming)
        go_on.set()
    await task

    assert foreign.asked == []
    assert await bench.count(bench.queue) == len(ids)


async def test_a_ledger_made_by_two_workers_at_once_is_as_old_for_both(
    bench: Bench,
    foreign: ForeignPortal,
    tmp_path: Any,  # noqa: ANN401
) -> None:
    settings = bench.settings(
        bitrix24_url=foreign.url,
        ledger_url=f"sqlite:///{tmp_path / 'fresh.db'}",
        rate_per_s=0.5,
        concurrency=5,
    )
    apps = [App(settings), App(settings)]
    tasks = [asyncio.create_task(app.run()) for app in apps]
    await bench.until(lambda: all(app.subscription.consuming for app in apps))
    await bench.event(await bench.ask(WORKS))
    for n in range(5):
        await bench.ask(f"+1202555{1000 + n}")
    await bench.until(lambda: any(app.worker._running for app in apps))  # noqa: SLF001
    active = next(n for n, app in enumerate(apps) if app.worker._running)  # noqa: SLF001

    apps[active].stop()
    await tasks[active]
    await bench.until(lambda: len(foreign.asked) >= 3)
    apps[1 - active].stop()
    await tasks[1 - active]

    assert {event.message.type for event in bench.heard} == {"call.started"}


async def test_a_claim_that_grew_old_before_the_connection_stood_is_not_sent(
    bench: Bench, foreign: ForeignPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a process that was frozen between its claim and the first byte."""
    monkeypatch.setattr("consumer.attempts.STALE_CLAIM_S", -0.0)
    async with bench.running(bitrix24_url=foreign.url) as app:
        claim, claims = app.ledger.claim, []

        async def counted(entry: Any, was: Any, controls: bytes) -> Any:  # noqa: ANN401
            claims.append(entry)
            if len(claims) > 2:
                monkeypatch.setattr("consumer.attempts.STALE_CLAIM_S", 10.0)
            return await claim(entry, was, controls)

        app.ledger.claim = counted  # type: ignore[method-assign]
        await bench.event(await bench.ask(WORKS))

    assert len(claims) >= 3
    assert foreign.dialled(WORKS) == 1


async def test_a_ledger_that_fails_while_it_begins_stops_nothing(
    bench: Bench,
    foreign: ForeignPortal,
    tmp_path: Any,  # noqa: ANN401
) -> None:
    fresh = f"sqlite:///{tmp_path / 'fresh.db'}"
    async with bench.running(bitrix24_url=foreign.url, ledger_url=fresh) as app:
        begin, failures = app.ledger.begin, [LedgerDown("busy")]

        async def fails() -> None:
            if failures:
                raise failures.pop()
            await begin()

        app.ledger.begin = fails  # type: ignore[method-assign]
        event = await bench.event(await bench.ask(WORKS))

    assert event.message.type == "call.started"
    assert await Ledger(fresh, bench.queue).exists()


async def test_a_link_cut_while_the_ledger_is_down_leaves_the_worker_held_no_longer(
    bench: Bench, foreign: ForeignPortal, link: Link
) -> None:
    async with bench.running(bitrix24_url=foreign.url, rabbitmq_url=link.url) as app:
        get, check_writable = app.ledger.get, app.ledger.check_writable

        async def fails(*_: object) -> None:
            raise LedgerDown("busy")

        app.ledger.get = app.ledger.check_writable = fails  # type: ignore[method-assign,assignment]
        request_id = await bench.ask(WORKS)
        await bench.until(
            lambda: "ledger" in app.subscription.paused_by and not app.subscription.consuming
        )
        link.cut()
        await bench.until(lambda: not app.worker._running)  # noqa: SLF001
        app.ledger.get, app.ledger.check_writable = get, check_writable  # type: ignore[method-assign]
        event = await bench.event(request_id)

    assert event.message.type == "call.started"
    assert foreign.dialled(WORKS) == 1

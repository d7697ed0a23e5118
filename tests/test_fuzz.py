"""Hostile bodies, headers, answers and history pages: each ends as the contract says.

`make fuzz` makes up 100,000 of them, `make check` some thousands. All are drawn by the seed that is
printed first; `--seed` brings the same ones again.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from pamqp import encode

from consumer.announcer import Announcer
from consumer.bitrix24.call_history import MOST_DIGITS, Page, read_page
from consumer.bitrix24.errors import KNOWN_ERRORS
from consumer.bitrix24.redaction import redacted
from consumer.bitrix24.responses import (
    LONGEST_DESCRIPTION,
    LONGEST_RETRY_AFTER_S,
    read_clock,
    read_response,
    read_usage,
)
from consumer.decision import Outcome, Placed, Refused, Unavailable, decide
from consumer.delivery import Delivery, Unreadable, read_delivery, read_headers
from consumer.events import invalid_event_id
from consumer.findings import LookUpFailed, NoHistory
from consumer.messages import (
    CallRequested,
    Defaults,
    Invalid,
    read_json,
    readable_id,
)
from consumer.messages.cancellations import CallCancel, read_cancel
from consumer.messages.requests import read_body
from consumer.rabbitmq.topology import build_topology
from tests import canary, hostile
from tests.portals import ForeignPortal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from aio_pika.abc import AbstractIncomingMessage

    from tests.workbench import Bench

KINDS = 5
LINE = Defaults(line="reg151083")
FLAT_BYTES = 24_000_000
"""What Python may keep of what it was once given."""
SETTLED_S = 5.0
LONGEST_DOUBT_S = 10.0
"""The lag and the delays."""
SHARE = 50
"""One in so many goes through a real broker and a real worker."""
ANNOUNCER = Announcer(build_topology("calls", "call.requested", (5, 30)))


@pytest.fixture
def rng(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> random.Random:
    """Lend what draws the inputs of one test, by the seed and by the test's name."""
    return random.Random(f"{pytestconfig.getoption('seed')} {request.node.name}")  # noqa: S311  # to be repeated


@pytest.fixture
def number(pytestconfig: pytest.Config) -> int:
    """Say how many inputs of each kind there are to be."""
    return int(pytestconfig.getoption("fuzz")) // KINDS


def memory() -> int:
    """Return how many bytes this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def rounds(number: int) -> Iterator[int]:
    """Count so many rounds; after a fifth of them memory must not grow any more."""
    warm = 0
    for n in range(number):
        if n == number // 5:
            warm = memory()
        yield n
    grown = memory() - warm
    assert not warm or grown < FLAT_BYTES, f"memory grew by {grown} bytes"


@dataclass
class Raw:
    """A message as aio-pika hands it over."""

    body: bytes
    headers: dict[str, Any]
    exchange: str = "calls"
    routing_key: str = "call.requested"
    message_id: str | None = None
    timestamp: datetime | None = None
    redelivered: bool = False


# --- the pure readers


def check_body(body: bytes) -> str:
    raw = cast("AbstractIncomingMessage", Raw(body, {}))
    read = read_delivery(raw, LINE)
    assert isinstance(read, Delivery | Unreadable)
    assert canary.seen_in(repr(read)) == []
    verdict = read.error if isinstance(read, Unreadable) else read.request
    if isinstance(verdict, CallRequested):
        assert isinstance(read, Delivery)
        assert (verdict.request_id, verdict.from_line is None) == (read.request_id, False)
        return "good"
    check_invalid(verdict)
    outgoing = [each.outgoing for each in ANNOUNCER.invalid(read, verdict)]
    assert json.loads(outgoing[-1].body)["reason"] == "invalid"
    for each in outgoing:
        encode.field_table(dict(each.headers))
    return verdict.code


def check_invalid(verdict: Invalid) -> None:
    assert verdict.code
    assert verdict.description
    assert len(verdict.description) <= 500
    assert canary.seen_in(verdict.description) == []


def check_cancellation(body: bytes) -> str:
    read = read_cancel(body)
    if isinstance(read, CallCancel):
        return "good"
    check_invalid(read)
    return read.code


def check_headers(headers: dict[str, Any], *, ours: bool) -> str:
    now = datetime.now(UTC)
    read = read_headers(headers, ours=ours, now=now)
    assert 1 <= read.attempt <= 1_000_000
    assert 0 <= read.replay <= 1_000_001
    encode.field_table(read.as_amqp())
    again = read_headers(read.as_amqp(), ours=True, now=now)
    assert (again.attempt, again.replay > 1_000_000) == (read.attempt, False) or read.replay > 10**6
    if not ours:
        assert (read.attempt, read.replay, read.redial, read.unsure_since) == (1, 0, False, None)
    return "ours" if ours else "upstream's"


def check_answer(status: int, body: bytes, headers: dict[str, str]) -> str:
    outcome = read_response(status, body, headers)
    assert isinstance(outcome, Placed) == says_placed(body)
    decide(outcome, 1, (5, 30))
    if isinstance(outcome, Placed):
        assert outcome.call_id is None or len(outcome.call_id) <= 255
    else:
        check_failure(outcome, status)
    usage, clock = read_usage(body), read_clock(headers)
    assert usage is None or math.isfinite(usage.operating_s + usage.reset_at)
    assert clock is None or math.isfinite(clock)
    return type(outcome).__name__


def says_placed(body: bytes) -> bool:
    """Tell what the contract says of a call: placed where RESULT is true, and nowhere else."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return False
    result = answer.get("result") if isinstance(answer, dict) else None
    return isinstance(result, dict) and result.get("RESULT") is True


def check_failure(outcome: Outcome, status: int) -> None:
    assert not isinstance(outcome, Placed)
    failure = outcome.failure
    assert 0 < len(failure.code) <= 64
    assert len(failure.description) <= LONGEST_DESCRIPTION
    assert (failure.code + failure.description).isprintable()
    hidden = (canary.NUMBER, canary.NUMBER.lstrip("+"), canary.TEXT)
    shown = redacted(failure.description, hidden)
    assert canary.seen_in(shown, number=True) == []
    # A number with another digit is not the one that was to be called.
    assert canary.NUMBER.lstrip("+") not in re.sub(r"\W", "", shown)
    if isinstance(outcome, Unavailable):
        assert 0 <= outcome.retry_after_s <= LONGEST_RETRY_AFTER_S
    known = failure.code.upper() in KNOWN or failure.code == "RESULT_FALSE"
    if isinstance(outcome, Refused) and not known:  # only a 4xx tells that nothing was dialled
        assert status // 100 in {3, 4}


KNOWN = {error.code.upper() for error in KNOWN_ERRORS}


def check_page(status: int, body: bytes) -> str:
    page = read_page(status, body)
    if not isinstance(page, Page):
        assert isinstance(page, NoHistory | LookUpFailed)
        return type(page).__name__
    assert status == 200
    for row in page.rows:
        assert row.call_type == "5"
        assert math.isfinite(row.started_at)
        assert canary.seen_in(repr(row)) == []
        row.call_id.encode()
    assert 0 <= page.last_id < 10**MOST_DIGITS
    for call_id, ending in page.endings.items():
        json.dumps([call_id, ending.code, ending.description]).encode()
        assert canary.seen_in(ending.description) == []
        assert 0 <= ending.duration_s < math.inf
    return "Page"


def check_all(
    number: int, make: Callable[[], tuple[Any, ...]], check: Callable[..., str]
) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in rounds(number):
        given = make()
        try:
            found[check(*given)] += 1
        except Exception as error:  # noqa: BLE001  # whatever it is, the input is what matters
            pytest.fail(f"{given!r:.2000} led to {error!r}")
    print(f"\n{number} times: {dict(found.most_common())}")  # noqa: T201  # pytest shows it on demand
    return found


def test_bodies(rng: random.Random, number: int) -> None:
    found = check_all(number, lambda: (hostile.body(rng),), check_body)
    assert {"good", "invalid_field", "not_json"} <= found.keys()


def test_cancellations(rng: random.Random, number: int) -> None:
    found = check_all(number, lambda: (hostile.cancellation(rng),), check_cancellation)
    assert {"good", "invalid_field", "not_json"} <= found.keys()


def test_headers(rng: random.Random, number: int) -> None:
    def check(headers: dict[str, Any]) -> str:
        return check_headers(headers, ours=rng.random() < 0.8)

    assert len(check_all(number, lambda: (hostile.headers(rng),), check)) == 2


def test_answers(rng: random.Random, number: int) -> None:
    found = check_all(number, lambda: hostile.answer(rng), check_answer)
    assert found.keys() == {"Placed", "Refused", "Unavailable", "Unsure"}


def test_history_pages(rng: random.Random, number: int) -> None:
    found = check_all(number, lambda: hostile.history_page(rng), check_page)
    assert found.keys() == {"Page", "NoHistory", "LookUpFailed"}


# --- a real broker and a real worker


class HostilePortal(ForeignPortal):
    """Answers anything, until it is well again."""

    rng: random.Random
    well = False

    async def _answer(self, head: str, body: bytes) -> bytes:
        if self.well:
            return await super()._answer(head, body)
        if "statistic.get" in head:
            return self.reply(*hostile.history_page(self.rng))
        while waited_for(*(given := hostile.answer(self.rng))):
            pass
        status, answer, headers = given
        return self.reply(status, answer, *(f"{name}: {value}" for name, value in headers.items()))


def waited_for(status: int, body: bytes, headers: dict[str, str]) -> bool:
    """Tell whether the worker would wait after an answer: until a moment, or until a login."""
    outcome = read_response(status, body, headers)
    login = isinstance(outcome, Refused) and outcome.scope == "login"
    return login or "retry-after" in headers or b"OPERATION_TIME_LIMIT" in body.upper()


@pytest.fixture
async def hostile_portal(rng: random.Random) -> AsyncIterator[HostilePortal]:
    portal = HostilePortal()
    portal.rng = rng
    portal.may_answer.set()
    server = await asyncio.start_server(portal.serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    portal.url = f"http://127.0.0.1:{port}/rest/1/{canary.SECRET}/"
    yield portal
    server.close()


def message(rng: random.Random, n: int) -> tuple[bytes, dict[str, Any]]:
    """Make a message that is to end soon, with an id of its own where it still has one."""
    while True:
        body = hostile.body(rng) if rng.random() < 0.5 else json.dumps(hostile.REQUEST).encode()
        body = body.replace(b"order-1", f"fuzz-{n}".encode())
        headers = {name: value for name, value in hostile.headers(rng).items() if name != "CC"}
        request = read_body(body, LINE)
        begins_at = request.not_before_s if isinstance(request, CallRequested) else 0.0
        with suppress(UnicodeEncodeError, OverflowError):  # what AMQP cannot carry
            encode.field_table(headers)
            if begins_at < time.time():
                return body, headers


def told_by(body: bytes) -> str:
    """Return the id in the event about a message: its request's, or else the event's own."""
    fields = read_json(body)
    request_id = None if isinstance(fields, Invalid) else readable_id(fields)
    return str(invalid_event_id(body)) if request_id is None else request_id


async def test_each_message_ends_in_a_real_worker(
    bench: Bench,
    hostile_portal: HostilePortal,
    rng: random.Random,
    pytestconfig: pytest.Config,
    capsys: pytest.CaptureFixture[str],
) -> None:
    number = int(pytestconfig.getoption("fuzz")) // SHARE
    settings = {"bitrix24_url": hostile_portal.url, "pause_after": 10**6}
    async with bench.running(**settings, operating_limit_s=10**12, concurrency=20):
        bodies = []
        for n in rounds(number):
            body, headers = message(rng, n)
            bodies.append(body)
            await bench.publish(body, headers, to_queue=rng.random() < 0.5)
        await bench.until_count(bench.queue, 0)
        hostile_portal.well = True
        wanted, deadline = set(map(told_by, bodies)), time.monotonic() + SETTLED_S + LONGEST_DOUBT_S
        while open_ := wanted - {event["request_id"] or event["event_id"] for event in bench.heard}:
            assert time.monotonic() < deadline, f"still open: {open_!r:.1000}"
            await asyncio.sleep(0.1)
        begun = time.monotonic()
    assert time.monotonic() - begun < SETTLED_S
    assert await bench.count(bench.queue) == 0  # what was not acknowledged would be back
    assert canary.seen_in(capsys.readouterr().out) == []
    # The portal quotes one text always: nobody could know it in an answer to another one.
    with_that_text = {told_by(body) for body in bodies if canary.TEXT.encode() in body}
    for event in bench.heard:
        text = event["request_id"] not in with_that_text
        shown = canary.seen_in(event.message.body, number=True, text=text)
        assert shown == [], event.message.body

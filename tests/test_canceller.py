"""Cancellations over a real broker: before the request, beside it, and while no worker runs."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from consumer.ledger import LedgerDown
from tests.portals import ForeignPortal
from tests.workbench import WITHIN_S

if TYPE_CHECKING:
    from tests.workbench import Bench

NUMBER = "+12025550101"
LATER = "+12025550102"
UNAVAILABLE = ForeignPortal.reply(503, {"error": "QUERY_LIMIT_EXCEEDED"})


async def cancel(bench: Bench, body: bytes | dict[str, Any]) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    exchange = await bench.channel.get_exchange(bench.exchange, ensure=False)
    await exchange.publish(aio_pika.Message(content), "call.cancel")


async def test_requests_are_taken_back_wherever_they_are(
    bench: Bench, foreign: ForeignPortal
) -> None:
    foreign.answers = {NUMBER: [UNAVAILABLE]}
    in_an_hour = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    async with bench.running(bitrix24_url=foreign.url, retry_delays_s=(1, 300)) as app:
        delayed = await bench.ask(NUMBER)
        scheduled = await bench.ask(LATER, not_before=in_an_hour)
        await bench.until_count(f"{bench.queue}.delay.300s", 1)
        await bench.until_count(f"{bench.queue}.delay.1s", 1)
        for request_id in (delayed, scheduled, "never-published"):
            await cancel(bench, {"request_id": request_id, "reason": "moved"})
        events = [await bench.event(each) for each in (delayed, scheduled, "never-published")]
        dialled = foreign.dialled(NUMBER)
        await bench.publish(bench.request(LATER) | {"request_id": "never-published"})
        again = (await bench.events("never-published", 2))[1]
        # A listener may hear of an event before the worker knows that the broker has it.
        async with asyncio.timeout(WITHIN_S):
            while not ((entry := await app.ledger.get(scheduled)) and entry.published):  # noqa: ASYNC110  # the ledger tells nobody
                await asyncio.sleep(0.01)

    assert {(event["reason"], event["description"]) for event in events} == {
        ("cancelled", "taken back: moved")
    }
    assert again.fields == events[2].fields
    assert (dialled, foreign.dialled(LATER)) == (1, 0)
    assert await bench.count(f"{bench.queue}.dlq") == 0


async def test_what_was_taken_back_while_no_worker_ran_is_not_dialled(
    bench: Bench, foreign: ForeignPortal
) -> None:
    async with bench.running(bitrix24_url=foreign.url):
        pass
    ids = [await bench.ask(f"+1202555{1000 + n}") for n in range(20)]
    for request_id in ids[:-1]:
        await cancel(bench, {"request_id": request_id})

    async with bench.running(bitrix24_url=foreign.url):
        for request_id in ids:
            await bench.event(request_id)

    assert len(foreign.asked) == 1


async def test_one_that_has_started_stays_so(bench: Bench, foreign: ForeignPortal) -> None:
    foreign.may_answer.clear()
    async with bench.running(bitrix24_url=foreign.url) as app:
        request_id = await bench.ask(NUMBER)
        await foreign.arrived.wait()
        await cancel(bench, {"request_id": request_id})
        await bench.until_count(f"{bench.queue}.cancel", 0)
        foreign.may_answer.set()
        event = await bench.event(request_id)
        entry = await app.ledger.get(request_id)

    assert event.message.type == "call.started"
    assert entry is not None
    assert (entry.state, entry.cancelled_at > 0) == ("started", True)


BAD: dict[str, bytes] = {
    "no JSON": b"cancel r-1 please",
    "no id": b'{"reason": "moved"}',
    "another type of id": b'{"request_id": 7}',
    "too large": b'{"request_id": "r-1", "reason": "' + b"x" * 70_000 + b'"}',
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
async def test_a_cancellation_without_an_id_is_answered(
    bench: Bench, foreign: ForeignPortal, body: bytes
) -> None:
    async with bench.running(bitrix24_url=foreign.url):
        await cancel(bench, body)
        event = await bench.event(None)

    assert event["reason"] == "invalid"
    assert event["description"].startswith("call.cancel: ")
    assert await bench.count(f"{bench.queue}.cancel") == 0


async def test_whatever_else_is_wrong_with_it_it_counts(
    bench: Bench, foreign: ForeignPortal
) -> None:
    async with bench.running(bitrix24_url=foreign.url):
        await cancel(bench, {"request_id": "r-1", "reason": "x" * 201, "note": 1})
        event = await bench.event("r-1")

    assert event["reason"] == "cancelled"


async def test_one_that_comes_while_the_ledger_is_down_is_noted_afterwards(
    bench: Bench, foreign: ForeignPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.ledger.recovery.RETRY_S", 0.05)
    async with bench.running(bitrix24_url=foreign.url) as app:
        take_back, failures = app.ledger.cancel, [LedgerDown("busy"), LedgerDown("busy")]

        async def failing(unseen: Any) -> Any:  # noqa: ANN401
            if failures:
                raise failures.pop()
            return await take_back(unseen)

        monkeypatch.setattr(app.ledger, "cancel", failing)
        await cancel(bench, {"request_id": "r-1"})
        event = await bench.event("r-1")

    assert (event["reason"], failures) == ("cancelled", [])


async def test_a_queue_that_was_deleted_comes_back_and_is_consumed(
    bench: Bench, foreign: ForeignPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.housekeeping.TEND_S", 0.2)
    monkeypatch.setattr("consumer.housekeeping.WATCH_S", 0.1)
    async with bench.running(bitrix24_url=foreign.url) as app:
        await bench.channel.queue_delete(app.topology.cancellations.name)
        await bench.until(lambda: not app.cancellations.consuming)
        await bench.until(lambda: app.cancellations.consuming)
        await cancel(bench, {"request_id": "r-1"})
        event = await bench.event("r-1")

    assert event["reason"] == "cancelled"

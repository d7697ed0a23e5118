"""What operators say while a worker runs, over a real broker."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from consumer.app import App
from consumer.blocks import Block

if TYPE_CHECKING:
    from tests.portals import ForeignPortal
    from tests.workbench import Bench

BLOCK = Block("b-1", "metadata", "campaign", "42", "wrong text", time.time(), "ann")


async def test_blocked_requests_do_not_wait_behind_the_calls_of_the_others(
    bench: Bench, foreign: ForeignPortal
) -> None:
    """A call every two seconds: the blocked ones would leave after minutes."""
    async with bench.running(
        bitrix24_url=foreign.url, rate_per_s=0.5, retry_delays_s=(1, 60), concurrency=5
    ) as app:
        for n in range(60):
            campaign = "42" if n % 2 else "1"
            await bench.ask(f"+1202555{1000 + n}", metadata={"campaign": campaign})
        await bench.until(lambda: not app.worker.idle)

        await app.ledger.controls.add_block(BLOCK)
        began = time.monotonic()
        await bench.until(
            lambda: sum(event.message.type == "call.failed" for event in bench.heard) >= 28
        )
        took_s = time.monotonic() - began

    blocked = [event for event in bench.heard if event.message.type == "call.failed"]
    assert {(event["reason"], event["code"]) for event in blocked} == {("blocked", "BLOCKED")}
    assert took_s < 10
    assert len(foreign.asked) < 12


async def test_a_pause_by_hand_holds_every_worker_and_outlives_it(
    bench: Bench, foreign: ForeignPortal
) -> None:
    async with bench.running(bitrix24_url=foreign.url) as app:
        await app.ledger.controls.pause("wrong text", "ann")
        request_id = await bench.ask()
        await bench.until(lambda: not app.subscription.consuming)
        parts = app.parts()
    assert all(part.ok for part in parts.values())
    assert parts["pause"].detail == "paused by ann: wrong text"

    next_one = App(bench.settings(bitrix24_url=foreign.url))
    task = asyncio.create_task(next_one.run())
    await bench.until(lambda: next_one.parts()["started"].ok)
    await bench.until(lambda: not next_one.subscription.consuming)
    assert foreign.asked == []
    await next_one.ledger.controls.resume()
    await bench.event(request_id)
    next_one.stop()
    await task

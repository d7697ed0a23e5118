"""A running worker's row in the ledger."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from consumer import heartbeat
from consumer.app import App
from consumer.ledger import Ledger, LedgerDown
from consumer.ledger.workers import WorkerRow, roles
from consumer.sandbox import SandboxPortal
from tests.workbench import WITHIN_S, Bench


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "LOOK_S", 0.02)


async def row_where(app: App, holds: Callable[[WorkerRow], bool]) -> WorkerRow:
    """Wait until the one worker's row is so."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            await asyncio.sleep(0.01)
            with suppress(LedgerDown):  # not open yet
                for row in await app.ledger.workers.running():
                    if holds(row):
                        return row


def is_calling(row: WorkerRow) -> bool:
    return row.state.phase == "calling"


def is_paused(row: WorkerRow) -> bool:
    return row.state.phase == "paused"


async def test_a_worker_tells_how_it_is_and_leaves_nothing_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.05)
    async with bench.running(rate_per_s=50) as app:
        row = await row_where(app, is_calling)
        assert (row.state.rate_per_s, row.handled_at, row.state.pauses) == (50, 0, {})
        await bench.event(await bench.ask())
        row = await row_where(app, lambda row: row.handled_at > 0)
        assert row.owner == app.owner
        assert roles([row]) == ["active"]

        await app.ledger.controls.pause("wrong texts", "ann")
        row = await row_where(app, is_paused)
        assert row.state.pauses == {"operator": "paused by ann: wrong texts"}
        await app.ledger.controls.resume()
        await row_where(app, is_calling)

    assert await rows_after(bench) == []


async def rows_after(bench: Bench) -> list[WorkerRow]:
    ledger = Ledger(bench.given["ledger_url"], bench.queue)
    await ledger.open()
    try:
        return await ledger.workers.running()
    finally:
        await ledger.close()


async def test_a_worker_whose_portal_fails_tells_when_it_asks_next(
    bench: Bench, portal: SandboxPortal
) -> None:
    portal.patch({"trouble": "OVERLOAD_LIMIT"})
    async with bench.running(pause_after=1) as app:
        await bench.ask()
        row = await row_where(app, is_paused)
        assert row.state.pauses == {
            "portal": "the circuit breaker is open for refused OVERLOAD_LIMIT"
        }
        row = await row_where(app, lambda row: row.state.probes_at is not None)
        assert row.state.probes_at == app.breaker.probes_at


async def test_a_worker_that_waits_for_its_broker_says_so(bench: Bench) -> None:
    app = App(bench.settings(rabbitmq_url="amqp://x:y@127.0.0.1:1/"))
    running = asyncio.create_task(app.run())

    row = await row_where(app, lambda row: "broker" in row.state.pauses)
    assert row.state.phase == "starting"

    app.stop()
    await running


async def test_it_is_silent_while_the_ledger_is_down(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.01)
    async with bench.running() as app:
        await row_where(app, is_calling)
        await app.ledger.close()
        capsys.readouterr()
        await asyncio.sleep(0.1)  # no event tells of what does not happen
        assert "heartbeat" not in capsys.readouterr().out
        await app.ledger.open()
        await row_where(app, is_calling)

"""What an operator says is in force on every worker once it is said, in either store."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from consumer import controls as live
from consumer.ledger import Ledger, LedgerDown
from consumer.operations import controls
from consumer.operations.controls import Target, existing_ledger
from consumer.operations.ledger_at_hand import NoLedger
from consumer.settings import Settings
from tests.fakes import placing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from consumer.sandbox import SandboxPortal
    from tests.commands import Command
    from tests.workbench import Bench

WORKS = "+12025550100"
WORKS_TOO = "+12025550101"
CAMPAIGN = Target("metadata", "campaign", "42")


@pytest.fixture(params=["a file", "PostgreSQL"])
async def shared(request: pytest.FixtureRequest, bench: Bench) -> Bench:
    """Lend a bench whose ledger, in a file or in PostgreSQL, the test may open too."""
    if request.param == "PostgreSQL":
        bench.given["ledger_url"] = request.getfixturevalue("database_url")
        async with opened(bench) as ledger:
            await ledger.begin()
    return bench


@asynccontextmanager
async def opened(bench: Bench) -> AsyncIterator[Ledger]:
    """Open the ledger of a bench as another process would."""
    ledger = Ledger(bench.given["ledger_url"], bench.queue)
    await ledger.open()
    try:
        yield ledger
    finally:
        await ledger.close()


@asynccontextmanager
async def load(bench: Bench) -> AsyncIterator[list[str]]:
    """Publish a hundred requests a second, and lend their ids so far."""
    asked: list[str] = []

    async def ask() -> None:
        while True:
            asked.append(await bench.ask())
            await asyncio.sleep(0.01)

    task = asyncio.create_task(ask())
    try:
        yield asked
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def more(bench: Bench, asked: list[str]) -> None:
    """Wait until a good many more requests have been published."""
    count = len(asked) + 50
    await bench.until(lambda: len(asked) >= count)


# Paused


async def test_paused_under_load_nobody_is_dialled_until_calls_are_resumed(
    shared: Bench, portal: SandboxPortal
) -> None:
    async with opened(shared) as ledger, load(shared) as asked:
        async with shared.running(concurrency=20) as app:
            await shared.until(lambda: len(portal.calls) >= 30)
            done = await controls.pause(ledger, "wrong text", "ann@desk")
            dialled = len(portal.calls)
            await more(shared, asked)
            await shared.until(lambda: not app.subscription.consuming)
        # A worker that comes later obeys as well.
        async with shared.running(concurrency=20) as app:
            await more(shared, asked)
            parts = app.parts()
            held = len(portal.calls)
            await ledger.controls.resume()
            await shared.until(lambda: len(portal.calls) > held)

    assert (done.begun, done.under_way, held) == (True, 0, dialled)
    assert parts["pause"].detail == "paused by ann@desk: wrong text"
    assert all(part.ok for part in parts.values())


async def test_after_the_pause_every_request_is_placed_once(
    bench: Bench, portal: SandboxPortal
) -> None:
    async with opened(bench) as ledger, bench.running(concurrency=20):
        asked = [await bench.ask() for _ in range(50)]
        await controls.pause(ledger, "wrong text", "ann@desk")
        asked += [await bench.ask() for _ in range(20)]
        await ledger.controls.resume()
        for request_id in asked:
            assert (await bench.event(request_id)).message.type == "call.started"

    assert len(portal.calls) == len(asked)


async def test_a_pause_keeps_its_reason_when_somebody_says_it_again(shared: Bench) -> None:
    async with opened(shared) as ledger:
        first = await controls.pause(ledger, "wrong text", "ann@desk")
        second = await controls.pause(ledger, "something else", "bob@desk")

    assert (first.begun, second.begun) == (True, False)
    assert second.what == first.what


async def test_it_waits_for_calls_that_were_claimed_before_and_for_no_later_ones(
    shared: Bench,
) -> None:
    async with opened(shared) as ledger:
        before = await ledger.put(placing("r-1"), None)
        assert before is not None
        saying = asyncio.create_task(controls.block(ledger, CAMPAIGN, "too early", "ann@desk"))
        await asyncio.sleep(2 * controls.COMMITTED_S)
        await ledger.put(placing("r-2"), None)
        still_waits = not saying.done()
        await ledger.put(replace(before, state="started"), before)
        done = await asyncio.wait_for(saying, 1)

    assert still_waits
    assert done.under_way == 0


async def test_a_call_without_an_answer_is_told_of_and_not_waited_for_without_end(
    shared: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controls, "IN_FORCE_WITHIN_S", 0.2)
    async with opened(shared) as ledger:
        await ledger.put(placing("r-1"), None)
        done = await controls.pause(ledger, "wrong text", "ann@desk")

    assert done.under_way == 1


# Blocks


async def test_of_what_is_blocked_under_load_nothing_is_dialled_and_the_rest_goes_on(
    shared: Bench, portal: SandboxPortal
) -> None:
    async with opened(shared) as ledger, load(shared), shared.running(concurrency=20):
        for _ in range(100):
            await shared.ask(WORKS_TOO, metadata={"campaign": "42"})
        await shared.until(lambda: bool(to(portal, WORKS_TOO)))
        done = await controls.block(ledger, CAMPAIGN, "too early", "ann@desk")
        blocked, others = to(portal, WORKS_TOO), to(portal, WORKS)
        late = await shared.ask(WORKS_TOO, metadata={"campaign": "42"})
        event = await shared.event(late)
        await shared.until(lambda: to(portal, WORKS) >= others + 20)

    assert done.under_way == 0
    assert to(portal, WORKS_TOO) == blocked
    assert (event["reason"], event["code"]) == ("blocked", "BLOCKED")
    assert event["description"].startswith(f"block {done.what.id}, by metadata: too early;")


def to(portal: SandboxPortal, number: str) -> int:
    return sum(call.to_number == number for call in portal.calls)


async def test_each_kind_of_block_stops_what_it_names_until_it_is_removed(
    shared: Bench, portal: SandboxPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "REFRESH_S", 0.05)
    targets: dict[Target, dict[str, Any]] = {
        Target("number", "", WORKS_TOO): {"number": WORKS_TOO},
        Target("line", "", "sip7"): {"from_line": "sip7"},
        CAMPAIGN: {"metadata": {"campaign": "42", "team": "a"}},
    }
    async with opened(shared) as ledger, shared.running():
        for target, fields in targets.items():
            done = await controls.block(ledger, target, "complaints", "ann@desk")
            stopped = await shared.event(await shared.ask(**fields))
            other = await shared.event(await shared.ask(metadata={"campaign": "43"}))
            assert (stopped["reason"], other.message.type) == ("blocked", "call.started")
            assert await controls.unblock(ledger, done.what.id)
            again = await shared.event(await shared.ask(**fields))
            assert again.message.type == "call.started"

    assert to(portal, WORKS_TOO) == 1


async def test_the_same_is_blocked_once_and_a_number_is_not_kept(shared: Bench) -> None:
    target = Target("number", "", WORKS)
    reason = "asked us, +1 (202) 555-0100, not to"
    async with opened(shared) as ledger:
        first = await controls.block(ledger, target, reason, "ann@desk")
        second = await controls.block(ledger, target, "again", "bob@desk")
        held = (await ledger.controls.read()).blocks

    assert (first.begun, second.begun) == (True, False)
    assert held == (first.what,) == (second.what,)
    assert "555" not in f"{first.what.value} {first.what.reason} {target!r}"
    assert first.what.reason == "asked us, ***, not to"


async def test_an_id_that_is_taken_is_not_given_again(
    shared: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda size: "7f3a" + "0" * (2 * size - 4))
    async with opened(shared) as ledger:
        first = await controls.block(ledger, CAMPAIGN, "too early", "ann@desk")
        second = await controls.block(ledger, Target("line", "", "reg1"), "old", "ann@desk")

    assert (first.what.id, second.what.id) == ("b-7f3a", "b-7f3a00")


# Where there is no ledger


@pytest.mark.parametrize("name", ["new.db", "nowhere/new.db"])
def test_a_mistyped_address_makes_no_ledger(tmp_path: Path, name: str) -> None:
    with pytest.raises(LedgerDown if "/" in name else NoLedger, match="CALLS_LEDGER_URL"):
        asyncio.run(use(f"sqlite:///{tmp_path / name}"))

    assert list(tmp_path.iterdir()) == []


async def use(ledger_url: str) -> None:
    async with existing_ledger(Settings.model_validate({"ledger_url": ledger_url})):
        pass


async def test_an_empty_database_gets_no_ledger(database_url: str) -> None:
    for _ in range(2):
        with pytest.raises(NoLedger, match="holds no ledger"):
            await use(database_url)


async def test_what_is_in_a_workers_memory_cannot_be_reached() -> None:
    with pytest.raises(NoLedger, match="name a file or a database"):
        await use("sqlite://")


# The commands, from another process


async def test_the_command_pauses_a_worker_that_is_busy_with_the_same_file(
    bench: Bench, portal: SandboxPortal, call_consumer: Callable[..., Command]
) -> None:
    only = {"ledger_url": bench.given["ledger_url"], "queue": bench.queue}
    async with load(bench) as asked, bench.running(concurrency=20):
        await bench.until(lambda: len(portal.calls) >= 30)
        command = call_consumer("pause", "--reason", "wrong text", **only)
        await bench.until(lambda: command.code is not None)
        dialled = len(portal.calls)
        await more(bench, asked)

    assert command.code == 0, command.stderr.read_text()
    assert command.stdout.read_text().endswith(": wrong text\n")
    assert command.stderr.read_text() == ""
    assert len(portal.calls) == dialled

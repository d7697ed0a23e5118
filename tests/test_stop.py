"""A worker that is told to stop ends soon, whatever has become of the broker."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from tests.links import linked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.commands import Command
    from tests.links import Link
    from tests.portals import ForeignPortal
    from tests.workbench import Bench

ENDS_WITHIN_S = 5.0
NUMBER = "+12025550101"


async def ended(command: Command) -> float:
    """Wait for the end, with exit code 0, and return the seconds it took."""
    began_at = time.monotonic()
    code = await asyncio.to_thread(command.process.wait, 30)
    assert code == 0
    assert command.log("worker.stopped")
    assert "Traceback" not in command.stderr.read_text() + command.stdout.read_text()
    return time.monotonic() - began_at


async def test_it_ends_while_the_broker_is_gone(
    bench: Bench, foreign: ForeignPortal, call_consumer: Callable[..., Command]
) -> None:
    async with linked(bench.given["rabbitmq_url"]) as link:
        command = call_consumer("run", **given(bench, foreign, link.url))
        await bench.until(lambda: bool(command.log("worker.ready")))
    await bench.until(lambda: bool(command.log("broker.lost")))

    command.terminate()

    assert await ended(command) < ENDS_WITHIN_S


def given(bench: Bench, foreign: ForeignPortal, url: str) -> dict[str, object]:
    return bench.given | {
        "rabbitmq_url": url,
        "bitrix24_url": foreign.url,
        "retry_delays_s": "1,2",
    }


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "cut and away"])
async def test_it_ends_while_idle_though_the_link_is_dead(
    bench: Bench,
    foreign: ForeignPortal,
    link: Link,
    call_consumer: Callable[..., Command],
    *,
    frozen: bool,
) -> None:
    command = call_consumer("run", **given(bench, foreign, link.url))
    await bench.until(lambda: bool(command.log("worker.ready")))
    link.flows.clear()
    if not frozen:
        link.cut()

    command.terminate()

    assert await ended(command) < ENDS_WITHIN_S


async def test_it_ends_while_a_proxy_resets_whoever_asks_for_the_broker(
    bench: Bench, foreign: ForeignPortal, link: Link, call_consumer: Callable[..., Command]
) -> None:
    command = call_consumer("run", **given(bench, foreign, link.url))
    await bench.until(lambda: bool(command.log("worker.ready")))
    link.refuses = True
    link.cut()
    await bench.until(lambda: len(command.log("broker.lost")) > 1)

    command.terminate()

    assert await ended(command) < ENDS_WITHIN_S


async def test_a_call_in_flight_is_finished_and_recorded_though_the_link_is_dead(
    bench: Bench,
    foreign: ForeignPortal,
    link: Link,
    call_consumer: Callable[..., Command],
    tmp_path: Path,
) -> None:
    foreign.may_answer.clear()
    command = call_consumer("run", **given(bench, foreign, link.url))
    await bench.until(lambda: bool(command.log("worker.ready")))
    request_id = await bench.ask(NUMBER)
    await foreign.arrived.wait()
    link.flows.clear()
    command.terminate()
    await bench.until(lambda: bool(command.log("worker.draining")))
    await asyncio.sleep(2.5)  # longer than a message may try to get through
    running = command.code is None
    foreign.may_answer.set()

    assert await ended(command) < ENDS_WITHIN_S
    assert running
    with sqlite3.connect(tmp_path / "ledger.db") as ledger:
        found = ledger.execute("SELECT request_id, state, published FROM calls")
        assert found.fetchall() == [(request_id, "started", 0)]
    link.cut()
    async with bench.running():
        assert (await bench.event(request_id)).message.type == "call.started"
    assert foreign.dialled(NUMBER) == 1


async def test_a_message_that_is_published_again_and_again_does_not_keep_it(
    bench: Bench, foreign: ForeignPortal, call_consumer: Callable[..., Command]
) -> None:
    full = f"{bench.queue}.full"
    bench.used.add(full)
    arguments: dict[str, str | int] = {"x-max-length": 0, "x-overflow": "reject-publish"}
    listener = await bench.channel.declare_queue(full, durable=True, arguments=dict(arguments))
    await listener.bind(bench.exchange, "call.started")
    command = call_consumer("run", **given(bench, foreign, bench.given["rabbitmq_url"]))
    request_id = await bench.ask(NUMBER)
    await bench.until(lambda: len(command.log("publish.failed")) > 2)

    command.terminate()

    assert await ended(command) < ENDS_WITHIN_S
    await listener.delete()
    assert await bench.count(bench.queue) == 1
    async with bench.running():
        await bench.event(request_id)


async def test_it_ends_while_it_waits_for_a_broker(
    bench: Bench, foreign: ForeignPortal, call_consumer: Callable[..., Command]
) -> None:
    command = call_consumer("run", **given(bench, foreign, "amqp://127.0.0.1:9/"))
    await bench.until(lambda: bool(command.log("worker.waiting")))

    command.terminate()

    assert await ended(command) < ENDS_WITHIN_S


async def test_it_ends_while_a_broker_that_says_nothing_is_asked(
    bench: Bench, foreign: ForeignPortal, link: Link, call_consumer: Callable[..., Command]
) -> None:
    link.flows.clear()
    command = call_consumer("run", **given(bench, foreign, link.url))
    await bench.until(lambda: bool(link.writers))

    command.terminate()

    assert await ended(command) < ENDS_WITHIN_S


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(
    bench: Bench,
    foreign: ForeignPortal,
    call_consumer: Callable[..., Command],
    number: signal.Signals,
) -> None:
    foreign.may_answer.clear()
    command = call_consumer("run", **given(bench, foreign, bench.given["rabbitmq_url"]))
    await bench.ask(NUMBER)
    await foreign.arrived.wait()
    command.process.send_signal(number)
    await bench.until(lambda: bool(command.log("worker.draining")))

    command.process.send_signal(number)

    assert await asyncio.to_thread(command.process.wait, 2) == 128 + number

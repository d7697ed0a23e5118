"""A worker may start before broker and database; what no waiting fixes ends it at once."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import pytest
from yarl import URL

from consumer.app import App
from consumer.ledger import LedgerDown, WrongLedger
from consumer.rabbitmq.losses import BrokerUnavailable, ConnectionLost
from consumer.startup import Startup
from tests.links import linked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.commands import Command
    from tests.workbench import Bench

NOBODY = "amqp://u:canary5ecret@127.0.0.1:9/"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def test_it_serves_and_waits_until_a_broker_is_there(
    bench: Bench, rabbitmq_url: str, call_consumer: Callable[..., Command]
) -> None:
    port, http_port = free_port(), free_port()
    url = URL(rabbitmq_url).with_port(port)
    settings = bench.given | {"rabbitmq_url": url, "retry_delays_s": "1,2"}
    command = call_consumer("run", **settings | {"http_port": http_port})
    await bench.until(lambda: bool(command.log("worker.waiting")))
    await asyncio.sleep(2.5)  # two tries more
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{http_port}") as http:
        alive = await http.get("/livez")
        ready = await http.get("/readyz")
    waiting = command.log("worker.waiting")

    async with linked(rabbitmq_url, port=port):
        event = await bench.event(await bench.ask())
        command.terminate()
        await bench.until(lambda: command.code is not None)

    assert alive.status_code == 200
    assert ready.status_code == 503
    assert ready.json()["broker"]["detail"].startswith("no broker yet: no broker answers at 127.0")
    assert [line["what"] for line in waiting] == ["broker"]
    assert event.message.type == "call.started"


async def test_it_waits_for_postgres(bench: Bench, database_url: str) -> None:
    port = free_port()
    url = str(URL(database_url).with_host("127.0.0.1").with_port(port))
    app = App(bench.settings(ledger_url=url))
    task = asyncio.create_task(app.run())
    await bench.until(lambda: app.parts()["ledger"].detail.startswith("no ledger yet: PostgreSQL"))

    async with linked(database_url, port=port):
        await bench.event(await bench.ask())
        app.stop()
        await task


@pytest.mark.parametrize("change", [{"user": "nobody-of-that-name"}, {"path": "/no-such-database"}])
async def test_a_database_that_lets_us_in_never_ends_it_at_once(
    bench: Bench, database_url: str, change: dict[str, str]
) -> None:
    url = URL(database_url)
    wrong = url.with_user(change["user"]) if "user" in change else url.with_path(change["path"])

    with pytest.raises(WrongLedger):
        await App(bench.settings(ledger_url=str(wrong))).run()


async def test_a_ledger_of_a_newer_version_ends_it_at_once(bench: Bench, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(WrongLedger, match="newer version"):
        await App(bench.settings()).run()


async def test_a_ledger_that_is_locked_is_waited_for(bench: Bench, tmp_path: Path) -> None:
    blocker = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    app = App(bench.settings())
    task = asyncio.create_task(app.run())
    await bench.until(lambda: "locked" in app.parts()["ledger"].detail)

    blocker.execute("ROLLBACK")
    blocker.close()

    await bench.event(await bench.ask())
    app.stop()
    await task


def test_scripts_need_not_wait(call_consumer: Callable[..., Command]) -> None:
    portal = "http://127.0.0.1:9/rest/1/canary5ecret/"
    settings = {"rabbitmq_url": NOBODY, "bitrix24_url": portal, "http_port": 0}
    command = call_consumer("run", "--wait-s", "0", **settings)

    assert command.process.wait(20) == 1
    told = command.stderr.read_text()
    assert told.startswith("Error: no broker answers at 127.0.0.1:9")
    assert "canary5ecret" not in told + command.stdout.read_text()
    assert command.log("worker.waiting") == []


async def test_the_wait_has_the_length_that_was_asked_for(bench: Bench) -> None:
    began_at = asyncio.get_running_loop().time()

    with pytest.raises(BrokerUnavailable):
        await App(bench.settings(rabbitmq_url=NOBODY)).run(wait_s=1.5)

    assert 1.5 <= asyncio.get_running_loop().time() - began_at < 5


async def test_whatever_a_step_waits_for_is_named_until_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumer.startup.RETRY_S", 0.0)
    failures: list[Exception] = [LedgerDown("locked"), ConnectionLost("lost")]
    seen: list[str] = []
    startup = Startup()

    async def step() -> None:
        seen.append(startup.waits_for[1] if startup.waits_for else "")
        if failures:
            raise failures.pop()

    await startup.take("broker", step)

    assert seen == ["", "lost", "locked"]
    assert startup.waits_for is None


async def test_it_is_ready_only_once_it_can_publish(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(bench.settings())
    may_connect = asyncio.Event()

    async def refused() -> None:
        if not may_connect.is_set():
            raise BrokerUnavailable("connection limit reached")
        monkeypatch.undo()
        await app.publisher.connect()

    monkeypatch.setattr(app.publisher, "connect", refused)
    task = asyncio.create_task(app.run())
    await bench.until(lambda: "limit" in app.parts()["publisher"].detail)
    assert not app.parts()["publisher"].ok

    may_connect.set()
    await bench.until(lambda: all(part.ok for part in app.parts().values()))
    app.stop()
    with suppress(asyncio.CancelledError):
        await task

"""`check` names what is wrong and what fixes it, and changes nothing."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import aio_pika
import pytest

from consumer import heartbeat
from consumer.ledger import Ledger
from consumer.operations import check_broker
from consumer.operations.check import check
from consumer.operations.finding import Finding
from consumer.rabbitmq.declaration import declare
from consumer.rabbitmq.topology import topology_of
from consumer.sandbox import SandboxPortal
from tests.canary import SECRET
from tests.commands import Command
from tests.workbench import WITHIN_S, Bench


async def findings(bench: Bench, **changes: object) -> dict[str, Finding]:
    settings = bench.settings(**changes)
    return {found.item: found async for found in check(settings, topology_of(settings))}


async def test_all_is_well_with_a_set_up_that_works(bench: Bench) -> None:
    found = await findings(bench, default_voice="usenglishmale")

    assert {x.state for x in found.values()} == {"ok"}
    assert set(found) >= {"broker", "ledger", "portal", "clock", "call history", "lines", "voices"}


async def test_what_the_worker_will_declare_is_not_missing(bench: Bench) -> None:
    found = await findings(bench, queue="not-there-yet")

    assert found["queue not-there-yet"].state == "ok"
    assert "declares it" in found["queue not-there-yet"].detail


async def test_what_is_missing_where_a_worker_has_run_is_wrong(bench: Bench) -> None:
    await bench.channel.queue_delete(f"{bench.queue}.delay.2s")
    await bench.channel.exchange_delete(bench.exchange)

    found = await findings(bench)

    assert found[f"queue {bench.queue}"].state == "ok"
    for item in (f"queue {bench.queue}.delay.2s", f"exchange {bench.exchange}"):
        assert found[item].state == "wrong"
        assert "does not exist" in found[item].detail
        assert "start a worker" in found[item].fix


async def test_looking_declares_nothing_and_makes_no_ledger(bench: Bench, tmp_path: Path) -> None:
    await findings(bench, queue="not-there-yet", ledger_url=f"sqlite:///{tmp_path}/new.db")

    assert not (tmp_path / "new.db").exists()
    with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
        await bench.channel.declare_queue("not-there-yet", passive=True)


BROKEN: dict[str, tuple[dict[str, object], dict[str, object], str, str]] = {
    "no broker": ({"rabbitmq_url": "amqp://x:y@127.0.0.1:1/"}, {}, "broker", "CALLS_RABBITMQ_URL"),
    "no broker set": ({"rabbitmq_url": None}, {}, "broker", "CALLS_RABBITMQ_URL"),
    "queue missing, not to be declared": (
        {"queue": "nowhere", "declare": False},
        {},
        "queue nowhere",
        "rabbitmqadmin declare queue name=nowhere",
    ),
    "no folder for the ledger": (
        {"ledger_url": "sqlite:////nowhere/at/all.db"},
        {},
        "ledger",
        "CALLS_LEDGER_URL",
    ),
    "ledger in memory": ({"ledger_url": "sqlite://"}, {}, "ledger", "CALLS_LEDGER_URL"),
    "no portal": (
        {"bitrix24_url": "http://127.0.0.1:1/rest/1/s/"},
        {},
        "portal",
        "CALLS_BITRIX24_URL",
    ),
    "no portal set": ({"bitrix24_url": None}, {}, "portal", "webhook"),
    "revoked webhook": ({}, {"secret": "changed"}, "portal", "new inbound webhook"),
    "expired plan": ({}, {"trouble": "ACCESS_DENIED plan"}, "portal", "plan"),
    "overload": ({}, {"trouble": "OVERLOAD_LIMIT"}, "portal", "support"),
    "scope call is missing": ({}, {"scopes": ["telephony"]}, "portal", "add to the webhook: call"),
    "scope telephony is missing": ({}, {"scopes": ["call"]}, "portal", "telephony"),
    "wrong clock": ({}, {"clock_offset_s": 600}, "clock", "NTP"),
    "history denied": ({}, {"history": "denied"}, "call history", "Call statistics - View"),
    "history absent": ({}, {"history": "absent"}, "call history", "Call statistics - View"),
    "lines denied": ({}, {"line_list": "denied"}, "lines", "Manage numbers - modify"),
    "default line is gone": ({"default_line": "reg404"}, {}, "lines", "CALLS_DEFAULT_LINE"),
    "no line at all": ({}, {"lines": {}}, "lines", "CALLS_DEFAULT_LINE"),
    "default voice is gone": ({"default_voice": "nobody"}, {}, "voices", "CALLS_DEFAULT_VOICE"),
}


@pytest.mark.parametrize(("settings", "switches", "item", "fix"), BROKEN.values(), ids=BROKEN)
async def test_each_thing_that_is_wrong_is_named_with_what_mends_it(
    bench: Bench,
    portal: SandboxPortal,
    settings: dict[str, object],
    switches: dict[str, object],
    item: str,
    fix: str,
) -> None:
    portal.patch(switches)

    found = (await findings(bench, **settings))[item]

    assert found.state in {"wrong", "warning"}
    assert fix in f"{found.detail} {found.fix}"


async def test_a_queue_declared_otherwise_is_named_with_its_argument(bench: Bench) -> None:
    bench.used.add("otherwise")
    await bench.channel.declare_queue("otherwise", durable=True)

    found = (await findings(bench, queue="otherwise"))["queue otherwise"]

    assert found.state == "wrong"
    assert "x-queue-type" in found.detail or "type" in found.detail
    assert "delete_queue otherwise" in found.fix


async def test_dead_letters_and_workers_are_counted(bench: Bench) -> None:
    async with bench.running():
        await bench.event(await bench.ask("+12025550120"))
        found = await findings(bench)

    assert found["workers"].detail == "1 registered, 0 requests wait"
    assert (found["dead letters"].state, found["dead letters"].detail) == ("warning", "1")
    assert "dlq stats" in found["dead letters"].fix


@pytest.mark.parametrize("where", ["requests", "delay.60s"])
async def test_requests_that_wait_where_no_worker_is_are_wrong(bench: Bench, where: str) -> None:
    bench.given["retry_delays_s"] = (60,)
    settings = bench.settings()
    await declare(settings.needed("rabbitmq_url"), topology_of(settings))
    name = bench.queue if where == "requests" else f"{bench.queue}.{where}"
    await bench.channel.default_exchange.publish(aio_pika.Message(b"{}"), name)

    found = (await findings(bench))["workers"]

    assert (found.state, found.fix) == ("wrong", "call-consumer run")
    assert "1" in found.detail
    assert found.detail.endswith("no worker runs")


async def test_requests_that_wait_for_a_paused_worker_are_not_without_one(bench: Bench) -> None:
    async with bench.running() as app:
        app.subscription.pause("test")
        await app.subscription.until_idle()
        await bench.ask()
        found = (await findings(bench))["workers"]

    assert found.state == "warning"
    # The worker may have told the ledger by now that it is paused, or not yet.
    assert "0 registered, 1 requests wait" in found.detail
    assert "no worker runs" not in found.detail


async def test_a_ledger_that_the_workers_do_not_use_is_named(bench: Bench, tmp_path: Path) -> None:
    other = Ledger(f"sqlite:///{tmp_path}/other.db", bench.queue)
    await other.open()
    await other.close()

    async with bench.running():
        same = (await findings(bench))["ledger"]
        found = (await findings(bench, ledger_url=f"sqlite:///{tmp_path}/other.db"))["ledger"]

    assert same.state == "ok"
    assert (found.state, "CALLS_LEDGER_URL" in found.fix) == ("wrong", True)


async def test_a_broker_that_is_too_old_is_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_broker, "OLDEST_BROKER", (99, 0))

    found = (await findings(bench))["broker"]

    assert (found.state, "upgrade" in found.fix) == ("wrong", True)


async def test_a_ledger_of_a_newer_version_is_named(bench: Bench, tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", "q")
    await ledger.open()
    await ledger.close()
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()

    found = (await findings(bench))["ledger"]

    assert (found.state, "newer version" in found.detail) == ("wrong", True)


async def test_the_command_exits_1_where_requests_wait_and_no_worker_is(
    bench: Bench, call_consumer: Callable[..., Command], portal_url: str
) -> None:
    await bench.ask()
    names = ("rabbitmq_url", "exchange", "queue", "retry_delays_s")
    given = {name: bench.given[name] for name in names} | {"bitrix24_url": portal_url}
    given["retry_delays_s"] = ",".join(map(str, given["retry_delays_s"]))
    command = call_consumer("check", **given)

    await bench.until(lambda: command.code is not None)

    assert command.code == 1
    assert "wrong    workers: 0 registered, 1 requests wait" in command.stdout.read_text()
    assert command.stdout.read_text().count("wrong  ") == 1


async def test_the_command_exits_1_if_something_is_wrong_and_shows_no_secret(
    bench: Bench, call_consumer: Callable[..., Command], portal: SandboxPortal, portal_url: str
) -> None:
    portal.patch({"secret": "changed"})
    command = call_consumer(
        "check", "--json", rabbitmq_url=bench.given["rabbitmq_url"], bitrix24_url=portal_url
    )

    await bench.until(lambda: command.code is not None)

    assert command.code == 1
    assert '"item": "portal", "state": "wrong"' in command.stdout.read_text()
    assert SECRET not in command.stdout.read_text() + command.stderr.read_text()


async def test_a_pause_is_said_with_its_reason(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "LOOK_S", 0.02)
    async with bench.running() as app:
        await app.ledger.controls.pause("wrong texts", "ann")
        await bench.until(lambda: not app.subscription.consuming)
        await bench.ask()
        await bench.until_count(bench.queue, 1)

        found = (await findings(bench))["workers"]

        assert found.state == "warning"
        assert found.detail.startswith("paused by ann since ")
        assert found.detail.endswith(" UTC: wrong texts; 0 registered, 1 requests wait")
        assert found.fix.startswith("call-consumer resume")

    found = (await findings(bench))["workers"]
    assert found.state == "wrong"
    assert ", and no worker runs; paused by ann since " in found.detail


async def test_a_worker_paused_for_the_portals_sake_is_said_with_its_next_probe(
    bench: Bench, portal: SandboxPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "LOOK_S", 0.02)
    portal.patch({"trouble": "OVERLOAD_LIMIT"})
    async with bench.running(pause_after=1) as app:
        await bench.ask()
        async with asyncio.timeout(WITHIN_S):
            while not any(row.state.probes_at for row in await app.ledger.workers.running()):  # noqa: ASYNC110  # the ledger tells nobody
                await asyncio.sleep(0.01)
        found = (await findings(bench))["workers"]

    assert found.state == "warning"
    assert found.detail.startswith(
        "1 of 1 paused: the circuit breaker is open for refused OVERLOAD_LIMIT; "
        "the portal is probed next at "
    )

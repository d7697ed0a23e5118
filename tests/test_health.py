"""/livez, /readyz and /metrics, seen over HTTP from a running worker."""

import asyncio
import errno
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from consumer import housekeeping, metrics
from consumer.app import App
from consumer.bitrix24.known_words import code_label
from consumer.health import EVERYWHERE, LOOPBACK, listen, serve
from consumer.housekeeping import NoConsumer
from consumer.messages import STARTED
from consumer.sandbox import SandboxPortal
from consumer.shutdown import end
from tests.canary import SECRET
from tests.links import Link
from tests.workbench import Bench


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
async def http(port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


async def ready(http: httpx.AsyncClient) -> tuple[int, dict[str, Any]]:
    answer = await http.get("/readyz")
    return answer.status_code, answer.json()


async def until_status(http: httpx.AsyncClient, bench: Bench, status: int) -> dict[str, Any]:
    """Wait until `/readyz` answers with *status*."""
    seen: list[tuple[int, dict[str, Any]]] = []

    async def look() -> None:
        with suppress(httpx.ConnectError):  # it serves a moment after it consumes
            seen.append(await ready(http))

    for _ in range(500):
        await look()
        if seen and seen[-1][0] == status:
            return seen[-1][1]
        await bench.channel.declare_queue(bench.queue, passive=True)  # one round trip
    raise AssertionError(seen[-1:])


async def test_a_running_worker_is_alive_and_ready(
    bench: Bench, port: int, http: httpx.AsyncClient
) -> None:
    async with bench.running(http_port=port):
        detail = await until_status(http, bench, 200)
        alive = await http.get("/livez")

    assert set(detail) == {
        "status",
        "started",
        "broker",
        "publisher",
        "ledger",
        "pause",
        "policies",
    }
    assert alive.json() == {"status": "alive"}


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
async def test_it_is_seen_over_both_families(bench: Bench, port: int, address: str) -> None:
    async with bench.running(http_port=port), httpx.AsyncClient() as client:
        await bench.until(lambda: not health_is_free(port))
        alive = await client.get(f"http://{address}:{port}/livez")

    assert alive.json() == {"status": "alive"}


def health_is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


FAMILIES = [
    pytest.param(socket.AF_INET, "::", id="no IPv4"),
    pytest.param(socket.AF_INET6, "0.0.0.0", id="no IPv6"),
]


@pytest.mark.parametrize(("family", "address"), FAMILIES)
@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_a_machine_without_one_of_the_families_listens_over_the_other(
    family: int, address: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = socket.create_server

    def create_server(place: tuple[str, int], *, family: int) -> socket.socket:
        if family == without:
            raise OSError(number, "it is not here")
        return create(place, family=family)

    without = family
    monkeypatch.setattr(socket, "create_server", create_server)
    (listener,) = listen(EVERYWHERE, 0)
    with listener:
        assert listener.getsockname()[0] == address


def test_both_families_share_one_port() -> None:
    listeners = listen(LOOPBACK, 0)
    names = [listener.getsockname() for listener in listeners]
    for listener in listeners:
        listener.close()

    assert [name[0] for name in names] == ["127.0.0.1", "::1"]
    assert names[0][1] == names[1][1]


def test_a_host_of_other_machines_cannot_be_listened_at() -> None:
    with pytest.raises(OSError, match="assign requested address"):
        listen(["192.0.2.1"], 0)


async def test_a_lost_link_is_seen_and_so_is_its_return(
    bench: Bench, port: int, http: httpx.AsyncClient, link: Link
) -> None:
    async with bench.running(http_port=port, rabbitmq_url=link.url):
        await until_status(http, bench, 200)
        link.cut()
        lost = await until_status(http, bench, 503)
        await until_status(http, bench, 200)

    assert lost["broker"] == {"ok": False, "detail": "no consumer"}


async def test_a_ledger_that_cannot_be_written_is_not_ready_and_nothing_is_dialled(
    bench: Bench, port: int, http: httpx.AsyncClient, portal: SandboxPortal, tmp_path: Path
) -> None:
    async with bench.running(http_port=port):
        blocker = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        request_id = await bench.ask()
        down = await until_status(http, bench, 503)
        dialled = len(portal.calls)
        blocker.execute("ROLLBACK")
        blocker.close()
        event = await bench.event(request_id)
        await until_status(http, bench, 200)

    assert down["ledger"] == {"ok": False, "detail": "down"}
    assert dialled == 0
    assert event.message.type == "call.started"


async def test_while_nothing_can_be_published_no_more_is_taken(
    bench: Bench, port: int, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "STUCK_PUBLISHING_S", 0.5)
    full: dict[str, Any] = {"x-max-length": 0, "x-overflow": "reject-publish"}
    listener = await bench.channel.declare_queue(f"{bench.queue}.full", arguments=full)
    bench.used.add(listener.name)
    await listener.bind(bench.exchange, STARTED)

    async with bench.running(http_port=port) as app:
        request_id = await bench.ask()
        await bench.until(
            lambda: app.subscription.paused_by == {"publishing"} and not app.subscription.consuming
        )
        stuck = await until_status(http, bench, 503)
        await listener.delete()
        await bench.event(request_id)
        await until_status(http, bench, 200)
        assert app.subscription.paused_by == set()

    assert stuck["publisher"] == {"ok": False, "detail": "nothing is confirmed"}
    assert stuck["broker"] == {"ok": False, "detail": "paused: publishing"}


async def test_without_a_consumer_for_too_long_it_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "LONGEST_IDLE_S", 1.0)
    app = App(bench.settings())
    running = asyncio.create_task(app.run())
    await bench.until(lambda: app.subscription.consuming)

    assert app.subscription.connection is not None
    await app.subscription.connection.close()  # the client library does not come back from that

    with pytest.raises(NoConsumer):
        await running


async def test_whether_it_consumes_is_measured_without_being_asked(bench: Bench) -> None:
    def consuming() -> float | None:
        return metrics.REGISTRY.get_sample_value("call_consumer_consuming")

    metrics.CONSUMING.set(0)
    async with bench.running():
        await bench.until(lambda: consuming() == 1)


async def test_a_taken_port_costs_nothing_but_a_log_line(bench: Bench, port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", port))
        taken.listen()

        async with bench.running(http_port=port):
            event = await bench.event(await bench.ask())

    assert event.message.type == "call.started"


async def test_once_it_has_ended_its_sockets_numbers_are_good_for_other_connections(
    port: int, http: httpx.AsyncClient
) -> None:
    serving = asyncio.create_task(serve(port, dict))
    await asyncio.sleep(0)  # it listens
    assert (await http.get("/livez")).status_code == 200

    await end([serving])

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", port), AsyncExitStack() as opened:
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            opened.callback(writer.close)
            assert await asyncio.wait_for(reader.readexactly(5), 5) == b"hello"


async def test_the_metrics_count_what_happened_and_name_nobody(
    bench: Bench, port: int, http: httpx.AsyncClient
) -> None:
    def count(name: str, **labels: str) -> float:
        return metrics.REGISTRY.get_sample_value(f"call_consumer_{name}", labels) or 0.0

    placed = count("calls_total", outcome="placed", code="")
    refused = count("dead_letters_total", reason="refused")
    async with bench.running(http_port=port):
        await bench.event(await bench.ask("+12025550107", text_to_pronounce="canary text"))
        await bench.event(await bench.ask("+12025550120"))
        text = (await http.get("/metrics")).text

    assert count("calls_total", outcome="placed", code="") == placed + 1
    assert count("dead_letters_total", reason="refused") == refused + 1
    assert {family.name for family in text_string_to_metric_families(text)} >= {
        "call_consumer_calls",
        "call_consumer_paused",
        "call_consumer_ledger_seconds",
    }
    for secret in ("2025550107", "canary", SECRET):
        assert secret not in text


@pytest.mark.parametrize("code", ["ANYTHING_NEW", "HTTP_5021", "x" * 200])
def test_a_code_that_nobody_knows_makes_no_label(code: str) -> None:
    assert code_label(code) == "other"


@pytest.mark.parametrize("code", ["expired_token", "HTTP_502", "READ_TIMEOUT", "CONNECT_ERROR"])
def test_a_code_that_is_known_is_its_own_label(code: str) -> None:
    assert code_label(code) == code.upper()

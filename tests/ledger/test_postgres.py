"""What only the PostgreSQL ledger does; what every ledger does is in test_ledger."""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest
from yarl import URL

from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.ledger import postgres as store
from consumer.ledger.store import MIGRATIONS
from consumer.operations.check import check
from consumer.operations.finding import Finding
from consumer.rabbitmq.topology import topology_of
from consumer.sandbox import SandboxPortal
from tests.certificates import Authority
from tests.links import Link
from tests.workbench import Bench

QUEUE = "call.requested"


def entry(request_id: str = "r-1", **changes: object) -> Entry:
    known: dict[str, object] = {
        "state": "placing",
        "attempt": 1,
        "replay": 0,
        "owner": "this life",
        "first_seen_at": 1.0,
        "changed_at": 1.0,
        "body_digest": "digest",
    }
    return Entry(**{"request_id": request_id} | known | changes)  # type: ignore[arg-type]


@asynccontextmanager
async def opened(url: str, at_once: int = 2) -> AsyncIterator[Ledger]:
    ledger = Ledger(url, QUEUE, at_once)
    await ledger.open()
    yield ledger
    await ledger.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a server for down sooner than in earnest."""
    monkeypatch.setattr(store, "ANSWER_WITHIN_S", 0.5)


async def test_a_cut_link_is_made_anew(database_link: Link) -> None:
    async with opened(database_link.url) as ledger:
        written = await ledger.put(entry(), None)
        database_link.cut()
        try:
            found = await ledger.get("r-1")
        except LedgerDown:  # the reset had not arrived
            found = await ledger.get("r-1")

        assert found == written


@pytest.mark.usefixtures("impatient")
async def test_a_silent_server_is_down_in_time_and_then_goes_on(database_link: Link) -> None:
    async with opened(database_link.url) as ledger:
        database_link.flows.clear()
        async with asyncio.timeout(3):
            with pytest.raises(LedgerDown, match="PostgreSQL: TimeoutError"):
                await ledger.put(entry(), None)
            with pytest.raises(LedgerDown):
                await ledger.check_writable()
        database_link.flows.set()
        database_link.cut()
        await ledger.check_writable()

        assert await ledger.put(entry(), None) == entry(version=1)


@pytest.mark.usefixtures("impatient")
async def test_a_silent_server_does_not_hold_up_the_end(database_link: Link) -> None:
    async with asyncio.timeout(5), opened(database_link.url):
        database_link.flows.clear()


async def test_what_cannot_be_reached_is_down_and_no_password_is_told(database_url: str) -> None:
    url = URL(database_url)
    wrong = {
        "no server": url.with_port(1).with_password("hush-hush"),
        "wrong password": url.with_password("hush-hush"),
        "no such database": url.with_path("nowhere"),
    }
    for name, address in wrong.items():
        with pytest.raises(LedgerDown, match="PostgreSQL: ") as caught:
            await Ledger(str(address), QUEUE).open()

        assert "hush-hush" not in str(caught.value), name


@asynccontextmanager
async def encrypted(url: str, tls: ssl.SSLContext) -> AsyncIterator[str]:
    """Put TLS in front of the server at *url*, begun as PostgreSQL has it."""
    plain = Link(URL(url))
    plain.flows.set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.readexactly(8)  # SSLRequest
            writer.write(b"S")
            await writer.start_tls(tls)
            await plain.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1")
    async with server:
        yield str(URL(url).with_host("127.0.0.1").with_port(server.sockets[0].getsockname()[1]))
    plain.cut()
    await asyncio.gather(*plain.tasks)


async def test_a_certificate_counts_only_if_it_is_trusted(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, others = Authority(tmp_path), Authority(tmp_path / "others")
    async with encrypted(database_url, authority.server("IP:127.0.0.1")) as url:
        verified = f"{url}?sslmode=verify-full"
        monkeypatch.setenv("SSL_CERT_FILE", str(others.file))
        with pytest.raises(LedgerDown, match=r"certificate is not trusted: .*SSL_CERT_FILE"):
            await Ledger(verified, QUEUE).open()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        async with opened(verified) as ledger:
            await ledger.check_writable()
        with pytest.raises(LedgerDown, match="its certificate is not trusted"):
            await Ledger(f"{verified}&sslrootcert={others.file}", QUEUE).open()


async def test_an_address_that_cannot_be_read_is_down() -> None:
    with pytest.raises(LedgerDown, match="PostgreSQL: CALLS_LEDGER_URL is no address") as caught:
        await Ledger("postgresql://u:hush-hush/word@host/x", QUEUE).open()

    assert "hush-hush" not in str(caught.value)


async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "consumer.ledger.postgres", None)

    with pytest.raises(LedgerDown, match=r"pip install '\.\[postgres\]'"):
        Ledger("postgresql://host/database", QUEUE)


async def test_many_may_make_it_at_the_same_moment(database_url: str) -> None:
    ledgers = [Ledger(database_url, QUEUE) for _ in range(6)]

    await asyncio.gather(*(ledger.open() for ledger in ledgers))

    assert len({ledger.digest("x") for ledger in ledgers}) == 1
    assert not any([await ledger.has_begun() for ledger in ledgers])
    for ledger in ledgers:
        await ledger.close()


async def test_a_database_of_a_newer_version_is_left_alone(database_url: str) -> None:
    async with opened(database_url):
        connection = await asyncpg.connect(database_url)
        await connection.execute("UPDATE call_consumer.migrations SET done = 99")
        await connection.close()

    newer = Ledger(database_url, QUEUE)
    with pytest.raises(LedgerDown, match=r"newer version \(schema 99\)"):
        await newer.open()
    await newer.close()


async def test_other_tables_of_the_database_are_left_alone(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("CREATE TABLE calls (mine TEXT); CREATE TABLE about (mine TEXT)")

    async with opened(database_url) as ledger:
        await ledger.put(entry(), None)

    assert await connection.fetch("SELECT * FROM public.calls, public.about") == []
    await connection.close()


async def test_no_more_connections_than_it_may_have(database_url: str) -> None:
    async with opened(database_url, at_once=3) as ledger:
        await asyncio.gather(*(ledger.put(entry(f"r-{n}"), None) for n in range(60)))
        connection = await asyncpg.connect(database_url)
        used = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'call-consumer' AND datname = current_database()"
        )
        await connection.close()

    assert 1 < used <= 3


async def test_of_two_that_adopt_one_call_at_once_one_does(database_url: str) -> None:
    other = await asyncpg.connect(database_url)
    async with opened(database_url) as ledger:
        await ledger.put(entry("r-1"), None)
        was = await ledger.put(entry("r-2"), None)
        transaction = other.transaction()
        await transaction.start()
        await other.execute(
            "UPDATE call_consumer.calls SET call_id = 'c1', confirmed_by = 'history'"
            " WHERE request_id = 'r-1'"
        )
        found = entry("r-2", state="started", call_id="c1", confirmed_by="history")
        adopting = asyncio.create_task(ledger.put(found, was))
        while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            assert not adopting.done()
        await transaction.commit()

        assert await adopting is None
        assert await ledger.get("r-2") == was
    await other.close()


async def test_a_character_that_it_cannot_keep_is_left_out(database_url: str) -> None:
    async with opened(database_url) as ledger:
        await ledger.put(entry(line="reg\0 1"), None)
        kept = await ledger.get("r-1")

    assert kept is not None
    assert kept.line == "reg 1"


# --- a worker


async def test_a_worker_waits_for_it_and_then_dials_once(
    bench: Bench, portal: SandboxPortal, database_link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.running(ledger_url=database_link.url) as app:
        await bench.event(await bench.ask())
        monkeypatch.setattr(store, "ANSWER_WITHIN_S", 0.3)
        database_link.flows.clear()
        asked = [await bench.ask() for _ in range(3)]
        await bench.until(lambda: "ledger" in app.subscription.paused_by)
        assert len(portal.calls) == 1
        database_link.flows.set()
        database_link.cut()
        for request_id in asked:
            assert (await bench.event(request_id)).message.type == "call.started"

    assert len(portal.calls) == 4


async def test_a_claim_whose_confirmation_was_lost_is_no_doubt(
    bench: Bench, portal: SandboxPortal, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.running(ledger_url=database_url) as app:
        put, lost = app.ledger.put, asyncio.Event()

        async def lose_the_first(new: Entry, was: Entry | None) -> Entry | None:
            written = await put(new, was)
            if not lost.is_set():
                lost.set()
                raise LedgerDown("written, but the answer was lost")
            return written

        monkeypatch.setattr(app.ledger, "put", lose_the_first)
        event = await bench.event(await bench.ask())

    assert (event.message.type, event["confirmed_by"]) == ("call.started", "answer")
    assert lost.is_set()
    assert len(portal.calls) == 1


async def test_the_standby_knows_what_the_active_one_did(
    bench: Bench, portal: SandboxPortal, database_url: str
) -> None:
    request = bench.request()
    async with bench.running(ledger_url=database_url) as active:
        await bench.publish(request)
        before = await bench.event(str(request["request_id"]))
        async with bench.running(ledger_url=database_url):
            active.stop()
            await bench.publish(request)
            again = (await bench.events(str(request["request_id"]), 2))[1]
            await bench.event(await bench.ask())

    assert again["event_id"] == before["event_id"]
    assert len(portal.calls) == 2


async def finding(bench: Bench, url: str) -> Finding:
    settings = bench.settings(ledger_url=url)
    found = {x.item: x async for x in check(settings, topology_of(settings))}
    return found["ledger"]


async def test_check_says_how_it_is_and_makes_nothing(bench: Bench, database_url: str) -> None:
    before = await finding(bench, database_url)
    still = await finding(bench, database_url)
    async with opened(database_url):
        pass
    after = await finding(bench, database_url)
    wrong = await finding(bench, str(URL(database_url).with_path("nowhere")))

    assert before == still
    assert (before.state, "makes it" in before.detail) == ("ok", True)
    assert (after.state, after.detail) == ("ok", "PostgreSQL is writable")
    assert (wrong.state, "CALLS_LEDGER_URL" in wrong.fix) == ("wrong", True)


async def test_a_migration_may_take_longer_than_any_question(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ANSWER_WITHIN_S", 0.4)
    slow = (*MIGRATIONS, "SELECT pg_sleep(0.8)")
    for module in ("postgres", "store"):
        monkeypatch.setattr(f"consumer.ledger.{module}.MIGRATIONS", slow)
    ledger = Ledger(database_url, QUEUE)

    await ledger.open()

    with pytest.raises(LedgerDown):
        await ledger._store.fetch("SELECT pg_sleep(0.8)")  # noqa: SLF001  # any other statement
    await ledger.close()

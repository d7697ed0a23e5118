"""Brokers that cannot be used, and queues that are not as they must be: one clear line each."""

from __future__ import annotations

import asyncio
import errno
import re
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aio_pika
import aiormq
import pytest
from structlog.testing import capture_logs
from yarl import URL

from consumer.rabbitmq import connection as broker
from consumer.rabbitmq.connection import (
    PlainConnection,
    address_of,
    addresses_of,
    connect,
    plain_channel,
)
from consumer.rabbitmq.declaration import NodeDown, WrongTopology, declare, explained
from consumer.rabbitmq.losses import BrokerUnavailable, LossLog, link_losses, why_lost
from consumer.rabbitmq.refusals import LoginRefused
from consumer.rabbitmq.topology import build_topology
from tests.certificates import Authority
from tests.links import linked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from consumer.demo.private_node import PrivateNode
    from tests.commands import Command
    from tests.workbench import Bench

PORTAL = "http://127.0.0.1:9/rest/1/canary5ecret/"
WRONG_PASSWORD = "canary5ecret"


def test_an_address_gets_a_name_and_a_heartbeat() -> None:
    address = address_of("amqp://u:p@host/vhost", "worker")

    assert address.query == {"name": "call-consumer worker", "heartbeat": "10"}
    assert address_of("amqp://u:p@host/?heartbeat=3", "x").query["heartbeat"] == "3"


async def test_a_connection_is_open_and_has_a_name(rabbitmq_url: str) -> None:
    async with await connect(rabbitmq_url, "test") as connection:
        channel = await connection.channel()

        assert not channel.is_closed


HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
NO_TLS = r"\(it answers without TLS; write amqp://, or its port for TLS\): "
HANGS_UP = r"\(it closed the connection at our first words; if it wants TLS write amqps://\): "
NO_BROKERS: dict[str, tuple[str, bytes, str]] = {
    "says nothing": ("amqp", b"", rf"no broker answers at ADDRESS {HANGS_UP}"),
    "a web server": ("amqp", HTTP, rf"no broker answers at ADDRESS {HANGS_UP}"),
    "a port for TLS": ("amqp", bytes.fromhex("15030300020246"), f"no broker .*{HANGS_UP}"),
    "AMQP 1.0 only": ("amqp", b"AMQP\0\1\0\0", "what answers at ADDRESS is no RabbitMQ: "),
    "a web server, over TLS": ("amqps", HTTP, f"no broker answers at ADDRESS {NO_TLS}"),
    "AMQP, over TLS": ("amqps", b"AMQP\0\0\x09\1", f"no broker answers at ADDRESS {NO_TLS}"),
}


@pytest.mark.parametrize(("scheme", "word", "told"), NO_BROKERS.values(), ids=NO_BROKERS)
async def test_what_is_no_broker_is_told_apart(scheme: str, word: bytes, told: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(word)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        with pytest.raises(BrokerUnavailable, match=told.replace("ADDRESS", address)):
            await connect(f"{scheme}://u:{WRONG_PASSWORD}@{address}/", "test")


UNREACHABLE: dict[str, tuple[str, str]] = {
    "refused": ("amqp://u:p@127.0.0.1:9/", r"127.0.0.1:9 \(connection refused\): "),
    "both families refused": ("amqp://u:p@localhost:9/", r"localhost:9 \(connection refused\): "),
    "IPv6": ("amqp://u:p@[::1]:9/", r"\[::1\]:9 \(connection refused\): "),
    "no such name": (
        "amqps://u:p@no-such-host.invalid/",
        r"no-such-host.invalid:5671 \(its name cannot be resolved",
    ),
    "several": (
        "amqp://u:p@127.0.0.1:9/,amqp://u:p@127.0.0.1:7/",
        r"127.0.0.1:9 \(connection refused\): .*; no broker answers at 127.0.0.1:7 ",
    ),
}


@pytest.mark.parametrize(("url", "told"), UNREACHABLE.values(), ids=UNREACHABLE)
async def test_why_nobody_can_be_reached_is_said(url: str, told: str) -> None:
    with pytest.raises(BrokerUnavailable, match=f"no broker answers at {told}") as caught:
        await connect(url, "test")

    assert not isinstance(caught.value, LoginRefused)


async def test_a_connection_that_could_not_be_opened_is_not_left_to_the_garbage_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[PlainConnection] = []
    initialise = PlainConnection.__init__

    def watched(self: PlainConnection, *given: Any, **named: Any) -> None:  # noqa: ANN401
        initialise(self, *given, **named)
        made.append(self)

    monkeypatch.setattr(PlainConnection, "__init__", watched)
    with pytest.raises(BrokerUnavailable):
        await connect("amqp://u:p@127.0.0.1:1/", "test")

    assert [each.is_closed for each in made] == [True]


async def test_a_broker_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "CONNECT_TIMEOUT_S", 0.2)
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1")
    async with server:
        with pytest.raises(BrokerUnavailable, match="no answer in time"):
            await connect(f"amqp://u:p@127.0.0.1:{server.sockets[0].getsockname()[1]}/", "test")

    assert asked.is_set()


async def test_a_certificate_counts_only_if_it_is_trusted_and_the_hosts_own(
    rabbitmq_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    async with linked(rabbitmq_url, authority.server("IP:127.0.0.1")) as link:
        url = str(URL(link.url).with_scheme("amqps"))
        with pytest.raises(
            BrokerUnavailable, match=r"its certificate is not trusted: .*SSL_CERT_FILE"
        ):
            await connect(url, "test")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        async with await connect(url, "test") as connection:
            assert not connection.is_closed
        with pytest.raises(
            BrokerUnavailable, match="its certificate is for another host name: Hostname"
        ):
            await connect(str(URL(url).with_host("localhost")), "test")


LOSSES: dict[str, tuple[BaseException, str]] = {
    "the broker stops": (
        aiormq.exceptions.ConnectionClosed(320, "CONNECTION_FORCED - broker forced closure"),
        "CONNECTION_FORCED - broker forced closure",
    ),
    "a queue is gone": (
        aiormq.exceptions.ChannelNotFoundEntity("NOT_FOUND - no queue 'q' in vhost '/'"),
        "NOT_FOUND - no queue 'q' in vhost '/'",
    ),
    "the network": (ConnectionResetError(errno.ECONNRESET, "x"), "connection reset by peer"),
}


@pytest.mark.parametrize(("error", "why"), LOSSES.values(), ids=LOSSES)
def test_why_a_link_was_lost_is_said_in_the_brokers_words(error: BaseException, why: str) -> None:
    assert why_lost(error) == why


# Several brokers


async def test_the_next_broker_is_tried_where_one_does_not_answer(rabbitmq_url: str) -> None:
    urls = f"amqp://u:{WRONG_PASSWORD}@127.0.0.1:9/,{rabbitmq_url}"
    for _ in range(2):
        async with await connect(urls, "test") as connection:
            assert connection.url.port == URL(rabbitmq_url).port
    assert addresses_of(urls).first == rabbitmq_url  # whoever comes next goes there at once


async def test_the_next_broker_is_tried_where_one_refuses_the_login(rabbitmq_url: str) -> None:
    refuses = str(URL(rabbitmq_url).with_password(WRONG_PASSWORD))
    async with await connect(f"{refuses},{rabbitmq_url}", "test") as connection:
        assert not connection.is_closed


async def test_only_if_all_brokers_refuse_the_login_is_it_of_no_use_to_try_again(
    rabbitmq_url: str,
) -> None:
    refuses = str(URL(rabbitmq_url).with_password(WRONG_PASSWORD))
    with pytest.raises(LoginRefused):
        await connect(f"{refuses},{refuses}", "test")
    with pytest.raises(BrokerUnavailable) as caught:
        await connect(f"{refuses},amqp://u:p@127.0.0.1:9/", "test")

    assert not isinstance(caught.value, LoginRefused)


async def test_who_gives_up_on_a_silent_broker_asks_the_next_one_first() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1")
    urls = f"amqp://u:p@127.0.0.1:{server.sockets[0].getsockname()[1]}/,amqp://u:p@127.0.0.1:9/"
    async with server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connect(urls, "test")

    assert addresses_of(urls).first == "amqp://u:p@127.0.0.1:9/"


async def test_the_worker_goes_on_with_another_broker_after_a_loss(bench: Bench) -> None:
    url = bench.given["rabbitmq_url"]
    async with AsyncExitStack() as stack, linked(url) as other:
        first = await stack.enter_async_context(linked(url))
        urls = f"amqp://u:p@127.0.0.1:9/,{first.url},{other.url}"
        async with bench.running(rabbitmq_url=urls):
            await bench.event(await bench.ask())
            assert not other.used
            await stack.aclose()  # the first is gone, and nobody listens there any more
            event = await bench.event(await bench.ask())

    assert event.message.type == "call.started"
    assert other.used


async def test_who_is_cancelled_while_connecting_is_cancelled(rabbitmq_url: str) -> None:
    connecting = asyncio.create_task(connect(rabbitmq_url, "test"))
    await asyncio.sleep(0)
    connecting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await connecting


@pytest.mark.parametrize("thrown", [Exception(), asyncio.CancelledError()], ids=repr)
async def test_what_aiormq_throws_into_a_call_over_a_lost_link_gets_a_name(
    thrown: BaseException,
) -> None:
    with pytest.raises(BrokerUnavailable, match="the link to the broker broke"), link_losses():
        raise thrown


def test_other_errors_are_no_lost_link() -> None:
    with pytest.raises(ValueError, match="ours"), link_losses():
        raise ValueError("ours")


async def test_who_is_cancelled_during_a_call_over_the_link_is_cancelled() -> None:
    async def call() -> None:
        with link_losses():
            await asyncio.Event().wait()

    calling = asyncio.create_task(call())
    await asyncio.sleep(0)
    calling.cancel()

    with pytest.raises(asyncio.CancelledError):
        await calling


# What a real broker refuses, in its own words

REFUSALS: dict[str, tuple[dict[str, str], type[BrokerUnavailable], str]] = {
    "wrong password": (
        {"password": WRONG_PASSWORD},
        LoginRefused,
        r"the user or the password \(ACCESS_REFUSED - .*\): fix CALLS_RABBITMQ_URL",
    ),
    "no such virtual host": (
        {"path": "/no-such"},
        LoginRefused,
        "NOT_ALLOWED - vhost no-such not found: make the virtual host, or name another",
    ),
    "virtual host of others": (
        {"path": "/theirs"},
        LoginRefused,
        "NOT_ALLOWED - access to vhost 'theirs' refused for user 'guest': give the user",
    ),
    "virtual host is full": (
        {"path": "/full"},
        BrokerUnavailable,
        r"'full' refused .*: connection limit \(0\) is reached: raise that limit",
    ),
    "user is full": (
        {"user": "many", "password": "many"},
        BrokerUnavailable,
        r"user 'many': user connection limit \(0\) is reached: raise that limit",
    ),
}


@pytest.fixture(scope="module")
def guarded_url(node: PrivateNode) -> str:
    """Lend a broker with limits, and a user who may declare nothing."""
    node.ctl(
        "eval",
        'rabbit_vhost:add(<<"theirs">>, <<"t">>), rabbit_vhost:add(<<"full">>, <<"t">>),'
        "rabbit_auth_backend_internal:set_permissions("
        '<<"guest">>, <<"full">>, <<".*">>, <<".*">>, <<".*">>, <<"t">>),'
        'rabbit_vhost_limit:set(<<"full">>, [{<<"max-connections">>, 0}], <<"t">>),'
        'rabbit_auth_backend_internal:add_user(<<"many">>, <<"many">>, <<"t">>),'
        "rabbit_auth_backend_internal:set_user_limits("
        '<<"many">>, #{<<"max-connections">> => 0}, <<"t">>),'
        'rabbit_auth_backend_internal:add_user(<<"poor">>, <<"poor">>, <<"t">>),'
        "rabbit_auth_backend_internal:set_permissions("
        '<<"poor">>, <<"/">>, <<"^nothing$">>, <<".*">>, <<".*">>, <<"t">>).',
    )
    return node.url


@pytest.mark.parametrize(("change", "kind", "told"), REFUSALS.values(), ids=REFUSALS)
async def test_the_brokers_own_words_are_passed_on(
    guarded_url: str, change: dict[str, str], kind: type[BrokerUnavailable], told: str
) -> None:
    url = URL(guarded_url)
    for part, value in change.items():
        url = getattr(url, f"with_{part}")(value)

    with pytest.raises(
        BrokerUnavailable, match=f"the broker at 127.0.0.1:{url.port} refuses.*{told}"
    ) as no:
        await connect(str(url), "test")

    assert type(no.value) is kind
    assert WRONG_PASSWORD not in str(no.value)


@pytest.fixture
async def channel(rabbitmq_url: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    async with await aio_pika.connect(rabbitmq_url) as connection:
        yield await connection.channel()


@pytest.fixture
async def name(channel: aio_pika.abc.AbstractChannel) -> AsyncIterator[str]:
    """Lend a name for queue and exchange, and delete what was made under it."""
    name = f"test-{uuid4().hex[:12]}"
    yield name
    for queue in (name, f"{name}.dlq", f"{name}.delay.1s"):
        await channel.queue_delete(queue)
    await channel.exchange_delete(name)


async def test_declaring_twice_is_the_same_as_once(rabbitmq_url: str, name: str) -> None:
    topology = build_topology(name, name, [1])

    await declare(rabbitmq_url, topology)
    await declare(rabbitmq_url, topology)
    await declare(rabbitmq_url, topology, check_only=True)


async def test_a_queue_declared_otherwise_is_named_with_the_argument(
    rabbitmq_url: str, name: str, channel: aio_pika.abc.AbstractChannel
) -> None:
    await channel.declare_queue(
        f"{name}.delay.1s",
        durable=True,
        arguments={"x-queue-type": "quorum", "x-message-ttl": 7000},
    )

    with pytest.raises(WrongTopology) as caught:
        await declare(rabbitmq_url, build_topology(name, name, [1]))

    assert re.match(
        rf"queue {name}\.delay\.1s exists with another x-\S+: needed .+, found .+; "
        r"empty and delete it, or name another with CALLS_QUEUE",
        str(caught.value),
    )


async def test_an_exchange_of_another_type_is_named(
    rabbitmq_url: str, name: str, channel: aio_pika.abc.AbstractChannel
) -> None:
    await channel.declare_exchange(name, aio_pika.ExchangeType.FANOUT, durable=True)

    with pytest.raises(WrongTopology, match=f"exchange {name} exists with another type"):
        await declare(rabbitmq_url, build_topology(name, name, [1]))


async def test_what_is_missing_is_named_when_nothing_may_be_declared(
    rabbitmq_url: str, name: str
) -> None:
    with pytest.raises(WrongTopology, match=rf"queue {name}\.dlq does not exist: declare it"):
        await declare(rabbitmq_url, build_topology(name, name, [1]), check_only=True)


# The same as an operator sees it


def run(call_consumer: Callable[..., Command], **settings: object) -> tuple[int, str]:
    """Run a worker that cannot start; return its exit code and what it told."""
    command = call_consumer("run", bitrix24_url=PORTAL, http_port=0, **settings)
    code = command.process.wait(20)
    told = command.stderr.read_text()
    everything = told + command.stdout.read_text()
    assert "Traceback" not in everything
    assert "canary5ecret" not in everything
    return code, told


def test_run_says_in_one_line_that_the_password_is_wrong(
    rabbitmq_url: str, call_consumer: Callable[..., Command]
) -> None:
    url = URL(rabbitmq_url).with_password(WRONG_PASSWORD)
    code, told = run(call_consumer, rabbitmq_url=url)

    assert code == 1
    assert told == (
        f"Error: the broker at {url.host}:{url.port} refuses the user or the password"
        " (ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN."
        " For details see the broker logfile): fix CALLS_RABBITMQ_URL\n"
    )


def test_run_says_in_one_line_that_the_virtual_host_is_wrong(
    rabbitmq_url: str, call_consumer: Callable[..., Command]
) -> None:
    code, told = run(call_consumer, rabbitmq_url=URL(rabbitmq_url).with_path("/no-such-vhost"))

    assert code == 1
    assert re.fullmatch(
        r"Error: the broker at \S+ refuses the connection: .* not found: .*\n", told
    )


async def test_run_says_in_one_line_that_a_queue_is_declared_otherwise(
    bench: Bench, call_consumer: Callable[..., Command]
) -> None:
    queue = f"{bench.queue}.delay.5s"
    bench.used.add(queue)
    await bench.channel.declare_queue(queue, durable=True)
    names = {"exchange": bench.exchange, "queue": bench.queue, "retry_delays_s": "5"}
    code, told = await asyncio.to_thread(
        lambda: run(call_consumer, rabbitmq_url=bench.given["rabbitmq_url"], **names)
    )

    assert code == 1
    assert re.fullmatch(rf"Error: queue {queue} exists with another .*CALLS_QUEUE.*\n", told)


def test_run_says_in_one_line_that_nothing_is_declared(
    rabbitmq_url: str, call_consumer: Callable[..., Command]
) -> None:
    code, told = run(
        call_consumer, rabbitmq_url=rabbitmq_url, declare="false", queue="nobody-has-declared-it"
    )

    assert code == 1
    assert told.startswith("Error: queue nobody-has-declared-it.dlq does not exist: ")
    assert told.count("\n") == 1


def test_run_says_in_one_line_what_permission_is_missing(
    guarded_url: str, call_consumer: Callable[..., Command]
) -> None:
    url = URL(guarded_url).with_user("poor").with_password("poor")
    code, told = run(call_consumer, rabbitmq_url=url)

    assert code == 1
    assert re.fullmatch(
        r"Error: queue call\.requested\.dlq is forbidden to this user: grant configure.*\n", told
    )


def test_a_link_that_is_lost_again_at_each_attempt_is_one_line_for_each_reason() -> None:
    losses = LossLog()
    missing = aiormq.exceptions.ChannelNotFoundEntity("NOT_FOUND - no queue 'x'")
    with capture_logs() as lines:
        for error in (missing, missing, OSError("down"), missing):
            losses.lost(None, error)
        losses.back(None)
        losses.lost(None, missing)

    told = [(line["event"], line.get("reason")) for line in lines]
    gone = ("broker.lost", "NOT_FOUND - no queue 'x'")
    assert told == [
        gone,
        ("broker.lost", "the connection failed (OSError)"),
        gone,
        ("broker.back", None),
        gone,
    ]


@pytest.mark.parametrize(
    "words",
    [
        "home node 'rabbit@b' of durable queue 'x' in vhost '/' is down or inaccessible",
        "queue 'x' in vhost '/' process is stopped by supervisor",
    ],
)
def test_a_queue_on_a_node_that_is_down_is_not_taken_for_missing(words: str) -> None:
    with pytest.raises(NodeDown), explained("queue x"):
        raise aiormq.exceptions.ChannelNotFoundEntity(f"NOT_FOUND - {words}")


@pytest.mark.parametrize("turns", range(12))
async def test_whoever_ends_while_closing_a_channel_leaves_the_connection_to_others(
    rabbitmq_url: str, turns: int
) -> None:
    async with await connect(rabbitmq_url, "test") as connection:
        closing = asyncio.Event()

        async def look() -> None:
            async with plain_channel(connection):
                closing.set()

        looking = asyncio.create_task(look())
        await closing.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking

        for _ in range(3):  # the broker answers in order
            async with plain_channel(connection) as channel:
                await channel.declare_queue(exclusive=True)

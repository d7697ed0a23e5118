"""Brokers that cannot be used, and queues that are not as they must be: one clear line each."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING
from uuid import uuid4

import aio_pika
import pytest
from yarl import URL

from consumer import devbroker
from consumer.broker import NoBroker, address_of, connect, link_losses
from consumer.topology import WrongTopology, build_topology, declare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.conftest import Bench, Command

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


async def test_a_listener_that_says_nothing_is_no_broker() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(NoBroker, match=f"no broker answers at 127.0.0.1:{port}"):
            await connect(f"amqp://u:{WRONG_PASSWORD}@127.0.0.1:{port}/", "test")


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
    with pytest.raises(NoBroker, match="the link to the broker broke"), link_losses():
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


async def test_a_wrong_password_is_said_and_not_shown(rabbitmq_url: str) -> None:
    url = str(URL(rabbitmq_url).with_password(WRONG_PASSWORD))
    with pytest.raises(NoBroker, match="refuses the user or the password") as caught:
        await connect(url, "test")

    assert WRONG_PASSWORD not in str(caught.value)


async def test_a_wrong_virtual_host_is_said(rabbitmq_url: str) -> None:
    with pytest.raises(NoBroker, match="refuses the virtual host"):
        await connect(str(URL(rabbitmq_url).with_path("/no-such-vhost")), "test")


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
        f"Error: the broker at {url.host}:{url.port} refuses the user or the password:"
        " mend CALLS_RABBITMQ_URL\n"
    )


def test_run_says_in_one_line_that_the_virtual_host_is_wrong(
    rabbitmq_url: str, call_consumer: Callable[..., Command]
) -> None:
    code, told = run(call_consumer, rabbitmq_url=URL(rabbitmq_url).with_path("/no-such-vhost"))

    assert code == 1
    assert re.fullmatch(r"Error: the broker at \S+ refuses the virtual host: .*\n", told)


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
    call_consumer: Callable[..., Command],
) -> None:
    if devbroker.find_server() is None:
        pytest.skip("no rabbitmq-server is installed whose users could be changed")
    with devbroker.PrivateNode() as node:
        node.ctl("add_user", "poor", "poor-password")
        node.ctl("set_permissions", "poor", "^nothing$", ".*", ".*")
        url = URL(node.url).with_user("poor").with_password("poor-password")
        code, told = run(call_consumer, rabbitmq_url=url)

    assert code == 1
    assert re.fullmatch(
        r"Error: queue call\.requested\.dlq is forbidden to this user: grant configure.*\n", told
    )

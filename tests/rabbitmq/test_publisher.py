"""A publish is confirmed, or it is known why not; and afterwards the next one works."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from aio_pika.tools import OneShotCallback

from consumer.rabbitmq.confirming_link import ConfirmingLink
from consumer.rabbitmq.connection import connect
from consumer.rabbitmq.losses import ConnectionLost, NotPublished
from consumer.rabbitmq.outgoing import build_message
from consumer.rabbitmq.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aio_pika.abc import AbstractChannel, AbstractConnection

    from tests.links import Link
    from tests.workbench import Bench

DEADLINE_S = 1.5


@pytest.fixture
async def publisher(link: Link) -> AsyncIterator[Publisher]:
    """Lend a publisher whose link can be cut and frozen."""
    lent = Publisher(link.url, deadline_s=DEADLINE_S)
    yield lent
    link.flows.set()
    await lent.close()


async def works(publisher: Publisher, bench: Bench) -> bool:
    body = uuid4().hex.encode()
    await publisher.publish(build_message(body, {}), "", f"{bench.queue}.dlq")
    (letter,) = await bench.dead_letters()
    return bool(letter.message.body == body)


async def full_queue(bench: Bench) -> str:
    """Declare a queue that has room for one message and has it."""
    name = f"{bench.queue}.full"
    bench.used.add(name)
    arguments: dict[str, Any] = {"x-max-length": 1, "x-overflow": "reject-publish"}
    await bench.channel.declare_queue(name, durable=True, arguments=arguments)
    await bench.channel.default_exchange.publish(build_message(b"first", {}), name)
    return name


async def test_a_message_is_built_anew_and_outlives_the_broker(
    publisher: Publisher, bench: Bench
) -> None:
    message = build_message(b"{}", {"a": 1}, kind="some.kind", correlation_id="some-id")
    await publisher.publish(message, "", f"{bench.queue}.dlq")
    (letter,) = await bench.dead_letters()

    received = letter.message
    assert received.delivery_mode == 2
    assert UUID(received.message_id).version == 4
    assert received.content_type == "application/json"
    assert (received.type, received.correlation_id) == ("some.kind", "some-id")
    assert received.app_id == "call-consumer"
    assert dict(received.headers) == {"a": 1}
    unset = (received.reply_to, received.expiration, received.user_id, received.content_encoding)
    assert not any(unset)


async def test_an_event_that_nobody_listens_for_is_fine(publisher: Publisher, bench: Bench) -> None:
    await publisher.publish(build_message(b"{}", {}), bench.exchange, "nobody.listens")

    assert publisher.stuck_s == 0


async def test_a_queue_that_is_not_there_is_unroutable(publisher: Publisher, bench: Bench) -> None:
    with pytest.raises(NotPublished) as caught:
        await publisher.publish(build_message(b"{}", {}), "", f"{bench.queue}.nowhere")

    assert caught.value.reason == "unroutable"
    assert await works(publisher, bench)


async def test_a_request_that_no_queue_takes_is_unroutable(
    publisher: Publisher, bench: Bench
) -> None:
    with pytest.raises(NotPublished) as caught:
        await publisher.publish(
            build_message(b"{}", {}), bench.exchange, "nobody.listens", mandatory=True
        )

    assert caught.value.reason == "unroutable"
    assert await works(publisher, bench)


async def test_a_full_queue_that_refuses_is_nacked(publisher: Publisher, bench: Bench) -> None:
    full = await full_queue(bench)
    with pytest.raises(NotPublished) as caught:
        await publisher.publish(build_message(b"second", {}), "", full)

    assert caught.value.reason == "nacked"
    assert await works(publisher, bench)


@pytest.mark.parametrize("is_event", [False, True])
async def test_after_a_refusal_another_channel_is_used(
    publisher: Publisher, bench: Bench, *, is_event: bool
) -> None:
    """RabbitMQ 3.10 refuses for ever over a channel, once the node that led a queue was stopped."""
    full = await full_queue(bench)
    queue = await bench.channel.get_queue(full, ensure=False)
    await queue.bind(bench.exchange, full)
    exchange = bench.exchange if is_event else ""
    before = await publisher._link.open()  # noqa: SLF001  # no other sign of it
    with pytest.raises(NotPublished, match="nacked"):
        await publisher.publish(build_message(b"second", {}), exchange, full)

    assert await publisher._link.open() is not before  # noqa: SLF001
    assert await works(publisher, bench)


async def _never(**_: object) -> AbstractChannel:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_channel_that_does_not_open_leaves_no_connection_behind(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[AbstractConnection] = []

    async def half_open(*names: str) -> AbstractConnection:
        opened.append(await connect(*names))
        monkeypatch.setattr(opened[-1], "channel", _never)
        return opened[-1]

    monkeypatch.setattr("consumer.rabbitmq.confirming_link.connect", half_open)
    with pytest.raises(NotPublished, match=r"timed_out.*nothing was sent"):
        await publisher.publish(build_message(b"{}", {}), "", "x")

    assert [connection.is_closed for connection in opened] == [True]


async def test_to_go_on_over_another_channel_takes_no_longer_than_a_publish(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirming = ConfirmingLink(link.url, 0.1)
    channel = await confirming.open()
    monkeypatch.setattr(confirming._connection, "channel", _never)  # noqa: SLF001  # the same one
    async with asyncio.timeout(5):
        await confirming.renew(channel)

    assert await confirming.open() is channel
    await confirming.close()


async def test_an_exchange_that_is_not_there_is_not_success(
    publisher: Publisher, bench: Bench
) -> None:
    with pytest.raises(NotPublished):
        await publisher.publish(build_message(b"{}", {}), f"{bench.exchange}.nowhere", "x")

    assert await works(publisher, bench)


async def test_a_broker_that_falls_silent_is_a_timeout(
    publisher: Publisher, bench: Bench, link: Link
) -> None:
    assert await works(publisher, bench)
    link.flows.clear()
    began_at = time.monotonic()
    with pytest.raises(NotPublished) as caught:
        await publisher.publish(build_message(b"{}", {}), "", f"{bench.queue}.nowhere")

    assert caught.value.reason == "timed_out"
    assert time.monotonic() - began_at < DEADLINE_S + 1.5
    link.flows.set()
    assert await works(publisher, bench)


async def test_a_broker_that_is_silent_from_the_first_is_no_success(
    publisher: Publisher, bench: Bench, link: Link
) -> None:
    link.flows.clear()
    with pytest.raises(NotPublished) as caught:
        await publisher.publish(build_message(b"{}", {}), "", f"{bench.queue}.nowhere")

    assert caught.value.reason in {"timed_out", "disconnected"}
    link.flows.set()
    assert await works(publisher, bench)


async def test_a_link_that_breaks_is_disconnected(
    publisher: Publisher, bench: Bench, link: Link
) -> None:
    assert await works(publisher, bench)
    link.flows.clear()
    publishing = asyncio.create_task(
        publisher.publish(build_message(b"{}", {}), "", f"{bench.queue}.nowhere")
    )
    await asyncio.sleep(0)  # let it write
    asyncio.get_running_loop().call_later(0.1, link.cut)
    with pytest.raises(NotPublished) as caught:
        await publishing

    assert caught.value.reason == "disconnected"
    assert str(caught.value).endswith("it may have arrived all the same")
    link.flows.set()
    assert await works(publisher, bench)


async def test_nobody_at_the_address_is_disconnected() -> None:
    publisher = Publisher("amqp://u:canary5ecret@127.0.0.1:9/", deadline_s=DEADLINE_S)
    with pytest.raises(NotPublished) as caught:
        await publisher.publish(build_message(b"{}", {}), "", "x")

    assert caught.value.reason == "disconnected"
    assert str(caught.value).endswith("nothing was sent")
    assert "canary5ecret" not in str(caught.value)


async def test_what_somebody_cancels_is_cancelled(
    publisher: Publisher, bench: Bench, link: Link
) -> None:
    assert await works(publisher, bench)
    link.flows.clear()
    publishing = asyncio.create_task(
        publisher.publish(build_message(b"{}", {}), "", f"{bench.queue}.nowhere")
    )
    asyncio.get_running_loop().call_later(0.1, publishing.cancel)
    with pytest.raises(asyncio.CancelledError):
        await publishing
    link.flows.set()

    assert await works(publisher, bench)


async def test_many_at_once_are_told_apart(bench: Bench) -> None:
    full = await full_queue(bench)
    publisher = Publisher(bench.given["rabbitmq_url"], deadline_s=20)
    targets = {"": f"{bench.queue}.dlq", "unroutable": f"{bench.queue}.nowhere", "nacked": full}

    async def why(target: str) -> str:
        try:
            await publisher.publish(build_message(b"{}", {}), "", target)
        except NotPublished as error:
            return error.reason
        return ""

    expected = list(targets) * 50
    found = await asyncio.gather(*(why(targets[each]) for each in expected))

    await publisher.close()
    assert found == expected
    assert len(await bench.dead_letters(50)) == 50


async def test_a_refused_publish_is_repeated_under_a_new_message_id_until_it_is_taken(
    publisher: Publisher, bench: Bench
) -> None:
    full = await full_queue(bench)
    message = build_message(b"second", {})
    first_id = message.message_id
    publishing = asyncio.create_task(publisher.publish_until_confirmed(message, "", full))
    await bench.until(lambda: publisher.stuck_s > 0)
    (first,) = await bench.take(full)
    await publishing
    (second,) = await bench.take(full)

    assert (first.message.body, second.message.body) == (b"first", b"second")
    assert second.message.message_id != first_id
    assert publisher.stuck_s == 0


async def test_counts_leave_nothing_behind(rabbitmq_url: str, bench: Bench) -> None:
    publisher = Publisher(rabbitmq_url)
    await publisher.depths([bench.queue])
    before = watchers_of_channels()

    for _ in range(3):
        assert await publisher.depths([bench.queue, bench.queue]) == {bench.queue: 0}

    assert watchers_of_channels() == before
    await publisher.close()


def watchers_of_channels() -> int:
    """Count what aio-pika keeps for each channel that was ever opened over a connection."""
    gc.collect()
    return sum(isinstance(each, OneShotCallback) for each in gc.get_objects())


async def test_a_queue_that_is_not_there_keeps_no_other_from_being_counted(
    rabbitmq_url: str, bench: Bench
) -> None:
    publisher = Publisher(rabbitmq_url)

    for _ in range(2):
        found = await publisher.depths(["none", bench.queue, "none either"])
        assert found == {bench.queue: 0}

    await publisher.close()


async def test_a_count_while_the_connection_is_given_up_ends_as_a_lost_link(
    rabbitmq_url: str, bench: Bench
) -> None:
    publisher = Publisher(rabbitmq_url)
    lost = 0
    for turns in range(60):
        await publisher.depths([])
        counting = asyncio.create_task(publisher.depths([bench.queue]))
        for _ in range(turns):
            await asyncio.sleep(0)
        await publisher.close()
        try:
            await counting
        except ConnectionLost:
            lost += 1

    assert lost

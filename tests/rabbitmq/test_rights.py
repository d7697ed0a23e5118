"""What a user may do is asked of the broker, and nothing is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from yarl import URL

from consumer.rabbitmq.connection import addresses_of, forget
from consumer.rabbitmq.refusals import LoginRefused
from consumer.rabbitmq.rights import NotAllowed, see_may_publish, see_may_read, signed_in_as

if TYPE_CHECKING:
    from tests.workbench import Bench


async def test_whoever_may_publish_publishes_nothing_by_asking(bench: Bench) -> None:
    url, queue = bench.given["rabbitmq_url"], bench.queue
    bench.settings()

    await see_may_publish(url, "", queue)
    await see_may_publish(url, bench.exchange, "call.requested")

    found = await bench.channel.declare_queue(queue, passive=True)
    assert found.declaration_result.message_count == 0


async def test_whoever_may_read_takes_nothing_by_asking(bench: Bench) -> None:
    url, queue = bench.given["rabbitmq_url"], bench.queue
    bench.settings()
    await bench.publish({"request_id": "r"})

    await see_may_read(url, queue)

    found = await bench.channel.declare_queue(queue, passive=True)
    counts = found.declaration_result
    assert (counts.message_count, counts.consumer_count) == (1, 0)
    (seen,) = await bench.take(queue)
    assert not seen.message.redelivered


async def test_what_is_not_there_may_not_be_used(bench: Bench) -> None:
    url = bench.given["rabbitmq_url"]

    with pytest.raises(NotAllowed, match="no exchange 'nowhere'"):
        await see_may_publish(url, "nowhere", "key")
    with pytest.raises(NotAllowed, match="no queue 'nowhere'"):
        await see_may_read(url, "nowhere")


async def test_a_wrong_password_is_one_for_this_question_too(bench: Bench) -> None:
    url = signed_in_as(bench.given["rabbitmq_url"], "guest", "wrong")

    with pytest.raises(LoginRefused):
        await see_may_read(url, bench.queue)


def test_a_user_takes_the_place_of_another_at_every_address() -> None:
    urls = "amqp://worker:s3cret@one:5673/calls?heartbeat=5,amqps://worker:s3cret@two/"

    theirs = [URL(url) for url in signed_in_as(urls, "a/b", "p,w@:/#?").split(",")]

    assert [(url.user, url.password) for url in theirs] == [("a/b", "p,w@:/#?")] * 2
    assert [(url.host, url.port, url.path) for url in theirs[:1]] == [("one", 5673, "/calls")]
    assert theirs[0].query == {"heartbeat": "5"}


def test_nobody_gets_in_by_the_certificate_of_the_worker() -> None:
    url = signed_in_as("amqps://host/?auth=external&certfile=/worker.pem", "ann", "nna")

    assert URL(url).query == {"certfile": "/worker.pem"}


def test_an_address_is_forgotten_with_its_password() -> None:
    first = addresses_of("amqp://ann:nna@one/,amqp://ann:nna@two/")
    first.move_on("amqp://ann:nna@one/")

    forget("amqp://ann:nna@one/,amqp://ann:nna@two/")

    assert addresses_of("amqp://ann:nna@one/,amqp://ann:nna@two/") is not first

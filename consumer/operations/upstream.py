"""The upstream side, for the command line and the demo: publish requests, listen for events."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aio_pika.abc import AbstractQueue

from consumer.errors import OperatorError
from consumer.messages import (
    CANCEL,
    COMPLETED,
    FAILED,
    REQUESTED,
    STARTED,
    CallRequested,
    Defaults,
    Invalid,
    read_body,
    read_cancel,
)
from consumer.rabbitmq.connection import connect
from consumer.rabbitmq.declaration import explained
from consumer.rabbitmq.losses import NotPublished
from consumer.rabbitmq.outgoing import build_message
from consumer.rabbitmq.publisher import Publisher


class BadRequest(OperatorError):
    """Raised for a message that the worker would refuse; says what is wrong with it."""


class NoCancelQueue(OperatorError):
    """Raised where the broker has no queue for cancellations; says how one comes about."""


def check_request(body: bytes, defaults: Defaults) -> CallRequested:
    """Read *body* as the worker would, taking its default line for granted.

    Raises:
        BadRequest: The worker would refuse it.
    """
    lenient = Defaults(defaults.line or "the worker's", defaults.voice, defaults.region)
    request = read_body(body, lenient)
    if isinstance(request, Invalid):
        raise BadRequest(request.description)
    return request


async def publish_requests(url: str, exchange: str, bodies: Iterable[bytes]) -> None:
    """Publish requests in order, each confirmed by the broker before the next.

    Raises:
        NotPublished: The broker did not take one: no queue is bound, it is full, or the link broke.
    """
    async with _publishing(url, exchange, REQUESTED) as publish:
        for body in bodies:
            await publish(body)


def cancellation(request_id: str, reason: str | None) -> bytes:
    """Return the body of a cancellation.

    Raises:
        BadRequest: The worker could not read it.
    """
    fields = {"request_id": request_id} | ({"reason": reason} if reason is not None else {})
    body = json.dumps(fields).encode()
    read = read_cancel(body)
    if isinstance(read, Invalid):
        raise BadRequest(read.description)
    return body


async def publish_cancellations(
    url: str, exchange: str, bodies: Mapping[str, bytes], done: Callable[[str], None]
) -> None:
    """Publish cancellations in order, each confirmed by the broker before the next.

    Args:
        url: The broker.
        exchange: Upstream's.
        bodies: By request id.
        done: Told the id of each that the broker has.

    Raises:
        NoCancelQueue: No queue is bound for them: nobody would read them.
        NotPublished: The broker did not take one: the queue is full, or the link broke.
    """
    try:
        async with _publishing(url, exchange, CANCEL) as publish:
            for request_id, body in bodies.items():
                await publish(body)
                done(request_id)
    except NotPublished as error:
        if error.reason != "unroutable":
            raise
        text = f"no queue is bound to the exchange {exchange} with {CANCEL}, so nobody would know"
        fix = "start a worker of this version once, it declares one; or see Rights on the broker"
        raise NoCancelQueue(f"{text}: {fix} in OPERATING.md") from None


@asynccontextmanager
async def _publishing(
    url: str, exchange: str, kind: str
) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
    """Lend a way to publish messages of a *kind*, which some queue must take."""
    publisher = Publisher(url)

    async def publish(body: bytes) -> None:
        await publisher.publish(build_message(body, {}, kind=kind), exchange, kind, mandatory=True)

    try:
        yield publish
    finally:
        await publisher.close()


@asynccontextmanager
async def listening(url: str, exchange: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Listen for events from now on; they end with the block.

    Raises:
        BrokerUnavailable, WrongTopology: The broker or the exchange cannot be reached.
    """
    connection = await connect(url, "events")
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=100)
        queue = await channel.declare_queue(exclusive=True, auto_delete=True)
        with explained(f"exchange {exchange}"):
            for key in (STARTED, FAILED, COMPLETED):
                await queue.bind(exchange, key)
        yield _events(queue)


async def _events(queue: AbstractQueue) -> AsyncIterator[dict[str, Any]]:
    async with queue.iterator() as messages:
        async for message in messages:
            await message.ack()
            yield _read_event(message.body) | {"type": message.type}


def _read_event(body: bytes) -> dict[str, Any]:
    """Read an event; a message of others that is no JSON object is shown as it is."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        event = None
    return event if isinstance(event, dict) else {"body": body.decode(errors="replace")}


async def outcome_of(
    events: AsyncIterator[dict[str, Any]], request_id: str, within_s: float
) -> dict[str, Any]:
    """Return the first event about a request that says whether it was placed.

    Raises:
        TimeoutError: None came in time.
    """
    async for event in outcomes_of(events, [request_id], within_s):
        return event
    raise TimeoutError


async def outcomes_of(
    events: AsyncIterator[dict[str, Any]], request_ids: Iterable[str], within_s: float
) -> AsyncIterator[dict[str, Any]]:
    """Yield the first event about each of some requests, as they come.

    Raises:
        TimeoutError: Not all came in time.
    """
    missing = set(request_ids)
    give_up_at = asyncio.get_running_loop().time() + within_s
    while missing:
        async with asyncio.timeout_at(give_up_at):
            event = await anext(events)
        if event.get("request_id") in missing and event["type"] != COMPLETED:
            missing.remove(event["request_id"])
            yield event

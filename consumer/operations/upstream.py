"""The upstream side, for the command line and the demo: publish requests, listen for events."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aio_pika.abc import AbstractQueue

from consumer.errors import OperatorError
from consumer.messages import (
    FAILED,
    REQUESTED,
    STARTED,
    CallRequested,
    Defaults,
    Invalid,
    read_body,
)
from consumer.rabbitmq.connection import connect
from consumer.rabbitmq.declaration import explained
from consumer.rabbitmq.outgoing import build_message
from consumer.rabbitmq.publisher import Publisher


class BadRequest(OperatorError):
    """Raised for a request that the worker would refuse; says what is wrong with it."""


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
    publisher = Publisher(url)
    try:
        for body in bodies:
            message = build_message(body, {}, kind=REQUESTED)
            await publisher.publish(message, exchange, REQUESTED, mandatory=True)
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
            for key in (STARTED, FAILED):
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
    """Return the first event about a request.

    Raises:
        TimeoutError: None came in time.
    """
    async with asyncio.timeout(within_s):
        async for event in events:
            if event.get("request_id") == request_id:
                return event
    raise TimeoutError

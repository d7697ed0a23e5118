"""Dead letters: look at them without changing anything, and send them back."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from aio_pika.abc import AbstractIncomingMessage

from consumer.broker import connect
from consumer.messages import Trail, read_json, read_trail, readable_id
from consumer.publisher import Publisher, build_message
from consumer.topology import Topology, explained

SILENCE_S = 10.0
"""Messages that do not come within this are in somebody else's hands."""


class NoSuchDeadLetter(LookupError):
    """Raised for ids that the dead-letter queue does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What is known of a request that failed; reason `broker` if the broker itself put it there.

    *dead_letter* is the request id, else the AMQP message id.
    """

    dead_letter: str
    failed_at: str | None
    reason: str
    code: str | None
    description: str | None
    http_status: int | None
    attempt: int | None
    replay: int
    to_number: str | None
    from_line: str | None


def read_dead_letter(message: AbstractIncomingMessage) -> DeadLetter:
    """Read a dead letter; its number is masked."""
    headers = message.headers
    fields = read_json(message.body)
    readable: dict[str, Any] = fields if isinstance(fields, dict) else {}
    return DeadLetter(
        dead_letter=readable_id(readable) or message.message_id or "?",
        failed_at=_text(headers.get("x-failed-at")),
        reason=_text(headers.get("x-reason")) or "broker",
        code=_text(headers.get("x-code")),
        description=_text(headers.get("x-description")),
        http_status=_number(headers.get("x-http-status")),
        attempt=_number(headers.get("x-attempt")),
        replay=_number(headers.get("x-replay")) or 0,
        to_number=_masked(readable.get("to_number")),
        from_line=_text(readable.get("from_line")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _masked(number: object) -> str | None:
    """Leave of a number what tells calls apart without telling whom: +1202555••01."""
    if not isinstance(number, str):
        return None
    return f"{number[:-4]}••{number[-2:]}" if len(number) > 6 else "••"  # noqa: PLR2004


def to_line(letter: DeadLetter) -> str:
    """Write *letter* as one line of JSON."""
    return json.dumps(asdict(letter), ensure_ascii=False)


async def list_letters(url: str, topology: Topology) -> list[DeadLetter]:
    """Return all dead letters, in the queue's order; all stay where they are.

    Raises:
        NoBroker, WrongTopology: The broker or the queue cannot be reached.
    """
    async with _opened(url, topology) as messages:
        return [read_dead_letter(message) async for message in messages]


async def replay_letters(url: str, topology: Topology, wanted: Collection[str] | None) -> list[str]:
    """Send dead letters back as new requests, and return their ids.

    Each is published anew with a replay number one above its own, confirmed, and only then removed.
    If that is cut short it may be sent back twice, under the same number, which dials once.

    Args:
        url: The broker.
        topology: Whose dead letters.
        wanted: Their ids; None for all there are at the start.

    Raises:
        NoSuchDeadLetter: Some id is not there; nothing was sent back.
        NotPublished: The broker did not confirm one; what came before it was sent back.
    """
    if wanted is not None:
        here = {letter.dead_letter for letter in await list_letters(url, topology)}
        if missing := sorted(set(wanted) - here):
            raise NoSuchDeadLetter(f"no dead letter has the id {', '.join(missing)}: see dlq list")
    publisher = Publisher(url)
    done = []
    try:
        async with _opened(url, topology) as messages:
            async for message in messages:
                letter = read_dead_letter(message)
                if wanted is not None and letter.dead_letter not in wanted:
                    continue
                anew = build_message(message.body, _next_trail(message).headers())
                await publisher.publish(anew, "", topology.requests.name)
                await message.ack()
                done.append(letter.dead_letter)
    finally:
        await publisher.close()
    return done


def _next_trail(message: AbstractIncomingMessage) -> Trail:
    own = _number(message.headers.get("x-replay")) or 0
    trail = read_trail(message.headers, ours=True, now=datetime.now(UTC))
    return replace(trail, attempt=1, replay=own + 1, redial=False)


@asynccontextmanager
async def _opened(
    url: str, topology: Topology
) -> AsyncIterator[AsyncIterator[AbstractIncomingMessage]]:
    """Take in hand what dead letters there are; what is not acknowledged goes back in order."""
    connection = await connect(url, "dead letters")
    async with connection:
        channel = await connection.channel()
        with explained(f"queue {topology.dead_letters.name}"):
            queue = await channel.declare_queue(topology.dead_letters.name, passive=True)
        count = queue.declaration_result.message_count or 0
        arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        if count:
            await queue.consume(arrived.put)
        yield _take(arrived, count)


async def _take(
    arrived: asyncio.Queue[AbstractIncomingMessage], count: int
) -> AsyncIterator[AbstractIncomingMessage]:
    for _ in range(count):
        try:
            async with asyncio.timeout(SILENCE_S):
                yield await arrived.get()
        except TimeoutError:
            return

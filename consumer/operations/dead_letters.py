"""Dead letters: look at them without changing anything, send them back, or give them up."""

import asyncio
import json
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from consumer.delivery import read_headers
from consumer.errors import OperatorError
from consumer.messages import (
    Defaults,
    Invalid,
    read_request,
)
from consumer.operations.choice import Choice
from consumer.operations.dead_letter import DeadLetter, read_dead_letter
from consumer.operations.turns import Turns
from consumer.rabbitmq.browser import WINDOW, DeliveriesReturned, QueueBusy, browse
from consumer.rabbitmq.outgoing import build_message
from consumer.rabbitmq.publisher import Publisher
from consumer.rabbitmq.topology import Topology

MISSES = 2
"""So often we look again for what somebody else may have in hand, `MISSED_S` seconds apart."""
MISSED_S = 1.0


class NoSuchDeadLetter(OperatorError):
    """Raised for ids that the dead-letter queue does not hold."""


async def look(
    url: str,
    topology: Topology,
    choice: Choice,
    limit: int | None = None,
    *,
    seen: Callable[[int, int], None] = lambda *_: None,
) -> AsyncGenerator[DeadLetter, None]:
    """Yield the dead letters that are chosen, at least *limit* of them; all stay where they are.

    Args:
        url: The broker.
        topology: Whose dead letters.
        choice: Which of them.
        limit: How many are enough; None for all.
        seen: Called after each that was looked at, with how many were, and about of how many.

    Raises:
        BrokerUnavailable, WrongTopology: The broker or the queue cannot be reached.
    """
    found = looked = 0
    queue, evicted = topology.dead_letters.name, topology.evicted.name
    async with browse(url, queue, limit or WINDOW, evicted=evicted) as browser:
        async for message in browser.messages():
            letter = read_dead_letter(message, topology.requests.name)
            if choice.holds(letter):
                found += 1
                yield letter
            if found == limit:
                break
            looked += 1
            seen(looked, browser.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """How to send dead letters back.

    Attributes:
        redial: Dial even what was started before.
        edits: New values for some of the request's fields.
    """

    redial: bool = False
    edits: Mapping[str, Any] = field(default_factory=dict)

    def body(self, letter: DeadLetter) -> bytes:
        """Return the body to send: byte for byte, unless it is edited."""
        if not self.edits:
            return letter.body
        return json.dumps({**letter.fields, **self.edits}, ensure_ascii=False).encode()

    def mistake(self, letter: DeadLetter) -> str | None:
        """Say why the edited request would be refused, if it would."""
        if not self.edits:
            return None
        read = read_request({**letter.fields, **self.edits}, Defaults(line="the worker's"))
        return read.description if isinstance(read, Invalid) else None

    def headers(self, letter: DeadLetter) -> dict[str, Any]:
        """Return the headers to send: a replay number one above, and none of the failure's."""
        sent = read_headers(letter.headers, ours=True, now=datetime.now(UTC))
        anew = replace(sent, attempt=1, replay=letter.replay + 1, redial=self.redial)
        edited = {"x-edited": ", ".join(sorted(self.edits))} if self.edits else {}
        return anew.as_amqp() | edited | {"x-sent-back": True}


async def send_back(  # noqa: PLR0913  # what, how, and how fast
    url: str,
    topology: Topology,
    keys: Iterable[str],
    how: Replay,
    each: Callable[[DeadLetter], Awaitable[None]] | None = None,
    *,
    done: Callable[[DeadLetter], None] = lambda _: None,
    rate_per_s: float | None = None,
) -> None:
    """Publish dead letters anew, each confirmed and only then removed.

    If that is cut short one may be sent back twice, under the same number, which dials once.

    Args:
        url: The broker.
        topology: Whose dead letters.
        keys: The `key` of each, as often as there are copies to be sent back.
        how: What to change about them.
        each: Awaited before each.
        done: Called after each.
        rate_per_s: At most so many a second.

    Raises:
        NotPublished: The broker did not confirm one; what came before it was sent back.
    """
    publisher = Publisher(url)
    try:
        async with aclosing(_taken(url, topology, keys, done, rate_per_s)) as taken:
            async for letter in taken:
                if each is not None:
                    await each(letter)
                anew = build_message(
                    how.body(letter), how.headers(letter), correlation_id=letter.id
                )
                await publisher.publish(anew, "", topology.requests.name)
    finally:
        await publisher.close()


async def discard_letters(  # noqa: PLR0913  # what, and what to do with each
    url: str,
    topology: Topology,
    keys: Iterable[str],
    each: Callable[[DeadLetter], None],
    done: Callable[[DeadLetter], None] = lambda _: None,
    *,
    note: Callable[[DeadLetter], Awaitable[None]] | None = None,
) -> None:
    """Remove dead letters for good.

    Args:
        url: The broker.
        topology: Whose dead letters.
        keys: The `key` of each.
        each: Called before each is removed, to keep what is to be kept.
        done: Called after each.
        note: Awaited before each is removed.
    """
    async with aclosing(_taken(url, topology, keys, done)) as taken:
        async for letter in taken:
            each(letter)
            if note is not None:
                await note(letter)


async def _taken(
    url: str,
    topology: Topology,
    keys: Iterable[str],
    done: Callable[[DeadLetter], None],
    rate_per_s: float | None = None,
) -> AsyncGenerator[DeadLetter, None]:
    """Yield the dead letters of these keys, and remove each when the next is asked for: *done*.

    Nothing is held while the rate makes us wait: the broker takes back what is held too long.

    Close it: an interrupted loop leaves it to asyncio, which ends the connection's tasks first.
    """
    left = Counter(list(keys))
    planned = left.total()
    turns = Turns(rate_per_s)
    misses = 0
    while left.total():
        await turns.wait()
        before = left.total()
        failure: DeliveriesReturned | QueueBusy | None = None
        try:
            async with aclosing(_window(url, topology, left, turns, done)) as window:
                async for letter in window:
                    yield letter
        except (DeliveriesReturned, QueueBusy) as error:
            failure = error
        if left.total() < before:
            misses = 0
            continue
        misses += 1
        if failure is not None and (misses > MISSES or left.total() == planned):
            raise failure
        if misses > MISSES:
            return
        await asyncio.sleep(MISSED_S)


async def _window(
    url: str,
    topology: Topology,
    left: Counter[str],
    turns: Turns,
    done: Callable[[DeadLetter], None],
) -> AsyncGenerator[DeadLetter, None]:
    """Take letters in hand once, and yield of those that are *left* what may go meanwhile.

    All are taken: where some were not, each acknowledgement would let one more come, out of order.
    """
    queue, evicted = topology.dead_letters.name, topology.evicted.name
    async with browse(url, queue, evicted=evicted) as browser:
        turns.take_in_hand()
        async for message in browser.messages(at_least=left.total()):
            letter = read_dead_letter(message, topology.requests.name)
            if not left[letter.key]:
                continue
            yield letter
            await browser.remove(message)
            left[letter.key] -= 1
            done(letter)
            if not left.total() or not await turns.next():
                break

"""Dead letters: look at them without changing anything, send them back, or give them up."""

import asyncio
import hashlib
import json
import re
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
)
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from aio_pika.abc import AbstractIncomingMessage

from consumer.bitrix24.errors import advice_for
from consumer.delivery import read_headers
from consumer.errors import OperatorError
from consumer.messages import (
    MAX_BODY_BYTES,
    Defaults,
    Invalid,
    read_json,
    read_moment,
    read_request,
    readable_id,
)
from consumer.operations.deaths import DEATHS, id_of, own_headers
from consumer.operations.turns import Turns
from consumer.rabbitmq.browser import WINDOW, DeliveriesReturned, QueueBusy, browse
from consumer.rabbitmq.publisher import Publisher, build_message
from consumer.rabbitmq.topology import Topology

ADVICE = {
    "exhausted": "See whether the portal is well again, then replay.",
    "unsure": "Replay it: the call history is asked first. If that is unreadable: A doubt.",
    "invalid": "Replay with --set if that fixes it; else fix it upstream, and discard this one.",
    "expired": "Discard it, or replay it with --set expires_at=…",
    "broker": "Somebody moved it here, or the broker did: see its log; then replay.",
}

REUSED = "Publish it with an id of its own, discard this: a replay announces the other request."
BEGINNING_BYTES = 200
MISSES = 2
"""So often we look again for what somebody else may have in hand, `MISSED_S` seconds apart."""
MISSED_S = 1.0


class NoSuchDeadLetter(OperatorError):
    """Raised for ids that the dead-letter queue does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A request that failed.

    Attributes:
        id: Its request id, else its AMQP message id.
        key: Tells it from all others in the queue but exact copies of it.
        reason: As in `call.failed`, or `broker` if the broker itself put it here.
        attempt: The last attempt made.
        fields: The body as parsed, empty if it cannot be.
        headers: Ours, and what we would have written for what the broker put here.
    """

    id: str
    key: str
    failed_at: str | None
    reason: str
    code: str | None
    description: str | None
    http_status: int | None
    attempt: int | None
    replay: int
    body: bytes = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False)
    headers: Mapping[str, Any]

    @property
    def number(self) -> str | None:
        """The number as sent."""
        return _text(self.fields.get("to_number"))

    @property
    def line(self) -> str | None:
        """The line as sent."""
        return _text(self.fields.get("from_line"))

    @property
    def expired(self) -> bool:
        """Whether its time is over, so that a replay would only fail again."""
        expiry = read_moment(self.fields.get("expires_at"))
        return expiry is not None and expiry <= datetime.now(UTC)

    @property
    def advice(self) -> str:
        """What a person should do."""
        if self.code == "request_id_reused":
            return (
                "Publish it with an id of its own, discard this: a replay announces the other one."
            )
        if self.reason == "broker" and self.code in DEATHS:
            return DEATHS[self.code].advice
        told = advice_for(self.code or "", self.description or "")
        return told if self.reason == "refused" else ADVICE.get(self.reason, told)

    def as_json(self, *, unmask: bool) -> str:
        """Write it as one line of JSON, complete enough to be an export."""
        body: object = dict(self.fields) or _text_of(self.body)
        if not unmask:
            body = {k: _shown(k, v) for k, v in self.fields.items()} or "…"
        told = {name: getattr(self, name) for name in _TOLD}
        own = {k: str(v) for k, v in self.headers.items() if k.startswith(("x-first", "x-unsure"))}
        return json.dumps(told | {"headers": own, "request": body}, ensure_ascii=False)


_HARMLESS = ("request_id", "from_line", "voice", "not_before", "expires_at")
_TOLD = ("id", "failed_at", "reason", "code", "description", "http_status", "attempt", "replay")


def masked(number: object) -> str | None:
    """Leave of a number what tells calls apart without telling whom: +12•••••••01."""
    if not isinstance(number, str):
        return None
    if not re.fullmatch(r"\+?[0-9]{7,15}", number):
        return "•••"
    return f"{number[:3]}{'•' * (len(number) - 5)}{number[-2:]}"


def _shown(name: str, value: object) -> object:
    """Return what may be seen of a field: one that we do not know may hold anything."""
    if name == "to_number":
        return masked(value)
    return value if name in _HARMLESS else "…"


def _text_of(body: bytes) -> str:
    """Return an unreadable body, or what one begins with that may have any size."""
    if len(body) <= MAX_BODY_BYTES:
        return body.decode(errors="replace")
    return f"{body[:BEGINNING_BYTES].decode(errors='replace')}… ({len(body)} bytes in all)"


def read_dead_letter(message: AbstractIncomingMessage, requests: str) -> DeadLetter:
    """Read what the dead-letter queue of the queue *requests* holds, whatever that is."""
    headers = own_headers(message, requests)
    fields = read_json(message.body)
    readable: dict[str, Any] = fields if isinstance(fields, dict) else {}
    digest = hashlib.sha256(message.body).hexdigest()
    return DeadLetter(
        id=readable_id(readable) or id_of(message),
        key=json.dumps([id_of(message), digest, sorted(headers.items())]),
        failed_at=_text(headers.get("x-failed-at")),
        reason=_text(headers.get("x-reason")) or "broker",
        code=_text(headers.get("x-code")),
        description=_text(headers.get("x-description")),
        http_status=_number(headers.get("x-http-status")),
        attempt=_number(headers.get("x-attempt")),
        replay=_number(headers.get("x-replay")) or 0,
        body=message.body,
        fields=readable,
        headers=headers,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which dead letters are meant; an empty choice means all."""

    ids: Collection[str] = ()
    reasons: Collection[str] = ()
    codes: Collection[str] = ()
    description: str | None = None
    line: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    replayed: bool | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self == Choice()

    def holds(self, letter: DeadLetter) -> bool:
        """Tell whether *letter* is meant."""
        failed_at = read_moment(letter.failed_at)
        return (
            (not self.ids or letter.id in self.ids)
            and (not self.reasons or letter.reason in self.reasons)
            and (not self.codes or (letter.code or "").upper() in {c.upper() for c in self.codes})
            and (self.description or "").lower() in (letter.description or "").lower()
            and (self.line is None or letter.line == self.line)
            and (self.since is None or (failed_at is not None and failed_at >= self.since))
            and (self.until is None or (failed_at is not None and failed_at < self.until))
            and (self.replayed is None or (letter.replay > 0) == self.replayed)
        )


async def look(
    url: str, topology: Topology, choice: Choice, limit: int | None = None
) -> AsyncGenerator[DeadLetter, None]:
    """Yield the dead letters that are meant, at least *limit* of them; all stay where they are.

    Raises:
        BrokerUnavailable, WrongTopology: The broker or the queue cannot be reached.
    """
    found = 0
    queue, evicted = topology.dead_letters.name, topology.evicted.name
    async with browse(url, queue, limit or WINDOW, evicted=evicted) as browser:
        async for message in browser.messages():
            letter = read_dead_letter(message, topology.requests.name)
            if choice.holds(letter):
                found += 1
                yield letter
            if found == limit:
                break


@dataclass(slots=True)
class Group:
    """Dead letters that failed alike; times are RFC 3339."""

    example: DeadLetter
    count: int = 0
    replayed: int = 0
    first: str | None = None
    last: str | None = None

    @property
    def title(self) -> str:
        """What they have in common."""
        letter = self.example
        return f"{letter.reason} {letter.code or ''}: {letter.description or ''}"


class Groups:
    """Dead letters by reason, code and description."""

    def __init__(self, letters: Iterable[DeadLetter] = ()) -> None:
        self._found: dict[tuple[str, str | None, str | None], Group] = {}
        for letter in letters:
            self.add(letter)

    def add(self, letter: DeadLetter) -> None:
        """Count one more."""
        kind = (letter.reason, letter.code, letter.description)
        found = self._found.setdefault(kind, Group(letter))
        found.count += 1
        found.replayed += letter.replay > 0
        if letter.failed_at is not None:
            found.first = min(found.first or letter.failed_at, letter.failed_at)
            found.last = max(found.last or letter.failed_at, letter.failed_at)

    @property
    def largest_first(self) -> list[Group]:
        """The groups, in order."""
        return sorted(self._found.values(), key=lambda g: -g.count)


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
        return anew.as_amqp() | edited


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


async def discard_letters(
    url: str,
    topology: Topology,
    keys: Iterable[str],
    each: Callable[[DeadLetter], None],
    done: Callable[[DeadLetter], None] = lambda _: None,
) -> None:
    """Remove dead letters for good.

    Args:
        url: The broker.
        topology: Whose dead letters.
        keys: The `key` of each.
        each: Called before each is removed, to keep what is to be kept.
        done: Called after each.
    """
    async with aclosing(_taken(url, topology, keys, done)) as taken:
        async for letter in taken:
            each(letter)


async def _taken(
    url: str,
    topology: Topology,
    keys: Iterable[str],
    done: Callable[[DeadLetter], None],
    rate_per_s: float | None = None,
) -> AsyncGenerator[DeadLetter, None]:
    """Yield the dead letters of these keys, and remove each when the next is asked for: *done*.

    Nothing is in hand while the rate makes us wait: the broker takes back what is held too long.

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

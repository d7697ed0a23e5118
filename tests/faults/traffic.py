"""What goes to the broker and comes from it in one scenario."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError

from consumer.rabbitmq.topology import Topology, build_topology
from tests.faults.life import NEVER, POLL_S, WAIT_S, until
from tests.faults.portal import text_of
from tests.promises import CAUSES, Copy, Event

DELAYS_S = (1, 2, 5)
CONCURRENCY = 10
BROKEN = (AMQPError, OSError, RuntimeError, TimeoutError)
TRY_S = 5.0
NO_FIELDS: Mapping[str, object] = MappingProxyType({})


class Node(Protocol):
    """A broker of ours: one node, or several."""

    @property
    def url(self) -> str:
        """Where it is."""

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl, and return what it printed."""


@dataclass(kw_only=True)
class Traffic:
    """Requests in, events out, through queues of its own.

    Attributes:
        causes: What gave cause for an end that needs one, by request.
        forbidden: From when to when nobody was to be phoned, in Unix seconds.
        forbidden_for: The same for single requests.
    """

    node: Node
    name: str
    ids: list[str] = field(default_factory=list)
    causes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    forbidden: list[tuple[float, float]] = field(default_factory=list)
    forbidden_for: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    events: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))

    @property
    def topology(self) -> Topology:
        return build_topology(f"{self.name}.calls", f"{self.name}.requested", DELAYS_S)

    # In.

    async def publish(
        self, number: int = 1, prefix: str = "r", *, to: str | None = None, **fields: object
    ) -> list[str]:
        """Publish requests, each to a number of its own unless *to* is said; return their ids."""
        bodies = self._requests(number, prefix, to, fields)
        await self.publish_bodies(bodies.values())
        return list(bodies)

    async def publish_at_last(self, prefix: str, within_s: float = WAIT_S) -> list[str]:
        """Publish a request again and again until the broker has taken it, as upstream does."""
        bodies = self._requests(1, prefix)
        async with asyncio.timeout(within_s):
            while True:
                with suppress(*BROKEN):
                    async with asyncio.timeout(TRY_S):
                        await self.publish_bodies(bodies.values())
                        return list(bodies)
                await asyncio.sleep(POLL_S)

    def _requests(
        self,
        number: int,
        prefix: str,
        to: str | None = None,
        fields: Mapping[str, object] = NO_FIELDS,
    ) -> dict[str, bytes]:
        """Write requests, and note them; return their bodies by id."""
        first = len(self.ids)
        bodies = {
            f"{prefix}-{first + n}": {
                "request_id": f"{prefix}-{first + n}",
                "to_number": to or f"+1202556{(first + n) % 10_000:04}",
                "text_to_pronounce": text_of(f"{prefix}-{first + n}"),
                **fields,
            }
            for n in range(number)
        }
        self.ids += bodies
        if "expires_at" in fields:
            self.note_cause("expired", bodies)
        return {request_id: json.dumps(body).encode() for request_id, body in bodies.items()}

    async def publish_bodies(
        self, bodies: Iterable[bytes], routing_key: str = "call.requested"
    ) -> None:
        """Publish as an upstream system does: persistent, confirmed, mandatory."""
        async with await aio_pika.connect(self.node.url, timeout=WAIT_S) as connection:
            channel = await connection.channel(on_return_raises=True)
            exchange = await channel.get_exchange(self.topology.exchange, ensure=False)
            async with asyncio.timeout(WAIT_S):
                for body in bodies:
                    message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                    await exchange.publish(message, routing_key, mandatory=True)

    async def cancel(self, ids: Iterable[str]) -> None:
        """Take requests back, as an upstream system does."""
        ids = list(ids)
        self.note_cause("cancelled", ids)
        bodies = [json.dumps({"request_id": request_id}).encode() for request_id in ids]
        await self.publish_bodies(bodies, "call.cancel")

    def note_cause(self, reason: str, ids: Iterable[str]) -> None:
        """Note that requests may end for *reason* from now on."""
        for request_id in ids:
            self.causes[request_id].add(CAUSES[reason])

    async def replay_all(self) -> None:
        """Send every dead letter back, as the contract has it (section 7) and a person wants it."""
        async with await aio_pika.connect(self.node.url, timeout=WAIT_S) as connection:
            channel = await connection.channel(on_return_raises=True)
            dead = await channel.get_queue(self.topology.dead_letters.name, ensure=False)
            while (letter := await dead.get(fail=False)) is not None:
                headers = {k: v for k, v in letter.headers.items() if k != "x-failed-at"}
                replay = headers.get("x-replay")
                headers["x-replay"] = (replay if isinstance(replay, int) else 0) + 1
                anew = aio_pika.Message(
                    letter.body, headers=headers, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
                )
                await channel.default_exchange.publish(anew, self.topology.requests.name)
                await letter.ack()

    # Out.

    async def listen(self) -> None:
        """Take down every event, whatever becomes of the broker."""
        while True:
            with suppress(*BROKEN):
                await self._listen_once()
            await asyncio.sleep(POLL_S)

    async def _listen_once(self) -> None:
        lost = asyncio.Event()
        async with await aio_pika.connect(self.node.url, timeout=5) as connection:
            connection.close_callbacks.add(lambda *_: lost.set())
            channel = await connection.channel()
            channel.close_callbacks.add(lambda *_: lost.set())
            await channel.set_qos(prefetch_count=100)
            queue = await channel.declare_queue(
                f"{self.name}.events", durable=True, arguments={"x-queue-type": "quorum"}
            )
            for key in ("call.started", "call.failed"):
                await queue.bind(self.topology.exchange, key)
            await queue.consume(self._take_down)
            await lost.wait()

    async def _take_down(self, message: AbstractIncomingMessage) -> None:
        body = json.loads(message.body)
        event = Event(
            time.time(),
            message.type or "",
            body["event_id"],
            body["replay"],
            body.get("reason"),
            body.get("call_id"),
            body.get("confirmed_by"),
        )
        self.events[body["request_id"]].append(event)
        await message.ack()

    def finals(self, request_id: str) -> list[Event]:
        return list(self.events.get(request_id, ()))

    async def told(self, ids: Iterable[str], within_s: float = WAIT_S) -> bool:
        """Wait until each of *ids* has had an event."""
        return await until(lambda: all(map(self.finals, ids)), within_s)

    async def told_of(self, number: int, within_s: float = WAIT_S) -> bool:
        """Wait until *number* requests have had events."""
        return await until(lambda: len(self.events) >= number, within_s)

    async def going_on(self, within_s: float = 60.0) -> float:
        """Return how many seconds passed until a new request had its event."""
        begun = time.time()
        came = await self.told(await self.publish(prefix="probe"), within_s)
        return time.time() - begun if came else NEVER

    async def beyond_what_was_in_flight(self, within_s: float = 60.0) -> float:
        """Return how many seconds passed until a request had its event that nobody had begun."""
        begun, furthest = time.time(), self._furthest()
        came = await until(lambda: self._furthest() > furthest + CONCURRENCY, within_s)
        return time.time() - begun if came else NEVER

    def _furthest(self) -> int:
        """Return the place in the queue of the last request that had an event."""
        return max(
            (n for n, request_id in enumerate(self.ids) if self.finals(request_id)), default=0
        )

    # Waiting.

    async def consuming(self, within_s: float = WAIT_S) -> float:
        """Return how many seconds passed until the requests had a consumer."""
        begun = time.monotonic()
        while time.monotonic() - begun < within_s:
            with suppress(*BROKEN):
                if (await self._counts())[1]:
                    return time.monotonic() - begun
            await asyncio.sleep(POLL_S)
        return NEVER

    async def waiting(self, expected: int, within_s: float = 5.0) -> int:
        """Return how many messages wait in all queues but the dead letters', once as *expected*."""
        begun = time.monotonic()
        while (number := (await self._counts())[0]) != expected:
            if time.monotonic() - begun > within_s:
                break
            await asyncio.sleep(POLL_S)
        return number

    async def _counts(self) -> tuple[int, int]:
        """Return how many messages wait in all our queues, and the number of consumers."""
        waiting = consumers = 0
        async with await aio_pika.connect(self.node.url, timeout=5) as connection:
            channel = await connection.channel()
            names = [self.topology.requests.name, *(q.name for q in self.topology.delays.values())]
            for name in names:
                found = (await channel.declare_queue(name, passive=True)).declaration_result
                waiting += found.message_count or 0
                consumers += found.consumer_count or 0
        return waiting, consumers

    async def settled(self, within_s: float = WAIT_S) -> bool:
        """Wait until each request has had an event and no copy of it waits any more."""
        deadline = time.monotonic() + within_s
        quiet = 0
        while time.monotonic() < deadline:
            if all(map(self.finals, self.ids)):
                with suppress(*BROKEN):
                    quiet = 0 if (await self._counts())[0] else quiet + 1
            if quiet > 2:
                return True
            await asyncio.sleep(POLL_S)
        return False

    async def take_all(self) -> dict[str, list[Copy]]:
        """Empty the queues; return the copies of each request that lay in them."""
        copies = defaultdict(list)
        async with await aio_pika.connect(self.node.url, timeout=WAIT_S) as connection:
            channel = await connection.channel()
            for name in [queue.name for queue in self.topology.queues]:
                queue = await channel.get_queue(name, ensure=False)
                # Consumed, since a queue with a single active consumer allows no "get".
                bodies: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
                tag = await queue.consume(bodies.put, no_ack=True)
                with suppress(TimeoutError):
                    while True:
                        message = await asyncio.wait_for(bodies.get(), 3 * POLL_S)
                        replay = message.headers.get("x-replay")
                        copy = Copy(
                            name,
                            replay if isinstance(replay, int) else 0,
                            dead=name == self.topology.dead_letters.name,
                        )
                        copies[json.loads(message.body)["request_id"]].append(copy)
                await queue.cancel(tag)
        return dict(copies)

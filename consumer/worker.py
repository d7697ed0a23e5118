"""Messages in, acknowledgements out; what lies between is `placing`."""

import asyncio
import hashlib
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import structlog
from aio_pika.abc import AbstractIncomingMessage
from faststream.rabbit import RabbitMessage

from consumer.broker import LINK_ERRORS, link_losses
from consumer.intake import Intake
from consumer.messages import (
    Defaults,
    Invalid,
    Trail,
    read_json,
    read_request,
    read_trail,
    readable_id,
)
from consumer.outbox import Letter, Outbox
from consumer.placing import GivenBack, Placing

REMEMBERED = 1000

log = structlog.get_logger(__name__)

Identity = tuple[str, int, int, str | None]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message as it arrived.

    Attributes:
        key: The request's id, or the body's digest: only one of each is worked on at a time.
        identity: Tells this message from a copy of it.
    """

    body: bytes = field(repr=False)
    fields: object = field(repr=False)
    trail: Trail
    request_id: str | None
    key: str
    identity: Identity
    redelivered: bool


def _read(raw: AbstractIncomingMessage) -> Arrival:
    trail = read_trail(
        raw.headers, ours=not raw.exchange, now=datetime.now(UTC), published_at=raw.timestamp
    )
    fields = read_json(raw.body)
    request_id = readable_id(fields)
    digest = hashlib.sha256(raw.body).hexdigest()
    identity = (digest, trail.attempt, trail.replay, raw.message_id)
    return Arrival(
        raw.body,
        fields,
        trail,
        request_id,
        request_id or digest,
        identity,
        bool(raw.redelivered),
    )


class Worker:
    """Handles requests, as many at once as the broker hands out, one at a time of each id."""

    def __init__(
        self, placing: Placing, outbox: Outbox, intake: Intake, defaults: Defaults
    ) -> None:
        self._intake = intake
        self._placing = placing
        self._outbox = outbox
        self._defaults = defaults
        self._running: dict[str, tuple[Identity, asyncio.Task[None]]] = {}
        self._settled: OrderedDict[Identity, None] = OrderedDict()
        self._given_back: OrderedDict[Identity, None] = OrderedDict()
        self._draining = False

    async def handle(self, message: RabbitMessage) -> None:
        """Do what *message* asks for, then acknowledge it.

        When the link drops, aiormq cancels this handler in mid-call and the same message comes back
        at once. So a task that no channel owns does the work, and what comes back joins it.
        """
        try:
            arrival = _read(message.raw_message)
            with structlog.contextvars.bound_contextvars(
                request_id=arrival.request_id,
                attempt=arrival.trail.attempt,
                replay=arrival.trail.replay,
            ):
                await self._take(arrival, message)
        except Exception:
            # A bug. Put back it would come again at once; the broker keeps it as a dead letter.
            log.exception("worker.bug")
            with suppress(*LINK_ERRORS), link_losses():
                await message.reject(requeue=False)

    async def _take(self, arrival: Arrival, message: RabbitMessage) -> None:
        try:
            if not (arrival.redelivered and arrival.identity in self._settled):
                await asyncio.shield(await self._task_for(arrival))
        except GivenBack:
            await self._intake.until_idle()
            with suppress(*LINK_ERRORS), link_losses():
                await message.nack(requeue=True)
            return
        try:
            with link_losses():
                await message.ack()
        except LINK_ERRORS as error:
            log.warning("ack.lost", error=type(error).__name__)

    async def drain(self) -> None:
        """Finish the calls that are begun; give up those that only wait for their turn."""
        self._draining = True
        self._placing.give_up_waiting()
        tasks = [task for _, task in self._running.values()]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _task_for(self, arrival: Arrival) -> asyncio.Task[None]:
        """Return the task that settles *arrival*, after any other of the same request."""
        while (running := self._running.get(arrival.key)) is not None:
            identity, task = running
            if arrival.redelivered and identity == arrival.identity:
                return task
            await asyncio.wait([task])
        if self._draining:
            raise asyncio.CancelledError  # its message goes back with the channel
        task = asyncio.create_task(self._settle(arrival))
        self._running[arrival.key] = (arrival.identity, task)
        task.add_done_callback(partial(self._done, arrival))
        return task

    def _done(self, arrival: Arrival, task: asyncio.Task[None]) -> None:
        del self._running[arrival.key]
        if task.cancelled():
            return
        if isinstance(task.exception(), GivenBack):
            _remember(self._given_back, arrival.identity)
        elif task.exception() is None:
            # If its acknowledgement is lost, the message comes back though nothing is left to do.
            _remember(self._settled, arrival.identity)

    async def _settle(self, arrival: Arrival) -> None:
        request = (
            arrival.fields
            if isinstance(arrival.fields, Invalid)
            else read_request(arrival.fields, self._defaults)
        )
        if arrival.request_id is not None and isinstance(arrival.fields, dict):
            letter = Letter(
                arrival.body,
                arrival.fields,
                arrival.request_id,
                request,
                arrival.trail,
                # What we gave back ourselves comes back as redelivered, and nobody dialled it.
                arrival.redelivered and arrival.identity not in self._given_back,
            )
            await self._placing.settle(letter)
        elif isinstance(request, Invalid):
            await self._outbox.invalid(arrival.body, arrival.trail, request)
        else:
            raise AssertionError("a valid request has an id")


def _remember(known: OrderedDict[Identity, None], identity: Identity) -> None:
    known[identity] = None
    if len(known) > REMEMBERED:
        known.popitem(last=False)

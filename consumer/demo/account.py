"""The account of the demo: whether the requests, the calls and the dead letters add up.

`draw_up` asks the broker and the sandbox what there is, and `account` compares.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import httpx

from consumer.demo.environment import DemoEnvironment
from consumer.demo.requests import Request
from consumer.operations.choice import Choice
from consumer.operations.dead_letters import look
from consumer.rabbitmq.connection import connect
from consumer.rabbitmq.topology import Topology

ACCOUNT_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Account:
    """How many requests there were, and what broker and sandbox have to show for them."""

    requests: int
    started: int
    dead: int
    waiting: int
    lost: int
    twice: int
    cancelled: int = 0

    @property
    def adds_up(self) -> bool:
        """Whether each request was phoned once, or is a dead letter, or was taken back."""
        told = self.started + self.dead + self.cancelled
        return self.requests == told and not self.lost and not self.twice

    def __str__(self) -> str:
        back = f" + {self.cancelled} cancelled" if self.cancelled else ""
        still = f", {self.waiting} still waiting" if self.waiting else ""
        return (
            f"{self.requests} requests = {self.started} started + {self.dead} dead letters{back}"
            f"{still}, lost {self.lost}, phoned twice {self.twice}"
        )


def account(
    asked: Sequence[Request],
    spoken: Sequence[str],
    dead: Sequence[bytes],
    waiting: int,
    cancelled: Collection[str] = (),
) -> Account:
    """Compare the requests with the calls and the messages that there are.

    Args:
        asked: The requests.
        spoken: The text of each call that the sandbox placed.
        dead: The body of each dead letter.
        waiting: How many messages are in the other queues.
        cancelled: The ids of which the events say that they were taken back.
    """
    calls = Counter(spoken)
    nowhere = [
        each
        for each in asked
        if each.text not in calls and each.body not in dead and each.id not in cancelled
    ]
    return Account(
        requests=len(asked),
        started=len(calls),
        dead=len(dead),
        waiting=waiting,
        lost=max(0, len(nowhere) - waiting),
        twice=sum(1 for times in calls.values() if times > 1),
        cancelled=len(cancelled),
    )


async def draw_up(
    stage: DemoEnvironment,
    http: httpx.AsyncClient,
    asked: Sequence[Request],
    cancelled: Collection[str],
) -> Account:
    """Ask broker and sandbox what there is, for as long as something may still be on its way."""
    deadline = time.monotonic() + ACCOUNT_WITHIN_S
    while True:
        waiting = await _waiting(stage.broker, stage.topology)
        dead = [each.body async for each in look(stage.broker, stage.topology, Choice())]
        spoken = [call["text"] for call in (await http.get(stage.sandbox("/sandbox/calls"))).json()]
        drawn_up = account(asked, spoken, dead, waiting, cancelled)
        if drawn_up.adds_up or time.monotonic() > deadline:
            return drawn_up
        await asyncio.sleep(0.2)


async def _waiting(url: str, topology: Topology) -> int:
    """Count the messages in all queues but the dead letters'."""
    async with await connect(url, "demo") as connection:
        channel = await connection.channel()
        names = [name for name in topology.names if name != topology.dead_letters.name]
        queues = [await channel.declare_queue(name, passive=True) for name in names]
    return sum(queue.declaration_result.message_count or 0 for queue in queues)

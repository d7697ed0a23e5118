"""How things are: the workers, what waits, how fast it goes, what today came to."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from datetime import time as time_of_day

from consumer.errors import OperatorError
from consumer.ledger import Ledger, LedgerDown
from consumer.ledger.controls import Pause
from consumer.ledger.search import Waiting
from consumer.ledger.workers import WorkerRow
from consumer.messages import CallOutcome
from consumer.operations.check_login import look_at_tokens
from consumer.operations.finding import Finding
from consumer.operations.ledger_at_hand import ledger_at_hand
from consumer.rabbitmq.queue_counts import QueueCount, count_queues
from consumer.rabbitmq.topology import Topology, topology_of
from consumer.settings import Settings

PACE_OVER_S = 60.0
"""The pace is that of so many seconds, or since the worker started."""
LEAST_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What is known at one moment; times are seconds since the epoch.

    Attributes:
        topology: The names of the queues.
        queues: What each holds, by name; empty where the broker cannot be asked.
        broker_trouble: Why it cannot be, empty if it can.
        ledger_trouble: Why the ledger cannot be read, empty if it can.
        pause: The operators', if calls are paused by hand.
        blocks: How many blocks are in force.
        waiting: What waits for a later moment.
        outcomes: What requests came to since midnight, where this runs.
        endings: How calls ended of which that was learnt since then, the most frequent first.
        tokens: The state of OAuth's tokens, where it is used and the ledger can be read.
        per_s: Calls dialled in a second, of late.
        allowed_per_s: How many are allowed, 0 if there is no limit.
    """

    at: float
    topology: Topology
    allowed_per_s: float
    queues: Mapping[str, QueueCount] = field(default_factory=dict)
    broker_trouble: str = ""
    ledger_trouble: str = ""
    workers: Sequence[WorkerRow] = ()
    pause: Pause | None = None
    blocks: int = 0
    waiting: Waiting = field(default_factory=Waiting)
    outcomes: Mapping[str, int] = field(default_factory=dict)
    endings: Mapping[CallOutcome, int] = field(default_factory=dict)
    tokens: Finding | None = None
    per_s: float = 0.0

    def count(self, *names: str) -> int | None:
        """Count what those of the queues hold that are there; None if none is."""
        found = [self.queues[name].messages for name in names if name in self.queues]
        return sum(found) if found else None

    @property
    def requests(self) -> int | None:
        """How many messages wait to be taken."""
        return self.count(self.topology.requests.name)

    @property
    def dead(self) -> int | None:
        """How many dead letters there are."""
        return self.count(self.topology.dead_letters.name, self.topology.evicted.name)

    @property
    def ended(self) -> int:
        """How many calls ended in a way that the call history shows."""
        return sum(count for outcome, count in self.endings.items() if outcome != "unknown")

    @property
    def answered_share(self) -> float | None:
        """Which part of them was answered; None if there are none."""
        return self.endings.get("answered", 0) / self.ended if self.ended else None

    @property
    def paused(self) -> Sequence[WorkerRow]:
        """The workers that are paused."""
        return [worker for worker in self.workers if worker.state.phase == "paused"]

    @property
    def state(self) -> tuple[str, str]:
        """Whether calls are placed, in a word and in a sentence."""
        if self.pause is not None:
            return "paused", f"Paused by {self.pause.by}: {self.pause.reason}"
        if self.ledger_trouble or self.broker_trouble:
            return "unknown", self.broker_trouble or self.ledger_trouble
        if not self.workers:
            return "stopped", "No worker runs: requests wait in their queue"
        if len(self.paused) == len(self.workers):
            why = sorted({text for each in self.paused for text in each.state.pauses.values()})
            return "paused", f"All workers are paused: {', '.join(why)}"
        if not any(worker.state.phase == "calling" for worker in self.workers):
            return "stopped", "No worker takes requests now"
        return "calling", "Calls are placed"

    @property
    def done_at(self) -> float | None:
        """When what waits to be taken will be, at this pace; None if that cannot be told."""
        all_paused = self.pause is not None or len(self.paused) == len(self.workers)
        if not self.requests or not self.per_s or all_paused:
            return None
        return self.at + self.requests / self.per_s


async def status_of(settings: Settings) -> Status:
    """Ask the broker and the ledger; what cannot be asked is said, and does not stop the rest.

    Raises:
        WrongSettings: The broker is not named.
    """
    topology = topology_of(settings)
    url = settings.needed("rabbitmq_url")
    found = Status(at=time.time(), topology=topology, allowed_per_s=settings.rate_per_s)
    names = [queue.name for queue in topology.queues]
    queues: Mapping[str, QueueCount] = {}
    broker_trouble = ""
    try:
        queues = await count_queues(url, names)
    except OperatorError as error:
        broker_trouble = str(error)
    try:
        async with ledger_at_hand(settings) as ledger:
            found = await _from_ledger(ledger, found)
            if settings.oauth_client_id is not None:
                found = replace(found, tokens=await look_at_tokens(settings, ledger))
    except LedgerDown as error:
        found = replace(found, ledger_trouble=str(error))
    return replace(found, queues=queues, broker_trouble=broker_trouble)


async def _from_ledger(ledger: Ledger, found: Status) -> Status:
    workers = await ledger.workers.running()
    controls = await ledger.controls.read()
    midnight = _midnight(found.at)
    rates = [worker.state.rate_per_s for worker in workers]
    return replace(
        found,
        workers=workers,
        pause=controls.pause,
        blocks=len(controls.blocks),
        waiting=await ledger.search.waiting(),
        outcomes=await ledger.search.outcomes(midnight),
        endings=await ledger.completions.outcomes_since(midnight),
        per_s=await _pace(ledger, workers, found.at),
        allowed_per_s=max(rates) if rates else found.allowed_per_s,
    )


async def _pace(ledger: Ledger, workers: Sequence[WorkerRow], now: float) -> float:
    """Return how many calls a second were dialled within the last minute."""
    began_at = min((worker.started_at for worker in workers), default=0.0)
    if not workers:
        return 0.0
    over_s = max(min(PACE_OVER_S, now - began_at), LEAST_S)
    dialled, since = await ledger.search.dialled(now - over_s)
    return dialled / max(now - since, LEAST_S) if dialled else 0.0


def _midnight(now: float) -> float:
    """Return when the day began, by the clock where this runs."""
    today = datetime.fromtimestamp(now).astimezone().date()
    return datetime.combine(today, time_of_day.min).astimezone().timestamp()

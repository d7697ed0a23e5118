"""Whether calls are paused, and why: what operators say, and what the workers write."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from consumer.blocks import Blocks
from consumer.ledger import LedgerDown
from consumer.ledger.controls import Pause
from consumer.ledger.workers import WorkerRow
from consumer.messages import CallRequested
from consumer.operations.ledger_at_hand import ledger_at_hand
from consumer.settings import Settings

RESUME = "call-consumer resume, once calls may be made again"
SEE_STATUS = "call-consumer status; OPERATING.md: No calls are placed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """Why no calls are placed.

    Attributes:
        by_hand: The operators' pause.
        workers: All that run.
    """

    by_hand: Pause | None = None
    workers: Sequence[WorkerRow] = ()

    @property
    def words(self) -> str:
        """Say who is paused, why, and when the portal is probed next; empty if nobody is."""
        if self.by_hand is not None:
            since = datetime.fromtimestamp(self.by_hand.since, UTC)
            who = f"paused by {self.by_hand.by} since {since:%Y-%m-%d %H:%M} UTC"
            return f"{who}: {self.by_hand.reason}"
        paused = [each for each in self.workers if each.state.phase == "paused"]
        if not paused:
            return ""
        reasons = sorted({text for each in paused for text in each.state.pauses.values()})
        return f"{len(paused)} of {len(self.workers)} paused: {', '.join(reasons)}{self._probe}"

    @property
    def stops_all(self) -> bool:
        """Whether no worker places calls; others may, where only some are paused."""
        return self.by_hand is not None or not any(
            each.state.phase == "calling" for each in self.workers
        )

    @property
    def _probe(self) -> str:
        known = [each.state.probes_at for each in self.workers if each.state.probes_at]
        if not known:
            return ""
        return (
            f"; the portal is probed next at {datetime.fromtimestamp(min(known), UTC):%H:%M:%S} UTC"
        )

    @property
    def fix(self) -> str:
        """Say what to do."""
        return SEE_STATUS if self.by_hand is None else RESUME


async def pauses_at_hand(settings: Settings) -> Pauses:
    """Ask the ledger; nobody is paused, as far as is known, where it cannot be asked."""
    with suppress(LedgerDown):
        async with ledger_at_hand(settings) as ledger:
            controls = await ledger.controls.read()
            return Pauses(by_hand=controls.pause, workers=await ledger.workers.running())
    return Pauses()


async def blocked_at_hand(settings: Settings, calls: Sequence[CallRequested]) -> Counter[str]:
    """Count how many of *calls* each block stops; none, where the ledger cannot be asked."""
    stopped: Counter[str] = Counter()
    with suppress(LedgerDown):
        async with ledger_at_hand(settings) as ledger:
            blocks = Blocks((await ledger.controls.read()).blocks)
            for call in calls:
                number = ledger.digest(call.to_number)
                block = blocks.find(call.metadata or {}, call.from_line, number)
                if block is not None:
                    stopped[block.id] += 1
    return stopped

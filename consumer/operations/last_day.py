"""What the requests of the last 24 hours came to, hour by hour."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from consumer.operations.ledger_at_hand import ledger_at_hand
from consumer.settings import Settings

HOURS = 24
HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour that begins at *clock*, in UTC: how many requests started, and how many failed."""

    clock: str
    started: int
    failed: int


async def last_day(settings: Settings) -> Sequence[Hour]:
    """Ask the ledger; the last hour is the one that has begun.

    Raises:
        LedgerDown: It cannot be read.
    """
    since = (time.time() // HOUR_S - HOURS + 1) * HOUR_S
    async with ledger_at_hand(settings) as ledger:
        by_hour = await ledger.search.outcomes_by_hour(since)
    return [_hour(since + n * HOUR_S, by_hour.get(n, {})) for n in range(HOURS)]


def _hour(begins: float, counts: dict[str, int]) -> Hour:
    started = counts.get("started", 0)
    clock = f"{datetime.fromtimestamp(begins, UTC):%H:%M}"
    return Hour(clock, started, sum(counts.values()) - started)

"""A portal that refuses everything, for more than one reason: it costs few dead letters."""

import asyncio
from collections.abc import Sequence
from itertools import cycle, islice

from consumer.sandbox import ANSWERS
from tests.faults.account import Row, summed
from tests.faults.bench import Bench
from tests.faults.life import NEVER, until
from tests.faults.portal import answer_from_now_on, special_number
from tests.faults.stage import Stage

REQUESTS = 60
PAUSE_AFTER = 5
IN_FLIGHT = 2
SETTINGS = {"pause_after": PAUSE_AFTER, "concurrency": IN_FLIGHT}
PROBE_AFTER_S = 0.5
TRIES = 4
BACK_WITHIN_S = 10.0
REASONS: dict[str, tuple[str, ...]] = {
    "credentials and rights": ("INVALID_CREDENTIALS", "insufficient_scope", "ACCESS_DENIED"),
    "codes that no table lists": ("unknown 4xx", "ERROR_ARGUMENT"),
    "refusals and outages": ("INVALID_CREDENTIALS", "bare 503"),
    "a line's refusals and the portal's": ("no line", "PAYMENT_REQUIRED", "monthly limit"),
}


async def refusals_with_codes_by_turns(stage: Stage) -> list[Row]:
    """They go on through some half-open tries; then the portal is well, and all else is placed."""
    played = await asyncio.gather(*(_refused(stage, answers) for answers in REASONS.values()))
    rows, dead = zip(*played, strict=True)
    fault = f"refused by turns, {TRIES} half-open tries: {max(dead)} dead letters"
    row = summed(fault, list(REASONS), rows)
    row.recovery_s = max(row.recovery_s or 0.0 for row in rows)
    return [row]


async def _refused(stage: Stage, answers: Sequence[str]) -> tuple[Row, int]:
    """Return how it went, and the number of dead letters."""
    async with stage.bench("refused") as bench:
        worker = await bench.start_trusted(SETTINGS, ("--probe-after", str(PROBE_AFTER_S)))
        numbers = [special_number(ANSWERS[name]) for name in islice(cycle(answers), REQUESTS)]
        for number in numbers:
            await bench.publish(to=number)
        if not await until(lambda: len(worker.said("worker.half_open")) >= TRIES, 60):
            bench.wrong.append("it did not try again so often")
        for number in numbers:
            answer_from_now_on(number, ANSWERS["placed"])
        resumed = await until(lambda: bool(worker.said("worker.resumed")), 60)
        recovery_s = await bench.going_on() if resumed else NEVER
        await bench.settled()
        await bench.close_books()
        dead = _dead_letters(bench)
        if dead > PAUSE_AFTER + IN_FLIGHT:
            bench.wrong.append(f"{dead} dead letters of {REQUESTS}")
        return bench.row("", 1, recovery_s, bar_s=BACK_WITHIN_S), dead


def _dead_letters(bench: Bench) -> int:
    return sum(any(copy.dead for copy in copies) for copies in bench.copies.values())

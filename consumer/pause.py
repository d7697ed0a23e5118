"""Pause: one fault of the whole portal must not drain the queue into the dead letters."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import structlog

from consumer import metrics
from consumer.decision import Outcome, Placed, Refused, Unavailable, Unsure
from consumer.intake import Intake

CONNECTION_WAITS_S = (5.0, 60.0)
OTHER_WAITS_S = (30.0, 900.0)
"""The first and the longest wait between probes, in seconds."""

Cause = Literal["refused", "rate", "connection", "doubt"]
CAUSES: tuple[Cause, ...] = ("refused", "rate", "connection", "doubt")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong that is no single request's fault; equal troubles count together."""

    cause: Cause
    code: str = ""


def trouble_of(outcome: Outcome, *, on_default_line: bool) -> Trouble | None:
    """Tell a portal-wide trouble from a request's own.

    Args:
        outcome: What the portal answered.
        on_default_line: Whether the call went by the line that requests use which name none.
    """
    match outcome:
        case Placed():
            return None
        case Refused(code, whose="portal"):
            return Trouble("refused", code.upper())
        case Refused(code, whose="line") if on_default_line:
            return Trouble("refused", f"{code.upper()} for the default line")
        case Refused():
            return None
        case Unavailable(code, counts=False):
            return Trouble("rate", code.upper())
        case Unavailable(http_status=None):
            return Trouble("connection")
        case Unavailable(code):
            return Trouble("connection", code.upper())
        case Unsure():
            return Trouble("doubt")


class Pause:
    """Counts troubles in a row, holds the intake, and finds out when to go on.

    Args:
        after: How many requests in a row that meet the same trouble begin a pause.
        intake: What is held.
        probe: Asks the portal something harmless; tells whether the trouble still shows.
    """

    def __init__(
        self, after: int, intake: Intake, probe: Callable[[Trouble], Awaitable[bool]]
    ) -> None:
        self._after = after
        self._intake = intake
        self._probe = probe
        self._trouble: Trouble | None = None
        self._in_a_row: set[str] = set()
        self.epoch = 0
        """Grows with each pause."""
        self._wait_s = 0.0
        self._state: Literal["open", "paused", "trying"] = "open"
        self._begun = asyncio.Event()
        for cause in CAUSES:
            metrics.PAUSED.labels(cause).set(0)

    @property
    def paused(self) -> bool:
        """Whether nothing may be dialled."""
        return self._state == "paused"

    @property
    def detail(self) -> str:
        """Say for people how things stand."""
        if self._state == "open" or self._trouble is None:
            return "open"
        return f"{self._state} for {self._trouble.cause} {self._trouble.code}".rstrip()

    def note(
        self, outcome: Outcome, request_id: str, epoch: int, *, on_default_line: bool
    ) -> float | None:
        """Take an answer into account.

        Args:
            outcome: What the portal answered.
            request_id: Whose answer; one request that fails again and again is not the portal.
            epoch: As it was when the call was begun.
            on_default_line: Whether it went by the line that requests use which name none.

        Returns:
            Seconds to wait, if this was the one call let through and it met the trouble of before.
        """
        trouble = trouble_of(outcome, on_default_line=on_default_line)
        if self._state == "paused" or epoch != self.epoch:
            return None  # begun before the pause
        if self._state == "trying":
            if trouble is not None and trouble == self._trouble:
                self._pause(self._wait_s * 2)
                return self._wait_s
            self._resume()
        if trouble != self._trouble:
            self._in_a_row.clear()
        self._trouble = trouble
        if trouble is not None:
            self._in_a_row.add(request_id)
            if len(self._in_a_row) >= self._after:
                self._pause(_waits(trouble)[0])
        return None

    async def run(self) -> None:
        """Wait out each pause, probe, and let one call through."""
        while True:
            await self._begun.wait()
            trouble = self._trouble
            await asyncio.sleep(self._wait_s)
            if trouble is not None and await self._probe(trouble):
                self._wait_s = min(self._wait_s * 2, _waits(trouble)[1])
                log.info("worker.still_paused", cause=trouble.cause, code=trouble.code)
                continue
            self._begun.clear()
            self._state = "trying"
            log.info("worker.trying")
            self._intake.limit(1)
            self._intake.release("portal")

    def _pause(self, wait_s: float) -> None:
        trouble = self._trouble
        if trouble is None:
            raise AssertionError("a pause has a cause")
        self._wait_s = min(wait_s, _waits(trouble)[1])
        self._state = "paused"
        self.epoch += 1
        self._intake.hold("portal")
        self._begun.set()
        metrics.PAUSED.labels(trouble.cause).set(1)
        log.error("worker.paused", cause=trouble.cause, code=trouble.code, probe_s=self._wait_s)

    def _resume(self) -> None:
        self._state = "open"
        self._in_a_row.clear()
        self._intake.limit(None)
        for cause in CAUSES:
            metrics.PAUSED.labels(cause).set(0)
        log.info("worker.resumed")


def _waits(trouble: Trouble) -> tuple[float, float]:
    return CONNECTION_WAITS_S if trouble.cause == "connection" else OTHER_WAITS_S

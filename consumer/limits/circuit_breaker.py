"""One fault of the whole portal must not drain the queue into the dead letters."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import structlog

from consumer import metrics
from consumer.decision import Outcome, Placed, Unsure
from consumer.errors import LOGIN
from consumer.limits.fault import KINDS, Fault, Kind, fault_of

CONNECTION_WAITS_S = (5.0, 60.0)
OTHER_WAITS_S = (30.0, 900.0)
"""The first and the longest wait between probes, in seconds."""

log = structlog.get_logger(__name__)


class Subscription(Protocol):
    """What is stopped while the breaker is open."""

    def pause(self, reason: str) -> None:
        """Take no more messages, until *reason* is released."""

    def resume(self, reason: str) -> None:
        """Take messages again."""

    def set_prefetch(self, prefetch: int | None) -> None:
        """Take at most so many at once; None for as many as at first."""


@dataclass(frozen=True, slots=True)
class Call:
    """What the breaker has to know of a call.

    Attributes:
        epoch: The breaker's when the call began.
    """

    request_id: str
    line: str | None
    epoch: int


class CircuitBreaker:
    """Counts faults, stops the subscription, and finds out when to go on.

    Closed: all is well. Open: nothing is dialled, and the portal is probed. Half-open: one call
    at a time, until a call that could have met the fault does not meet it.

    Args:
        after: How many different requests must meet one kind of fault, with no call placed in
            between, to open it.
        subscription: What is stopped.
        probe: Asks the portal something harmless; tells whether one of the codes still shows.
        default_line: The line that requests use which name none.
    """

    def __init__(
        self,
        after: int,
        subscription: Subscription,
        probe: Callable[[Kind, set[str]], Awaitable[bool]],
        default_line: str | None,
    ) -> None:
        self._after = after
        self._subscription = subscription
        self._probe = probe
        self._default_line = default_line
        self._row: dict[str, Fault] = {}
        self._kind: Kind = "refused"
        self._code = ""
        self._advice = ""
        self._wait_s = 0.0
        self._opened = asyncio.Event()
        self._probe_now = asyncio.Event()
        self.epoch = 0
        """Grows each time it opens."""
        self.state: Literal["closed", "open", "half_open"] = "closed"
        self.probes_at: float | None = None
        """When the portal is probed next, in seconds since the epoch; None unless it is open."""
        for kind in KINDS:
            metrics.PAUSED.labels(kind).set(0)

    @property
    def is_open(self) -> bool:
        """Whether nothing may be dialled."""
        return self.state == "open"

    @property
    def detail(self) -> str:
        """Say the state for people."""
        if self.state == "closed":
            return "closed"
        detail = f"{self.state} for {self._kind} {self._code}".rstrip()
        return f"{detail}: {self._advice}" if self._advice else detail

    def record(self, outcome: Outcome, call: Call) -> float | None:
        """Take an answer into account.

        Returns:
            Seconds to wait, if this was a call let through while half open and it met a fault that
            is not its own, or if no call can be placed before somebody logs in; None if the answer
            is to be taken as it is.
        """
        fault = fault_of(outcome, on_default_line=call.line == self._default_line)
        if fault is not None and fault.advice:
            if not self._is_over(call):
                self.wait_for_login(fault.code)
            return self._wait_s
        if self._is_over(call):
            return None
        if fault is None:
            self._disprove(outcome, call)
            return None
        if not fault.can_meet(call.line, self._default_line):
            # It has met it: a portal may have other rules than the documented ones.
            fault = replace(fault, lines="all")
        wait_s = self._count(fault, call.request_id)
        return None if isinstance(outcome, Unsure) else wait_s

    def wait_for_login(self, code: str) -> None:
        """Open at once, without a request's failure: *code* says why nobody can call."""
        if not (self.is_open and self._advice):
            fault = Fault("refused", code.upper(), advice=LOGIN)
            self._row[""] = fault
            self._open(fault, 0.0)

    def probe_now(self) -> None:
        """Wait no longer before the next probe: somebody has logged in."""
        self._probe_now.set()

    def record_bug(self, error: Exception, call: Call) -> None:
        """Take into account that our own code failed: it may fail for all."""
        if not self._is_over(call):
            self._count(Fault("bug", type(error).__name__), call.request_id)

    def _is_over(self, call: Call) -> bool:
        """Tell whether *call* began before the breaker opened, and so shows nothing now."""
        return self.state == "open" or call.epoch != self.epoch

    def _count(self, fault: Fault, request_id: str) -> float | None:
        self._row[request_id] = fault
        if self.state == "half_open":
            again_s = self._wait_s * 2 if fault.kind == self._kind else 0.0
            self._open(fault, again_s)
            return self._wait_s
        # One of another kind in between does not show that this one is over.
        if sum(known.kind == fault.kind for known in self._row.values()) >= self._after:
            self._open(fault, 0.0)
        return None

    def _disprove(self, outcome: Outcome, call: Call) -> None:
        """Remove the faults that *call* could have met and did not.

        The portal refuses some requests before the others meet their fault: all that such a refusal
        shows is that it answers.
        """
        placed = isinstance(outcome, Placed)
        self._row = {
            request_id: fault
            for request_id, fault in self._row.items()
            if not (
                fault.can_meet(call.line, self._default_line)
                if placed
                else fault.kind in {"connection", "rate"}
            )
        }
        if self.state == "half_open" and not self._row:
            self._close()

    async def run(self) -> None:
        """Wait while open, probe, and let one call through."""
        while True:
            await self._opened.wait()
            self.probes_at = time.time() + self._wait_s
            with suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s):
                    await self._probe_now.wait()
            self._probe_now.clear()
            codes = {fault.code for fault in self._row.values()}
            if await self._probe(self._kind, codes):
                self._wait_s = min(self._wait_s * 2, max(_waits(self._kind)[1], self._wait_s))
                log.info("worker.still_paused", cause=self._kind, code=self._code)
                continue
            self._opened.clear()
            self.probes_at = None
            self.state = "half_open"
            metrics.PAUSED.labels(self._kind).set(0)
            log.info("worker.half_open")
            self._subscription.set_prefetch(1)
            self._subscription.resume("portal")

    def _open(self, fault: Fault, wait_s: float) -> None:
        first_s, longest_s = _waits(fault.kind)
        self._wait_s = max(min(max(wait_s, first_s), longest_s), fault.retry_after_s)
        self._kind, self._code, self._advice = fault.kind, fault.code, fault.advice
        self._probe_now.clear()
        self.state = "open"
        self.epoch += 1
        self._subscription.pause("portal")
        self._opened.set()
        metrics.PAUSED.labels(fault.kind).set(1)
        log.error(
            "worker.paused",
            cause=fault.kind,
            code=fault.code,
            probe_s=self._wait_s,
            advice=fault.advice or None,
        )

    def _close(self) -> None:
        self.state = "closed"
        self._subscription.set_prefetch(None)
        log.info("worker.resumed")


def _waits(kind: Kind) -> tuple[float, float]:
    return CONNECTION_WAITS_S if kind == "connection" else OTHER_WAITS_S

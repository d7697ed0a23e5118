"""One call within the limits: its turn, the request, and what the answer changes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from consumer import metrics, tracing
from consumer.bitrix24.known_words import code_label
from consumer.bitrix24.portal import Portal
from consumer.decision import (
    Decision,
    Failure,
    Outcome,
    Placed,
    Reconcile,
    Refused,
    Retry,
    Unavailable,
    Unsure,
    decide,
)
from consumer.limits.circuit_breaker import Call, CircuitBreaker
from consumer.limits.rate_limiter import RateLimiter
from consumer.messages import CallRequested

LONGEST_BLOCK_S = 60.0
"""The longest wait for operating time to drop out: the portal keeps its accounts by the minute."""

log = structlog.get_logger(__name__)


class GivenBack(Exception):
    """Raised where a request must go back to its queue: nothing may be dialled now."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to make one call now.

    Attributes:
        epoch: The circuit breaker's.
    """

    epoch: int


class Caller:
    """Places calls, as fast as the portal allows, and only while the breaker is closed.

    Args:
        paused: Whether an operator has paused all calls.
        delays_s: One wait in seconds per retry, growing.
        operating_limit_s: From so many seconds of operating time on, wait for some to drop out.
    """

    def __init__(  # noqa: PLR0913  # one for each limit
        self,
        portal: Portal,
        rate_limiter: RateLimiter,
        breaker: CircuitBreaker,
        *,
        paused: Callable[[], bool],
        delays_s: Sequence[int],
        operating_limit_s: float,
    ) -> None:
        self._portal = portal
        self._rate_limiter = rate_limiter
        self._breaker = breaker
        self._paused = paused
        self._delays_s = delays_s
        self._operating_limit_s = operating_limit_s
        self.stopping = False
        """Set at a stop: what has not begun is not dialled any more."""

    def check(self) -> None:
        """Check that calls may be made.

        Raises:
            GivenBack: The worker is stopping, or paused.
        """
        if self.stopping or self._paused() or self._breaker.is_open:
            raise GivenBack

    def is_free(self) -> bool:
        """Tell whether a call could be made at once."""
        return self._rate_limiter.is_free()

    async def turn(self) -> Turn:
        """Wait until a call may be made.

        Raises:
            GivenBack: None may, because the worker is stopping or paused.
        """
        self.check()
        with metrics.RATE_LIMIT_WAIT.time(), tracing.waiting("wait for the rate limit"):
            await self._rate_limiter.acquire_for_call()
        self.check()
        return Turn(self._breaker.epoch)

    async def place(
        self, call: CallRequested, attempt: int, turn: Turn, *, send_before: float
    ) -> Decision:
        """Place *call*, once, and say what follows.

        Args:
            call: What to dial.
            attempt: Which attempt this is, counting from 1.
            turn: The right to do so.
            send_before: The request is not sent later than that, by the monotonic clock.
        """
        asked_at = time.perf_counter()
        with metrics.IN_FLIGHT.track_inprogress():
            outcome = await self._place(call, send_before)
        metrics.API.observe(time.perf_counter() - asked_at, tracing.exemplar())
        code = "" if isinstance(outcome, Placed) else code_label(outcome.failure.code)
        meaning = type(outcome).__name__.lower()
        metrics.CALLS.labels(meaning, code).inc()
        tracing.note(outcome=meaning, code=code)
        self._slow_down(outcome)
        begun = Call(call.request_id, call.from_line, turn.epoch)
        wait_s = self._breaker.record(outcome, begun)
        if wait_s is not None and isinstance(outcome, Refused | Unavailable):
            # The one call let through while half open: the fault is still there, and not its own.
            return Retry(wait_s, attempt, outcome.failure)
        decision = decide(outcome, attempt, self._delays_s)
        if isinstance(decision, Reconcile):
            metrics.DOUBTS.inc()
        return decision

    async def _place(self, call: CallRequested, send_before: float) -> Outcome:
        try:
            return await self._portal.place(call, send_before=send_before)
        except Exception as error:
            # Whatever went wrong here, the phone may be ringing: the ledger has to know.
            log.exception("call.bug")
            return Unsure(
                Failure("WORKER_ERROR", f"the answer could not be read ({type(error).__name__})")
            )

    def _slow_down(self, outcome: Outcome) -> None:
        """Wait where the portal says that we are too fast, or soon will be.

        Source: https://apidocs.bitrix24.com/limits.html
        """
        usage = self._portal.usage
        if usage is not None and usage.operating_s >= self._operating_limit_s:
            self._block(usage.reset_at - time.time())
        if isinstance(outcome, Unavailable) and not outcome.counts:
            self._rate_limiter.empty()
            if outcome.failure.code.upper() == "OPERATION_TIME_LIMIT":
                reset_s = usage.reset_at - time.time() if usage is not None else 0.0
                self._block(reset_s if reset_s > 0 else LONGEST_BLOCK_S)

    def _block(self, seconds: float) -> None:
        block_s = min(seconds, LONGEST_BLOCK_S)
        if block_s > 0:
            self._rate_limiter.block_for(block_s)
            log.warning("calls.blocked", block_s=round(block_s, 1), cause="operating time")

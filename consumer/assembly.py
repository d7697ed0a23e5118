"""Puts together what a request meets on its way: rules, limits and portal, around the ledger."""

from consumer.attempts import Attempts
from consumer.bitrix24.portal import Portal
from consumer.caller import Caller
from consumer.controls import LiveControls
from consumer.interruptible import Interruptible
from consumer.ledger import Ledger
from consumer.ledger.ages import Ages
from consumer.ledger.recovery import Recovery
from consumer.limits.calling_hours import CallingHours
from consumer.limits.circuit_breaker import CircuitBreaker
from consumer.limits.own_rules import OwnRules
from consumer.limits.rate_limiter import RateLimiter
from consumer.processor import Processor
from consumer.reconciler import Reconciler
from consumer.recorder import Recorder
from consumer.settings import Settings

NEAR_THE_LIMIT = 0.99


def build_processor(  # noqa: PLR0913  # the whole of the worker comes together here
    settings: Settings,
    *,
    owner: str,
    ledger: Ledger,
    portal: Portal,
    rate_limiter: RateLimiter,
    breaker: CircuitBreaker,
    controls: LiveControls,
    recovery: Recovery,
    reconciler: Reconciler,
    recorder: Recorder,
    ages: Ages,
    waits: Interruptible,
) -> Processor:
    """Build a processor with its caller and its attempts."""
    caller = Caller(
        portal,
        rate_limiter,
        breaker,
        paused=lambda: controls.paused,
        delays_s=settings.retry_delays_s,
        operating_limit_s=settings.operating_limit_s * NEAR_THE_LIMIT,
    )
    attempts = Attempts(
        owner=owner,
        ledger=ledger,
        ages=ages,
        recovery=recovery,
        caller=caller,
        controls=controls,
        rules=OwnRules(settings.countries, settings.max_per_number_per_day),
        hours=CallingHours(settings.calling_hours, settings.calling_days, settings.time_zone),
        waits=waits,
    )
    return Processor(
        ledger=ledger,
        ages=ages,
        recovery=recovery,
        caller=caller,
        attempts=attempts,
        reconciler=reconciler,
        recorder=recorder,
        waits=waits,
        timeout_s=settings.timeout_s,
    )

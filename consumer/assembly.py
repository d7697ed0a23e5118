"""Joins the parts of a worker: on the way of a request, and beside the calls."""

from collections.abc import Callable, Mapping

from consumer.attempts import Attempts
from consumer.caller import Caller
from consumer.completed import CompletedPublisher
from consumer.follower import Follower
from consumer.housekeeping import Housekeeping
from consumer.interruptible import Interruptible
from consumer.limits.calling_hours import CallingHours
from consumer.limits.own_rules import OwnRules
from consumer.operations.evictions import Evictions
from consumer.parts import BrokerParts, PortalParts, RecordParts
from consumer.processor import Processor
from consumer.readiness import Readiness
from consumer.settings import Settings

NEAR_THE_LIMIT = 0.99


def build_processor(
    settings: Settings, owner: str, portal: PortalParts, records: RecordParts, waits: Interruptible
) -> Processor:
    """Build what a request meets on its way: rules, limits and portal, around the ledger."""
    caller = Caller(
        portal.portal,
        portal.rate_limiter,
        portal.breaker,
        paused=lambda: records.controls.paused,
        delays_s=settings.retry_delays_s,
        operating_limit_s=settings.operating_limit_s * NEAR_THE_LIMIT,
    )
    attempts = Attempts(
        owner=owner,
        ledger=records.ledger,
        ages=records.ages,
        recovery=records.recovery,
        caller=caller,
        controls=records.controls,
        rules=OwnRules(settings.countries, settings.max_per_number_per_day),
        hours=CallingHours(settings.calling_hours, settings.calling_days, settings.time_zone),
        waits=waits,
    )
    return Processor(
        ledger=records.ledger,
        ages=records.ages,
        recovery=records.recovery,
        caller=caller,
        attempts=attempts,
        reconciler=records.reconciler,
        recorder=records.recorder,
        waits=waits,
        timeout_s=settings.timeout_s,
    )


def build_follower(
    owner: str, broker: BrokerParts, portal: PortalParts, records: RecordParts
) -> Follower:
    """Build what tells how calls ended."""
    completions = records.ledger.completions
    return Follower(
        owner,
        ledger=records.ledger,
        history=portal.history,
        reconciler=records.reconciler,
        ages=records.ages,
        rate_limiter=portal.rate_limiter,
        completed=CompletedPublisher(completions, broker.announcer, broker.publisher),
    )


def build_evictions(settings: Settings, broker: BrokerParts) -> Evictions:
    """Build what brings back dead letters that a policy has thrown out."""
    return Evictions(
        broker.url,
        broker.topology,
        broker.publisher,
        broker.policies,
        declares=settings.declare,
    )


def build_housekeeping(
    settings: Settings,
    broker: BrokerParts,
    portal: PortalParts,
    records: RecordParts,
    is_idle: Callable[[], bool],
) -> Housekeeping:
    """Build what runs beside the calls; *is_idle* says whether no message is being worked on."""
    return Housekeeping(
        url=broker.url,
        subscription=broker.subscription,
        cancellations=broker.cancellations,
        publisher=broker.publisher,
        ledger=records.ledger,
        portal=portal.portal,
        topology=broker.topology,
        lease=broker.lease,
        policies=broker.policies,
        connection=lambda: broker.subscription.connection,
        is_idle=is_idle,
        declares=settings.declare,
        retention_days=settings.ledger_retention_days,
    )


def build_readiness(
    broker: BrokerParts,
    portal: PortalParts,
    records: RecordParts,
    troubles: Callable[[], Mapping[str, str]],
    waits_for: Callable[[], tuple[str, str] | None],
) -> Readiness:
    """Build what says how the parts are; the last two as `Readiness` has them."""
    return Readiness(
        subscription=broker.subscription,
        publisher=broker.publisher,
        breaker=portal.breaker,
        controls=records.controls,
        policies=broker.policies,
        troubles=troubles,
        waits_for=waits_for,
    )

"""What a worker is made of, in three groups: the broker's parts, the portal's, the records'."""

from dataclasses import dataclass
from functools import partial

from consumer.announcer import Announcer
from consumer.bitrix24.portal import Portal
from consumer.controls import LiveControls
from consumer.history import History
from consumer.ledger import Ledger
from consumer.ledger.ages import Ages
from consumer.ledger.recovery import Recovery
from consumer.limits.circuit_breaker import CircuitBreaker
from consumer.limits.rate_limiter import RateLimiter
from consumer.login_watch import LoginWatch
from consumer.oauth import OAuth
from consumer.probe import Probe
from consumer.rabbitmq.lease import Lease
from consumer.rabbitmq.policies import Policies
from consumer.rabbitmq.publisher import Publisher
from consumer.rabbitmq.subscription import Subscription
from consumer.rabbitmq.topology import Topology, topology_of
from consumer.reconciler import Reconciler
from consumer.recorder import Recorder
from consumer.settings import Settings
from consumer.way_in import access_by

CANCELLATIONS_AT_ONCE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerParts:
    """What a worker has to do with the broker: what it takes, publishes and looks after."""

    url: str
    topology: Topology
    announcer: Announcer
    subscription: Subscription
    cancellations: Subscription
    publisher: Publisher
    policies: Policies
    lease: Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalParts:
    """What a worker has to do with the portal; *login* only where it logs in by OAuth."""

    portal: Portal
    rate_limiter: RateLimiter
    breaker: CircuitBreaker
    history: History
    login: LoginWatch | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordParts:
    """The ledger, and what writes into it how calls went."""

    ledger: Ledger
    ages: Ages
    recovery: Recovery
    controls: LiveControls
    recorder: Recorder
    reconciler: Reconciler


def build_broker_parts(settings: Settings, ledger: Ledger) -> BrokerParts:
    """Build what talks to the broker; nothing connects yet.

    Raises:
        WrongSettings: The broker's address is missing.
    """
    url, topology, policies = settings.needed("rabbitmq_url"), topology_of(settings), Policies()
    return BrokerParts(
        url=url,
        topology=topology,
        announcer=Announcer(topology),
        subscription=Subscription(url, topology.requests.name, settings.concurrency),
        cancellations=Subscription(
            url, topology.cancellations.name, CANCELLATIONS_AT_ONCE, "cancellations"
        ),
        publisher=Publisher(url, on_full=partial(policies.seen, "max-length")),
        policies=policies,
        lease=Lease(url, settings.queue, ledger),
    )


def build_portal_parts(
    settings: Settings, ledger: Ledger, subscription: Subscription
) -> PortalParts:
    """Build what asks the portal, and what says when not to.

    Args:
        settings: Say how fast to ask, and when to stop.
        ledger: Keeps the tokens.
        subscription: Paused while the portal is down.

    Raises:
        WrongSettings: The portal's address is missing.
    """
    access = access_by(settings, ledger)
    rate_limiter = RateLimiter(settings.rate_per_s, settings.burst)
    portal = Portal(access, timeout_s=settings.timeout_s, draw=rate_limiter.borrow)
    probe = Probe(portal, rate_limiter)
    breaker = CircuitBreaker(
        settings.pause_after, subscription, probe.still_shows, settings.default_line
    )
    return PortalParts(
        portal=portal,
        rate_limiter=rate_limiter,
        breaker=breaker,
        history=History(ledger, portal, rate_limiter, lag_s=settings.history_lag_s),
        login=LoginWatch(access, breaker) if isinstance(access, OAuth) else None,
    )


def build_record_parts(
    settings: Settings, ledger: Ledger, broker: BrokerParts, portal: PortalParts
) -> RecordParts:
    """Build what keeps the ledger right, by answers and by the call history."""
    ages = Ages(lambda: portal.portal.clock_offset_s)
    recovery = Recovery(ledger, broker.subscription)
    return RecordParts(
        ledger=ledger,
        ages=ages,
        recovery=recovery,
        controls=LiveControls(
            ledger.controls,
            broker.subscription,
            partial(broker.publisher.depth, broker.topology.requests.name),
        ),
        recorder=Recorder(
            ledger=ledger,
            ages=ages,
            recovery=recovery,
            announcer=broker.announcer,
            publisher=broker.publisher,
        ),
        reconciler=Reconciler(
            ledger,
            portal.history,
            ages,
            lag_s=settings.history_lag_s,
            delays_s=settings.retry_delays_s,
            retry_unsure=settings.when_unsure == "retry",
        ),
    )

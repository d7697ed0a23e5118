"""Look at everything that the worker needs, change nothing, and say what to fix."""

from collections.abc import AsyncIterator

from consumer.operations.check_broker import check_broker
from consumer.operations.check_ledger import check_ledger
from consumer.operations.check_login import check_login
from consumer.operations.check_portal import check_portal
from consumer.operations.finding import Finding
from consumer.rabbitmq.topology import Topology
from consumer.settings import Settings


async def check(settings: Settings, topology: Topology) -> AsyncIterator[Finding]:
    """Look at broker, queues, ledger and portal in turn; whatever fails does not stop the rest."""
    async for finding in check_broker(settings, topology):
        yield finding
    yield await check_ledger(settings)
    if settings.oauth_client_id is not None:
        yield await check_login(settings)
    async for finding in check_portal(settings):
        yield finding

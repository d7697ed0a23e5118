"""Look at everything that the worker needs, change nothing, and say what to fix."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from consumer.operations.check_broker import check_broker
from consumer.operations.check_ledger import check_ledger
from consumer.operations.check_login import check_login
from consumer.operations.check_portal import check_portal
from consumer.operations.finding import Finding
from consumer.rabbitmq.topology import Topology
from consumer.settings import Settings


async def check(settings: Settings, topology: Topology) -> AsyncGenerator[Finding]:
    """Look at broker, queues, ledger and portal in turn; whatever fails does not stop the rest."""
    async with aclosing(check_broker(settings, topology)) as findings:
        async for finding in findings:
            yield finding
    yield await check_ledger(settings)
    if settings.oauth_client_id is not None:
        yield await check_login(settings)
    async with aclosing(check_portal(settings)) as findings:
        async for finding in findings:
            yield finding

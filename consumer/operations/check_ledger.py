"""Look at the ledger, without making one."""

from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from consumer.ledger import Ledger, LedgerDown
from consumer.operations.finding import Finding
from consumer.rabbitmq.connection import connect, plain_channel
from consumer.rabbitmq.lease import lease_queue
from consumer.rabbitmq.losses import BrokerUnavailable
from consumer.settings import Settings, WrongSettings


async def check_ledger(settings: Settings) -> Finding:
    """Open the ledger if there is one: made here, it would look as if it knew of earlier calls."""
    url = settings.ledger_url.get_secret_value()
    if url == "sqlite://":
        fix = "name a file in CALLS_LEDGER_URL: what is in memory is lost with the process"
        return Finding("ledger", "warning", "in memory", fix)
    try:
        ledger = Ledger(url, settings.queue)
        try:
            if not await ledger.exists():
                detail = f"{ledger.place} holds none yet: the worker makes it"
                return Finding("ledger", "ok", detail)
            await ledger.open()
            await ledger.check_writable()
            if await _others_use_another(settings, ledger.identity):
                detail = f"{ledger.place} is not what the workers of {settings.queue} use"
                return Finding("ledger", "wrong", detail, "set CALLS_LEDGER_URL as they have it")
        finally:
            await ledger.close()
    except LedgerDown as error:
        return Finding("ledger", "wrong", str(error), "fix CALLS_LEDGER_URL, or the rights there")
    return Finding("ledger", "ok", f"{ledger.place} is writable")


async def _others_use_another(settings: Settings, identity: str) -> bool:
    """Tell whether workers run that use another ledger."""
    lease = lease_queue(settings.queue, identity)
    try:
        connection = await connect(settings.needed("rabbitmq_url"), "check")
        async with connection, plain_channel(connection) as channel:
            await channel.declare_queue(lease.name, passive=True)
            await channel.declare_queue(lease.name, durable=True, arguments=lease.arguments)
    except ChannelPreconditionFailed:
        return True
    except (BrokerUnavailable, WrongSettings, ChannelNotFoundEntity, ChannelAccessRefused):
        return False
    return False

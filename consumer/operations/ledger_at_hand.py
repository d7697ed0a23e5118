"""The ledger, for a command: there already, or none."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from consumer.ledger import Ledger, LedgerDown
from consumer.settings import Settings


@asynccontextmanager
async def ledger_at_hand(settings: Settings) -> AsyncIterator[Ledger]:
    """Lend the ledger that a worker has made; make none, which would know of no call.

    Raises:
        LedgerDown: There is none, or it cannot be read.
    """
    ledger = Ledger(settings.ledger_url.get_secret_value(), settings.queue)
    try:
        if not await ledger.exists():
            text = f"there is no ledger yet at {ledger.place}"
            raise LedgerDown(f"{text}: is CALLS_LEDGER_URL as the worker has it?")
        await ledger.open()
        yield ledger
    finally:
        await ledger.close()

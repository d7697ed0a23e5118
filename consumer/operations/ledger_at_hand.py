"""The ledger, for a command: there already, or none."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from consumer.ledger import Ledger, LedgerDown
from consumer.settings import Settings

IN_MEMORY = "sqlite://"


class NoLedger(LedgerDown):
    """Raised where there is no ledger yet; none is made, for no worker would know it."""


@asynccontextmanager
async def ledger_at_hand(settings: Settings) -> AsyncIterator[Ledger]:
    """Lend the ledger that a worker has made.

    Raises:
        NoLedger: There is none.
        LedgerDown: It cannot be used.
    """
    url = settings.ledger_url.get_secret_value()
    if url == IN_MEMORY:
        text = "the ledger is in the worker's memory, where no command reaches it"
        raise NoLedger(f"{text}: name a file or a database in CALLS_LEDGER_URL")
    ledger = Ledger(url, settings.queue)
    try:
        if not await ledger.exists():
            text = f"{ledger.place} holds no ledger"
            raise NoLedger(f"{text}: set CALLS_LEDGER_URL as the workers have it")
        await ledger.open()
        yield ledger
    finally:
        await ledger.close()

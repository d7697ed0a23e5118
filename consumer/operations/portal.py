"""The portal, for a command that asks it something."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from consumer.bitrix24.errors import NO_TOKENS
from consumer.bitrix24.portal import Portal
from consumer.errors import LOGIN, OperatorError
from consumer.ledger import Ledger
from consumer.settings import Settings
from consumer.way_in import access_by


class NobodyLoggedIn(OperatorError):
    """Raised where there is no ledger yet, and so there are no tokens."""


@asynccontextmanager
async def open_portal(settings: Settings) -> AsyncIterator[Portal]:
    """Lend the portal, with the ledger's tokens where OAuth is used.

    Raises:
        LedgerDown: The tokens cannot be read.
        NobodyLoggedIn: There are none.
        WrongSettings: The portal's address is missing.
    """
    ledger = Ledger(settings.ledger_url.get_secret_value(), settings.queue)
    portal = Portal(access_by(settings, ledger))
    try:
        if settings.oauth_client_id is not None:
            if not await ledger.exists():
                raise NobodyLoggedIn(f"{LOGIN}; {NO_TOKENS}")
            await ledger.open()
        yield portal
    finally:
        await portal.close()
        await ledger.close()

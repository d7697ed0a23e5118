"""Look at the tokens of OAuth: how old they are, and whether they can be used."""

import time

from consumer.bitrix24.access import NoAccess
from consumer.bitrix24.errors import NO_TOKENS
from consumer.bitrix24.tokens import REFRESH_LASTS_DAYS, Tokens
from consumer.errors import LOGIN
from consumer.ledger import Ledger, LedgerDown
from consumer.oauth import OAuth
from consumer.operations.finding import Finding
from consumer.settings import Settings, WrongSettings
from consumer.way_in import access_by

DAY_S = 86_400.0
MINUTE_S = 60.0
WARN_DAYS = 150


async def check_login(settings: Settings) -> Finding:
    """Open the ledger and look at its tokens."""
    ledger = Ledger(settings.ledger_url.get_secret_value(), settings.queue)
    try:
        if not await ledger.exists():
            return Finding("login", "wrong", NO_TOKENS, LOGIN)
        await ledger.open()
        return await look_at_tokens(settings, ledger)
    except LedgerDown:
        return Finding("login", "wrong", "the ledger cannot be read", "see its finding")
    finally:
        await ledger.close()


async def look_at_tokens(settings: Settings, ledger: Ledger) -> Finding:
    """Read the tokens of an open ledger, and renew none."""
    try:
        access = access_by(settings, ledger)
        if not isinstance(access, OAuth):
            return Finding("login", "wrong", NO_TOKENS, LOGIN)
        held = await access.read()
    except NoAccess as error:
        return Finding("login", "wrong", str(error), LOGIN)
    except WrongSettings as error:
        return Finding("login", "wrong", str(error), "set CALLS_BITRIX24_URL, then log in")
    return _state(held.tokens, time.time())


def _state(tokens: Tokens, now: float) -> Finding:
    age_s = max(now - tokens.obtained_at, 0.0)
    days = age_s / DAY_S
    lasts_s = tokens.expires_in_s
    access = f"access token {age_s / MINUTE_S:.0f} min old"
    if lasts_s is not None and age_s >= lasts_s:
        access += ", over: the next call renews it"
    refresh = f"refresh token {days:.0f} of {REFRESH_LASTS_DAYS} days old"
    logged_in = f"logged in {max(now - tokens.logged_in_at, 0.0) / DAY_S:.0f} days ago"
    text = f"{access}; {refresh}; {logged_in}, user {tokens.user or 'not told'}"
    if days >= WARN_DAYS:
        return Finding("login", "warning", text, f"place a call, or {LOGIN}, before it is over")
    return Finding("login", "ok", text)

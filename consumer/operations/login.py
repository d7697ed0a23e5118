"""Log in to a portal by OAuth: tokens for a code, seen to be good for calls, into the ledger."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from consumer.bitrix24.access import Credential
from consumer.bitrix24.portal import Portal
from consumer.bitrix24.responses import error_of
from consumer.bitrix24.scopes import NEEDED_SCOPES, granted_scopes
from consumer.bitrix24.seal import Seal
from consumer.bitrix24.token_server import Application, TokenServer
from consumer.bitrix24.tokens import Code, Tokens
from consumer.errors import OperatorError
from consumer.ledger import Ledger
from consumer.settings import Settings, WrongSettings
from consumer.way_in import application_of

IN_MEMORY = "sqlite://"


class LoginFailed(OperatorError):
    """Raised where no tokens were stored; says why, and what to do."""


class _GivenToken:
    """See `Access`: one token that is tried out, and neither stored nor renewed."""

    def __init__(self, url: str, tokens: Tokens) -> None:
        self.url = url
        self.secrets = (tokens.access, tokens.refresh)

    async def credential(self) -> Credential:
        return Credential({"auth": self.secrets[0]}, renewable=False)

    async def renew(self, refused: Credential) -> Credential:
        return refused

    async def close(self) -> None:
        pass


def needed_application(settings: Settings) -> Application:
    """Return the application to log in to.

    Raises:
        WrongSettings: The settings name none, or a ledger that keeps nothing.
    """
    application = application_of(settings)
    if application is None:
        text = "CALLS_OAUTH_CLIENT_ID: is not set, nor CALLS_OAUTH_CLIENT_SECRET: a webhook needs "
        raise WrongSettings([f"{text}no login"])
    if settings.ledger_url.get_secret_value() == IN_MEMORY:
        raise WrongSettings(["CALLS_LEDGER_URL: is in memory, where no tokens stay: name a file"])
    return application


async def log_in(settings: Settings, pasted: Code | Tokens) -> Tokens:
    """Exchange a code, see what the tokens are good for, and store them.

    Raises:
        LedgerDown: They cannot be stored.
        LoginFailed: There are none, or they are not good enough.
    """
    application = needed_application(settings)
    url = settings.needed("bitrix24_url")
    async with _opened_ledger(settings) as ledger:  # before the code is used up
        tokens = await _exchange(application, pasted) if isinstance(pasted, Code) else pasted
        tokens = await _seen_to_be_good(url, tokens)
        await ledger.tokens(url).log_in(Seal(application.client_secret, url).close(tokens))
    return tokens


@asynccontextmanager
async def _opened_ledger(settings: Settings) -> AsyncIterator[Ledger]:
    ledger = Ledger(settings.ledger_url.get_secret_value(), settings.queue)
    try:
        await ledger.open()
        yield ledger
    finally:
        await ledger.close()


async def _exchange(application: Application, code: Code) -> Tokens:
    answer = await TokenServer(application).exchange(code)
    if not isinstance(answer, Tokens):
        failure = answer.failure
        raise LoginFailed(
            f"no tokens ({failure.code}: {failure.description}): a code is good once, for 30 s; "
            "see CALLS_OAUTH_CLIENT_ID and CALLS_OAUTH_CLIENT_SECRET, and begin again"
        )
    return replace(answer, scopes=answer.scopes or code.scopes)


async def _seen_to_be_good(url: str, tokens: Tokens) -> Tokens:
    """Ask the portal itself what the tokens are good for.

    A mock may not know the method, and where the portal is away just now the code is used up.

    Raises:
        LoginFailed: It refuses them, or scopes are missing.
    """
    portal = Portal(_GivenToken(url, tokens))
    try:
        answer = await portal.ask("scope")
    finally:
        await portal.close()
    body = b"" if answer is None else answer[1]
    code, description = error_of(body)
    if code.lower() in {"expired_token", "invalid_token", "no_auth_found"}:
        text = f"{portal.host} does not take these tokens ({code} {description}): is "
        raise LoginFailed(f"{text}CALLS_BITRIX24_URL the portal where you logged in?")
    granted = granted_scopes(body)
    scopes = tokens.scopes if granted is None else granted
    missing = [scope for scope in NEEDED_SCOPES if scope not in scopes]
    if missing and (scopes or granted is not None):
        raise LoginFailed(
            f"nothing is stored: the application lacks the scope {' and '.join(missing)}: "
            "add it in the portal, and begin again"
        )
    return replace(tokens, scopes=scopes, portal=portal.host or tokens.portal)

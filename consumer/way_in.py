"""Which way into the portal the settings name."""

from consumer.bitrix24.access import Access, Webhook
from consumer.bitrix24.seal import Seal
from consumer.bitrix24.token_server import Application, TokenServer
from consumer.ledger import Ledger
from consumer.oauth import OAuth
from consumer.settings import Settings


def access_by(settings: Settings, ledger: Ledger) -> Access:
    """Return the way into the portal that the settings name.

    Args:
        settings: With the portal's address set.
        ledger: Keeps the tokens of OAuth; needs not be open yet.

    Raises:
        WrongSettings: The portal's address is missing.
    """
    url = settings.needed("bitrix24_url")
    application = application_of(settings)
    if application is None:
        return Webhook(url)
    secret = application.client_secret
    rows = ledger.tokens(url)
    return OAuth(url, rows, Seal(secret, url), TokenServer(application), secret)


def application_of(settings: Settings) -> Application | None:
    """Return the application of OAuth; None where a webhook is used."""
    if settings.oauth_client_id is None or settings.oauth_client_secret is None:
        return None
    return Application(
        client_id=settings.oauth_client_id,
        client_secret=settings.oauth_client_secret.get_secret_value(),
        server=settings.oauth_server_url,
        allow_http=settings.allow_http,
    )

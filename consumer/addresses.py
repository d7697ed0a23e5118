"""The addresses in settings: what is wrong with one, and never what it holds."""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import SplitResult, urlsplit, urlunsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_core import PydanticCustomError


def _split(url: str) -> SplitResult:
    _refuse_stray_characters(url)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise PydanticCustomError("url", "is no address that can be read") from None
    return parts


def _refuse_stray_characters(url: str) -> None:
    """See that no password ends an address before its host: what is left may look like one."""
    if re.search(r"[\s\x00-\x1f]", url):
        raise PydanticCustomError("url", "holds a blank or a line break: write one line")
    _, _, rest = url.partition("//")
    server = re.split("[/?#]", rest, maxsplit=1)[0]
    user, at, _ = server.rpartition("@")
    if ("@" in rest and not at) or re.search(r"[\[\]]", user):
        text = "is cut short by a character of its password: write # as %23, / as %2F, ? as %3F, "
        raise PydanticCustomError("url", text + "[ as %5B, ] as %5D")


def _amqp_urls(secret: SecretStr) -> SecretStr:
    urls = [url.strip() for url in secret.get_secret_value().split(",")]
    for number, url in enumerate(urls, 1):
        try:
            _check_amqp_url(url)
        except PydanticCustomError as error:
            if len(urls) == 1:
                raise
            text = f"entry {number} of {len(urls)} {error.message_template}"
            hint = "; a comma in a password is written %2C"
            raise PydanticCustomError("url", text + hint) from None
    return SecretStr(",".join(urls))


def _check_amqp_url(url: str) -> None:
    parts = _split(url)
    if parts.scheme not in {"amqp", "amqps"} or not parts.hostname:
        raise PydanticCustomError("url", "is no AMQP address: write amqp://user:password@host/")
    if "#" in url:
        raise PydanticCustomError("url", "has something behind a #: write # as %23")


def _ledger_url(secret: SecretStr) -> SecretStr:
    url = secret.get_secret_value()
    if not re.match(r"sqlite://(/.+)?$|postgres(ql)?://.", url):
        raise PydanticCustomError(
            "url", "is no ledger: write sqlite:///file or postgresql://user:password@host/database"
        )
    if not url.startswith("sqlite:"):
        _refuse_stray_characters(url)
    return secret


def _portal_url(secret: SecretStr) -> SecretStr:
    """Bring a webhook's address to the form that method names are appended to."""
    parts = _split(secret.get_secret_value())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise PydanticCustomError(
            "url", "is no webhook address: write https://portal/rest/<user>/<secret>/"
        )
    if parts.query or parts.fragment:
        raise PydanticCustomError("url", "has something behind the path: end it with the secret")
    if "/rest/api/" in f"{parts.path}/":
        text = "is an address of REST 3.0, which has no telephony: "
        raise PydanticCustomError("url", text + "write https://portal/rest/<user>/<secret>/")
    path = _without_method(parts.path).rstrip("/")
    return SecretStr(urlunsplit((parts.scheme, parts.netloc, f"{path}/", "", "")))


def _server_url(url: str) -> str:
    parts = _split(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise PydanticCustomError("url", "is no address of a server: write https://server/")
    return url


def way_in_mistakes(url: str, *, has_id: bool, has_secret: bool, has_server: bool) -> Iterator[str]:
    """See that there is a webhook or OAuth, and all of it; a mock may be at any address.

    Args:
        url: The portal's address, empty where it is not set.
        has_id: Whether OAuth's client id is set.
        has_secret: Whether its client secret is.
        has_server: Whether an authorisation server is.
    """
    oauth = has_id or has_secret
    if has_id != has_secret:
        missing, there = ("SECRET", "ID") if has_id else ("ID", "SECRET")
        yield f"CALLS_OAUTH_CLIENT_{missing}: is not set, and CALLS_OAUTH_CLIENT_{there} is"
    if has_server and not oauth:
        yield "CALLS_OAUTH_SERVER_URL: is for OAuth: set CALLS_OAUTH_CLIENT_ID, or leave it out"
    if oauth and re.search(r"/rest/\d+/[^/]", urlsplit(url).path):
        yield (
            "CALLS_BITRIX24_URL: is a webhook, and CALLS_OAUTH_CLIENT_ID is set too: keep one; "
            "with OAuth write https://portal/rest/"
        )
    if oauth and re.fullmatch(r"https://[^/]+/", url):
        yield "CALLS_BITRIX24_URL: ends too early: with OAuth write https://portal/rest/"
    if not oauth and re.fullmatch(r"https://[^/]+/rest/", url):
        yield (
            "CALLS_BITRIX24_URL: holds no webhook: write https://portal/rest/<user>/<secret>/, "
            "or set CALLS_OAUTH_CLIENT_ID and CALLS_OAUTH_CLIENT_SECRET"
        )


def _without_method(path: str) -> str:
    """Cut a method's name off: the portal shows the address with one, and so people paste it."""
    webhook = re.match(r".*/rest/\d+/[^/]+", path)
    if webhook:
        return webhook[0]
    return re.sub(r"/[a-z]+(\.[a-z0-9_]+)+/?$", "", path, flags=re.IGNORECASE)


def is_loopback(host: str) -> bool:
    """Tell whether *host* is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _unquoted(value: object) -> object:
    """Take off the quotes that a shell would, and a file or ``docker --env-file`` does not."""
    quoted = re.fullmatch(r"""(["'])(.*)\1""", value.strip()) if isinstance(value, str) else None
    return quoted[2].strip() if quoted else value


AmqpUrls = Annotated[SecretStr, BeforeValidator(_unquoted), AfterValidator(_amqp_urls)]
"""One broker, or several with commas between."""
ServerUrl = Annotated[str, BeforeValidator(_unquoted), AfterValidator(_server_url)]
"""A server that holds no secret in its address."""
PortalUrl = Annotated[SecretStr, BeforeValidator(_unquoted), AfterValidator(_portal_url)]
"""A portal or a webhook, up to where the names of methods are appended."""
LedgerUrl = Annotated[SecretStr, BeforeValidator(_unquoted), AfterValidator(_ledger_url)]
"""A SQLite file, or a PostgreSQL database."""

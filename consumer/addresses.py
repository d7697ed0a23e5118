"""The addresses in settings: what is wrong with one, and never what it holds."""

import re
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


def is_webhook(url: str) -> bool:
    """Tell whether an address holds a webhook's secret."""
    return re.search(r"/rest/\d+/[^/]", urlsplit(url).path) is not None


def lacks_webhook(url: str) -> bool:
    """Tell whether an address is a portal's without a webhook; a mock may be at any address."""
    return re.fullmatch(r"https://[^/]+/rest/", url) is not None


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

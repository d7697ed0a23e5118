"""All settings, read once. Nothing else reads the environment."""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, urlsplit, urlunsplit

import phonenumbers
from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

PREFIX = "CALLS_"
MAY_BE_FILES = ("rabbitmq_url", "bitrix24_url", "ledger_url")
"""Secrets, which ``CALLS_<FIELD>_FILE`` may name a file of."""


class WrongSettings(ValueError):
    """Raised for settings that cannot be used: one line per mistake, and no secret in any."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise PydanticCustomError("url", "is no address that can be read") from None
    return parts


def _amqp_url(secret: SecretStr) -> SecretStr:
    parts = _split(secret.get_secret_value())
    if parts.scheme not in {"amqp", "amqps"} or not parts.hostname:
        raise PydanticCustomError("url", "is no AMQP address: write amqp://user:password@host/")
    return secret


def _ledger_url(secret: SecretStr) -> SecretStr:
    if not re.match(r"sqlite://(/.+)?$|postgres(ql)?://.", secret.get_secret_value()):
        raise PydanticCustomError(
            "url", "is no ledger: write sqlite:///file or postgresql://user:password@host/database"
        )
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
    # The portal shows the address with a method's name behind it, and so people paste it.
    path = re.sub(r"/[a-z]+(\.[a-z0-9]+)+/?$", "", parts.path).rstrip("/")
    return SecretStr(urlunsplit((parts.scheme, parts.netloc, f"{path}/", "", "")))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _growing(delays_s: tuple[int, ...]) -> tuple[int, ...]:
    if not delays_s or any(a >= b for a, b in pairwise(delays_s)):
        raise PydanticCustomError("delays", "must be whole seconds that grow, as 5,30,300")
    return delays_s


def _known_region(region: str) -> str:
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise PydanticCustomError("region", "is no region: write two letters, as US or DE")
    return region


def _by_commas(value: object) -> object:
    return value.replace(" ", "").split(",") if isinstance(value, str) else value


DelayS = Annotated[int, Field(ge=1, le=30 * 86_400)]
Name = Annotated[str, Field(max_length=200)]
LineOrVoice = Annotated[str, Field(max_length=128)]


class Settings(BaseModel):
    """Each field is the environment variable ``CALLS_<FIELD>``."""

    # A wrong value must not print its neighbours: two of them hold secrets.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    rabbitmq_url: Annotated[SecretStr, AfterValidator(_amqp_url)] | None = None
    """The broker, as amqp://user:password@host:5672/vhost."""
    bitrix24_url: Annotated[SecretStr, AfterValidator(_portal_url)] | None = None
    """The inbound webhook, as https://portal/rest/<user>/<secret>/."""
    allow_http: bool = False
    """Whether the portal may be asked over plain http on another machine: for a mock."""

    default_line: LineOrVoice | None = None
    """The line for requests that name none."""
    default_voice: LineOrVoice | None = None
    """The voice for requests that name none; without it the portal chooses."""
    default_region: Annotated[str, AfterValidator(_known_region)] | None = None
    """Two letters: how to read numbers without a country code."""

    rate_per_s: Annotated[float, Field(ge=0, le=10_000)] = 2.0
    """The portal's limit in requests a second: 5 on Enterprise plans; 0 is no limit, for trials."""
    burst: Annotated[int, Field(ge=1)] = 20
    """The most calls at once after idle time; the portal forgives 50."""
    operating_limit_s: Annotated[float, Field(gt=0)] = 480.0
    """Seconds that the portal's method may run for us within ten minutes."""
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 10
    """Calls in flight at most; also the prefetch."""
    timeout_s: Annotated[float, Field(gt=0)] = 65.0
    """The portal cuts at 60 s; giving up sooner leaves us not knowing whether it dialled."""
    retry_delays_s: Annotated[
        tuple[DelayS, ...], BeforeValidator(_by_commas), AfterValidator(_growing)
    ] = (5, 30, 300, 1800, 3600)
    """One wait per retry, with a queue for each."""

    exchange: Name = "calls"
    """The topic exchange that requests and events go through."""
    queue: Name = "call.requested"
    """The queue of requests; the names of delay and dead-letter queues begin with it."""
    declare: bool = True
    """Whether to declare exchange and queues, or only check that they exist."""

    pause_after: Annotated[int, Field(ge=1)] = 5
    """How many different requests in a row must meet a fault of one kind for a pause."""
    http_port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Where `/livez`, `/readyz` and `/metrics` are served; 0 turns them off."""
    ledger_url: Annotated[SecretStr, AfterValidator(_ledger_url)] = SecretStr(
        "sqlite:///call-ledger.db"
    )
    """What was done for which request: a file, or postgresql://user:password@host:5432/database."""
    when_unsure: Literal["dead-letter", "retry"] = "dead-letter"
    """What to do about a call that may have rung, where the portal's history cannot tell."""
    history_lag_s: Annotated[float, Field(ge=0)] = 300.0
    """A call's absence from the history proves nothing until so long after the doubt."""
    ledger_retention_days: Annotated[int, Field(ge=1)] = 400
    """How long the ledger remembers what is settled; what is open it never forgets."""
    drain_s: Annotated[float, Field(gt=0)] = 80.0
    """How long a stop may take; more than one call."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe log line shown."""

    @model_validator(mode="after")
    def _time_to_drain(self) -> Self:
        if self.drain_s <= self.timeout_s:
            text = "CALLS_DRAIN_S: must be more than CALLS_TIMEOUT_S, or a stop cuts calls off"
            raise PydanticCustomError("drain", text)
        return self

    @model_validator(mode="after")
    def _https(self) -> Self:
        if self.bitrix24_url is None or self.allow_http:
            return self
        parts = urlsplit(self.bitrix24_url.get_secret_value())
        if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            # Without a field's name pydantic cannot tell which one is wrong.
            text = "CALLS_BITRIX24_URL: would send the secret unencrypted: write https, "
            raise PydanticCustomError("http", text + "or set CALLS_ALLOW_HTTP=true for a mock")
        return self

    def needed(self, field: Literal["rabbitmq_url", "bitrix24_url"]) -> str:
        """Return a secret that the caller cannot do without.

        Raises:
            WrongSettings: It is not set.
        """
        secret = self.rabbitmq_url if field == "rabbitmq_url" else self.bitrix24_url
        if secret is None:
            example = {
                "rabbitmq_url": "amqp://user:password@host:5672/",
                "bitrix24_url": "https://portal/rest/<user>/<secret>/",
            }[field]
            raise WrongSettings([f"{PREFIX}{field.upper()}: is not set: write {example}"])
        return secret.get_secret_value()


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read ``CALLS_*`` from *environment* and, where that is silent, from ``.env`` in this folder.

    Raises:
        WrongSettings: A setting is wrong or unknown.
    """
    from_file = {k: v or "" for k, v in dotenv_values(".env").items()}
    found = {k: v.strip() for k, v in {**from_file, **environment}.items() if k.startswith(PREFIX)}
    fields = {name.removeprefix(PREFIX).lower(): value for name, value in found.items() if value}
    mistakes = _read_files(fields)
    unknown = [name for name in fields if name not in Settings.model_fields]
    mistakes += [_unknown(name) for name in unknown]
    try:
        settings = Settings.model_validate({k: v for k, v in fields.items() if k not in unknown})
    except ValidationError as error:
        mistakes += [
            f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" if e["loc"] else e["msg"]
            for e in error.errors(include_input=False, include_url=False)
        ]
    if mistakes:
        raise WrongSettings(list(dict.fromkeys(mistakes)))
    return settings


def _read_files(fields: dict[str, str]) -> list[str]:
    """Put the contents of secret files where the secrets belong; return what went wrong."""
    mistakes = []
    for field in MAY_BE_FILES:
        name = fields.pop(f"{field}_file", None)
        if name is None:
            continue
        setting = f"{PREFIX}{field.upper()}"
        if field in fields:
            mistakes.append(f"{setting}: is set, and {setting}_FILE too: keep one")
            continue
        try:
            fields[field] = Path(name).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            mistakes.append(f"{setting}_FILE: cannot be read: {type(error).__name__}")
    return mistakes


def _unknown(field: str) -> str:
    name = f"{PREFIX}{field.upper()}"
    close = get_close_matches(field, Settings.model_fields, n=1)
    hint = f"did you mean {PREFIX}{close[0].upper()}?" if close else "the README lists them all"
    return f"{name}: there is no such setting: {hint}"

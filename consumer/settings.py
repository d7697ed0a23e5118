"""All settings, read once. Nothing else reads the environment.

pydantic-settings is not used: it ignores misspelt variables (CONTRIBUTING.md has all reasons).
"""

import codecs
import os
import re
import ssl
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

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

from consumer.addresses import AmqpUrls, LedgerUrl, PortalUrl, is_loopback
from consumer.errors import OperatorError
from consumer.local_time import Hours, known_time_zone, read_days, read_hours
from consumer.messages import Defaults

PREFIX = "CALLS_"
Secret = Literal["rabbitmq_url", "bitrix24_url"]
MAY_BE_FILES = ("rabbitmq_url", "bitrix24_url", "ledger_url")
"""Secrets, which ``CALLS_<FIELD>_FILE`` may name a file of."""


class WrongSettings(OperatorError):
    """Raised for settings that cannot be used: one line per mistake, and no secret in any."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def _growing(delays_s: tuple[int, ...]) -> tuple[int, ...]:
    if not delays_s or any(a >= b for a, b in pairwise(delays_s)):
        raise PydanticCustomError("delays", "must be whole seconds that grow, as 5,30,300")
    return delays_s


def _known_region(region: str) -> str:
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise PydanticCustomError("region", "is no region: write two letters, as US or DE")
    return region


def _hours(value: object) -> object:
    return read_hours(value) if isinstance(value, str) else value


def _days(value: object) -> object:
    return read_days(value) if isinstance(value, str) else value


def _countries(value: object) -> object:
    if not isinstance(value, str):
        return value
    entries = value.replace(" ", "").split(",")
    for number, entry in enumerate(entries, 1):
        if entry not in phonenumbers.SUPPORTED_REGIONS:
            which = f"entry {number} of {len(entries)} " if len(entries) > 1 else ""
            text = f"{which}is no country: write two capital letters each, as US,CA"
            raise PydanticCustomError("country", text)
    return entries


def _by_commas(value: object) -> object:
    return value.replace(" ", "").split(",") if isinstance(value, str) else value


DelayS = Annotated[int, Field(ge=1, le=30 * 86_400)]
Name = Annotated[str, Field(max_length=200)]
LineOrVoice = Annotated[str, Field(max_length=128)]


class Settings(BaseModel):
    """Each field is the environment variable ``CALLS_<FIELD>``."""

    # A wrong value must not print its neighbours: two of them hold secrets.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    rabbitmq_url: AmqpUrls | None = None
    """The broker, as amqp://user:password@host:5672/vhost; several with commas between."""
    bitrix24_url: PortalUrl | None = None
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

    calling_hours: Annotated[Hours, BeforeValidator(_hours)] | None = None
    """When people may be phoned, as 09:00-21:00; without it at any time."""
    calling_days: Annotated[frozenset[int], BeforeValidator(_days)] | None = None
    """On which days, as mon-fri; without it on every day. Kept as numbers, Monday is 0."""
    time_zone: Annotated[str, AfterValidator(known_time_zone)] = "UTC"
    """The IANA time zone of calling hours for requests that name none."""
    countries: Annotated[frozenset[str], BeforeValidator(_countries)] | None = None
    """Two letters each: which countries' numbers may be called; without it all."""
    max_per_number_per_day: Annotated[int, Field(ge=0)] = 0
    """How many calls one number may get within 24 hours; 0 is no limit."""

    exchange: Name = "calls"
    """The topic exchange that requests and events go through."""
    queue: Name = "call.requested"
    """The queue of requests; the names of delay and dead-letter queues begin with it."""
    declare: bool = True
    """Whether to declare exchange and queues, or only check that they exist."""

    pause_after: Annotated[int, Field(ge=1)] = 5
    """How many different requests must meet one kind of fault, with no call placed in between,
    for the worker to pause."""
    http_port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Where `/livez`, `/readyz` and `/metrics` are served; 0 turns them off."""
    ledger_url: LedgerUrl = SecretStr("sqlite:///call-ledger.db")
    """The ledger: a SQLite file, or postgresql://user:password@host:5432/database."""
    when_unsure: Literal["dead-letter", "retry"] = "dead-letter"
    """What to do with a call in doubt, where the portal's call history cannot tell."""
    history_lag_s: Annotated[float, Field(ge=0)] = 300.0
    """A call that is missing from the history proves nothing until so long after the doubt."""
    ledger_retention_days: Annotated[int, Field(ge=1)] = 400
    """How long the ledger keeps requests that are finished; others are never removed."""
    drain_s: Annotated[float, Field(gt=0)] = 80.0
    """How long a stop may take; more than one call."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe log line shown."""

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        # Without a field's name pydantic cannot tell which one is wrong.
        if mistakes := [*self._time_to_drain(), *self._encryption()]:
            text = "\n".join(mistakes)
            raise PydanticCustomError("together", text)
        return self

    def _time_to_drain(self) -> Iterator[str]:
        if self.drain_s <= self.timeout_s:
            yield "CALLS_DRAIN_S: must be more than CALLS_TIMEOUT_S, or a stop cuts calls off"

    def _encryption(self) -> Iterator[str]:
        if self.bitrix24_url is None or self.allow_http:
            return
        parts = urlsplit(self.bitrix24_url.get_secret_value())
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            yield (
                "CALLS_BITRIX24_URL: would send the secret unencrypted: write https, "
                "or set CALLS_ALLOW_HTTP=true for a mock"
            )

    @property
    def request_defaults(self) -> Defaults:
        """What requests need not say."""
        return Defaults(self.default_line, self.default_voice, self.default_region)

    def needed(self, field: Secret) -> str:
        """Return a secret that the caller cannot do without.

        Raises:
            WrongSettings: It is not set.
        """
        secret = self.rabbitmq_url if field == "rabbitmq_url" else self.bitrix24_url
        if secret is None:
            raise WrongSettings([_not_set(field)])
        return secret.get_secret_value()


GO_TOGETHER = ({"drain_s", "timeout_s"}, {"bitrix24_url", "allow_http"})
"""Fields that are judged together: where one is wrong, nothing can be said of the other."""


def read_settings(
    environment: Mapping[str, str] = os.environ,
    needed: Collection[Secret] = (),
    ca_file: str | None = None,
) -> Settings:
    """Read ``CALLS_*`` from *environment* and, where that is silent, from ``.env`` in this folder.

    Args:
        environment: The environment's variables.
        needed: What the caller cannot do without.
        ca_file: The file of certificates that TLS is to trust, if one is named.

    Raises:
        WrongSettings: Settings are wrong, unknown or missing; all of them are named.
    """
    found = _read_dotenv(Path(".env")) | dict(environment)
    ours = {k: v.strip() for k, v in found.items() if k.startswith(PREFIX)}
    skipped = service_variables(ours)
    fields = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in ours.items()
        if value and name not in skipped
    }
    mistakes = _read_files(fields)
    unknown = [name for name in fields if name not in Settings.model_fields]
    mistakes += [_unknown(name) for name in unknown]
    settings, wrong = _validate({k: v for k, v in fields.items() if k not in unknown})
    mistakes += wrong
    named = {mistake.partition(":")[0].removesuffix("_FILE") for mistake in mistakes}
    mistakes += [
        _not_set(field)
        for field in needed
        if field not in fields and f"{PREFIX}{field.upper()}" not in named
    ]
    if _uses_tls(settings):
        mistakes += _ca_file_mistakes(ca_file)
    if mistakes:
        raise WrongSettings(list(dict.fromkeys(mistakes)))
    return settings


def _validate(fields: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Return what is right of *fields* as settings, and the mistakes in the rest."""
    try:
        return Settings.model_validate(fields), []
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
    wrong = {str(problem["loc"][0]) for problem in problems if problem["loc"]}
    mistakes = [
        f"{PREFIX}{str(problem['loc'][0]).upper()}: {problem['msg']}" if problem["loc"] else line
        for problem in problems
        for line in problem["msg"].splitlines()
    ]
    if not wrong:
        return Settings(), mistakes
    for group in GO_TOGETHER:
        wrong |= group if wrong & group else set()
    settings, more = _validate({k: v for k, v in fields.items() if k not in wrong})
    return settings, mistakes + more


def _read_dotenv(path: Path) -> dict[str, str]:
    """Read a file of settings, if there is one.

    Raises:
        WrongSettings: It cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        values = dotenv_values(stream=StringIO(_read_text(path)))
    except (OSError, ValueError) as error:
        raise WrongSettings([f"{path}: cannot be read: {_reason(error)}"]) from None
    return {name: value or "" for name, value in values.items()}


def _read_text(path: Path) -> str:
    """Read what an editor or a shell has written: UTF-8, or UTF-16 that says so.

    Raises:
        OSError, ValueError: It cannot be read.
    """
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    if b"\0" in content:
        raise ValueError("it holds zero bytes, as UTF-16 does: save it as UTF-8")
    return content.decode("utf-8-sig")


def _reason(error: OSError | ValueError) -> str:
    match error:
        case OSError():
            return (error.strerror or type(error).__name__).lower()
        case UnicodeDecodeError():
            return f"it is not UTF-8 from byte {error.start} on: save it as UTF-8"
        case _:
            return str(error)


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
            fields[field] = _read_secret(name)
        except (OSError, ValueError) as error:
            mistakes.append(f"{setting}_FILE: cannot be read: {_reason(error)}")
    return mistakes


def _read_secret(name: str) -> str:
    if "://" in name:  # not to be repeated: it is the secret itself
        raise ValueError("it is an address: name the file that holds it")
    try:
        secret = _read_text(Path(name)).strip()
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: {_reason(error)}") from None
    if not secret:
        raise ValueError(f"{name}: it is empty")
    return secret


def _uses_tls(settings: Settings) -> bool:
    urls = (settings.rabbitmq_url, settings.bitrix24_url, settings.ledger_url)
    secure = re.compile(r"(^|,)amqps://|^https://|[?&]sslmode=verify")
    return any(secure.search(url.get_secret_value()) for url in urls if url is not None)


def _ca_file_mistakes(name: str | None) -> list[str]:
    if not name:
        return []
    try:
        ssl.create_default_context(cafile=name)
    except ssl.SSLError:
        return [f"SSL_CERT_FILE: cannot be read: {name}: it holds no certificates as PEM"]
    except OSError as error:
        return [f"SSL_CERT_FILE: cannot be read: {name}: {_reason(error)}"]
    return []


_ENDPOINT = r"(tcp|udp|sctp)://\S+:\d+"
_SERVICE_VARIABLES: tuple[tuple[str, str], ...] = (
    (r"_SERVICE_HOST", r"[0-9a-fA-F.:]+"),
    (r"_SERVICE_PORT(_\w+)?", r"\d+"),
    (r"_PORT(_\d+_(TCP|UDP|SCTP))?", _ENDPOINT),
    (r"_PORT_\d+_(TCP|UDP|SCTP)_PROTO", r"tcp|udp|sctp"),
    (r"_PORT_\d+_(TCP|UDP|SCTP)_PORT", r"\d+"),
    (r"_PORT_\d+_(TCP|UDP|SCTP)_ADDR", r"[0-9a-fA-F.:]+"),
)
"""Ends of names, and values, of what Kubernetes sets in each pod for each service near it."""


def service_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Name what only looks like settings of ours: Kubernetes' variables for ``calls`` services.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    """
    return [
        name
        for name, value in environment.items()
        if any(
            re.fullmatch(rf"CALLS(_[A-Z0-9_]+)?{end}", name) and re.fullmatch(form, value.strip())
            for end, form in _SERVICE_VARIABLES
        )
    ]


def _not_set(field: Secret) -> str:
    example = {
        "rabbitmq_url": "amqp://user:password@host:5672/",
        "bitrix24_url": "https://portal/rest/<user>/<secret>/",
    }[field]
    return f"{PREFIX}{field.upper()}: is not set: write {example}"


def _unknown(field: str) -> str:
    name = f"{PREFIX}{field.upper()}"
    close = get_close_matches(field, Settings.model_fields, n=1)
    hint = f"did you mean {PREFIX}{close[0].upper()}?" if close else "OPERATING.md lists them all"
    return f"{name}: there is no such setting: {hint}"

"""All settings: their names, their defaults, and what their values may be."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import phonenumbers
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_core import PydanticCustomError

from consumer.addresses import (
    AmqpUrls,
    LedgerUrl,
    PortalUrl,
    ServerUrl,
    is_loopback,
    way_in_mistakes,
)
from consumer.errors import OperatorError
from consumer.messages import Defaults
from consumer.messages.local_time import Hours, known_time_zone, read_days, read_hours

PREFIX = "CALLS_"
Secret = Literal["rabbitmq_url", "bitrix24_url"]


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
    """The inbound webhook, as https://portal/rest/<user>/<secret>/; with OAuth
    https://portal/rest/."""
    oauth_client_id: Annotated[str, Field(max_length=200)] | None = None
    """OAuth instead of a webhook: the application's client id, as the portal shows it."""
    oauth_client_secret: SecretStr | None = None
    """The application's client secret; the ledger's tokens are sealed with it."""
    oauth_server_url: ServerUrl | None = None
    """The authorisation server; by default the one that the tokens name, else the vendor's."""
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
    follow_up: bool = True
    """Whether to ask the call history how calls ended, and to publish `call.completed`."""
    ledger_retention_days: Annotated[int, Field(ge=1)] = 400
    """How long the ledger keeps requests that are finished; others are never removed."""
    drain_s: Annotated[float, Field(gt=0)] = 80.0
    """How long a stop may take; more than one call."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe log line shown."""

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        # Without a field's name pydantic cannot tell which one is wrong.
        if mistakes := [*self._time_to_drain(), *self._encryption(), *self._way_in()]:
            text = "\n".join(mistakes)
            raise PydanticCustomError("together", text)
        return self

    def _time_to_drain(self) -> Iterator[str]:
        if self.drain_s <= self.timeout_s:
            yield "CALLS_DRAIN_S: must be more than CALLS_TIMEOUT_S, or a stop cuts calls off"

    def _encryption(self) -> Iterator[str]:
        if self.allow_http:
            return
        portal = self.bitrix24_url.get_secret_value() if self.bitrix24_url else None
        for name, url in (("BITRIX24_URL", portal), ("OAUTH_SERVER_URL", self.oauth_server_url)):
            parts = urlsplit(url or "")
            if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
                yield (
                    f"CALLS_{name}: would send the secret unencrypted: write https, "
                    "or set CALLS_ALLOW_HTTP=true for a mock"
                )

    def _way_in(self) -> Iterator[str]:
        return way_in_mistakes(
            self.bitrix24_url.get_secret_value() if self.bitrix24_url else "",
            has_id=self.oauth_client_id is not None,
            has_secret=self.oauth_client_secret is not None,
            has_server=self.oauth_server_url is not None,
        )

    @property
    def request_defaults(self) -> Defaults:
        """What requests need not say."""
        return Defaults(self.default_line, self.default_voice, self.default_region)

    @property
    def webhook(self) -> SecretStr | None:
        """The portal's address, if it holds a secret."""
        return self.bitrix24_url if self.oauth_client_id is None else None

    def needed(self, field: Secret) -> str:
        """Return a secret that the caller cannot do without.

        Raises:
            WrongSettings: It is not set.
        """
        secret = self.rabbitmq_url if field == "rabbitmq_url" else self.bitrix24_url
        if secret is None:
            raise WrongSettings([not_set(field)])
        return secret.get_secret_value()


_WAY_IN = {
    "bitrix24_url",
    "allow_http",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_server_url",
}
GO_TOGETHER = ({"drain_s", "timeout_s"}, _WAY_IN)
"""Fields that are judged together: where one is wrong, nothing can be said of the other."""


def not_set(field: Secret) -> str:
    """Say that a secret is not set, and how one looks."""
    example = {
        "rabbitmq_url": "amqp://user:password@host:5672/",
        "bitrix24_url": "https://portal/rest/<user>/<secret>/",
    }[field]
    return f"{PREFIX}{field.upper()}: is not set: write {example}"

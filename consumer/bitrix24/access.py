"""The two ways into a portal: a webhook, whose address holds the secret, and OAuth's tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Protocol
from urllib.parse import urlsplit

from consumer.decision import Refused, Unavailable


class NoAccess(Exception):
    """Raised where the portal cannot be asked at all, so that certainly nothing was dialled.

    Attributes:
        outcome: What that means for a call.
    """

    def __init__(self, outcome: Refused | Unavailable) -> None:
        super().__init__(outcome.failure.description)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request shows the portal, besides its address.

    Attributes:
        parameters: Go into the body, with the method's own.
        renewable: Whether there may be a newer one, if the portal says that this one is over.
    """

    parameters: Mapping[str, str] = field(repr=False)
    renewable: bool


class Access(Protocol):
    """A way into one portal.

    Attributes:
        url: What the names of methods are appended to.
    """

    url: str

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return what must not be repeated, whoever says it."""

    async def credential(self) -> Credential:
        """Return what a request must show now.

        Raises:
            NoAccess: There is nothing to show.
        """

    async def renew(self, refused: Credential) -> Credential:
        """Return another credential than *refused*, which the portal says is over.

        Raises:
            NoAccess: There is none, or not now.
        """

    async def close(self) -> None:
        """Finish what must not be cut off."""


class Webhook:
    """The way in by an address alone.

    Args:
        url: The webhook up to the method's name; it holds the secret.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.secrets = secret_parts(url)

    async def credential(self) -> Credential:
        """Return nothing to show: the address says it all."""
        return Credential({}, renewable=False)

    async def renew(self, refused: Credential) -> Credential:
        """Return *refused*: a person makes a new webhook."""
        return refused

    async def close(self) -> None:
        """Do nothing."""


def secret_parts(url: str) -> tuple[str, ...]:
    """Return what must not be repeated of a webhook's address: its path from the secret back."""
    parts = urlsplit(url)
    segments = [s for s in parts.path.split("/") if s]
    tail = list(takewhile(lambda s: s != "rest", reversed(segments)))
    long_enough = 6  # the user's number is no secret, nor are the words of a mock's path
    secret = tail[:1] if len(tail) < len(segments) else []
    parts_ = (parts.password or "", *(s for s in tail if len(s) >= long_enough), *secret)
    return tuple(dict.fromkeys(s for s in parts_ if s))

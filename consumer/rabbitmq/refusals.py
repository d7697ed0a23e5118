"""Why a connection could not be opened: in the broker's words, and what to fix."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager

import aiormq.exceptions
from yarl import URL

from consumer.rabbitmq.losses import BrokerUnavailable, ConnectionLost, nameless_losses, words_of
from consumer.unreachable import NO_TLS, cause_of


class LoginRefused(BrokerUnavailable):
    """Raised when the broker refuses this user; trying again would not help."""


@contextmanager
def refusals_named(url: str) -> Iterator[None]:
    """Turn what aiormq raises while it connects to *url* into the broker's words, or the cause.

    Raises:
        LoginRefused, BrokerUnavailable: It did not work.
    """
    address = URL(url)
    port = address.explicit_port or aiormq.connection.DEFAULT_PORTS[address.scheme]
    place = f"{address.host_subcomponent}:{port}"
    try:
        with nameless_losses():
            yield
    except ConnectionLost:
        raise BrokerUnavailable(f"the broker at {place} hung up: see its log") from None
    except aiormq.exceptions.ProbableAuthenticationError as error:
        raise LoginRefused(
            f"the broker at {place} refuses the user or the password"
            f" ({words_of(error)}): fix CALLS_RABBITMQ_URL"
        ) from None
    except aiormq.exceptions.AuthenticationError:
        text = "has no way to log in that we know (PLAIN): fix its auth_mechanisms"
        raise LoginRefused(f"the broker at {place} {text}") from None
    except aiormq.exceptions.ConnectionClosed as error:
        raise _refusal(place, words_of(error)) from None
    except aiormq.exceptions.ProtocolSyntaxError:
        raise BrokerUnavailable(
            f"what answers at {place} is no RabbitMQ: see CALLS_RABBITMQ_URL"
        ) from None
    except (aiormq.exceptions.AMQPError, OSError) as error:
        why = _cause(error, address.scheme)
        raise BrokerUnavailable(
            f"no broker answers at {place} ({why}): see CALLS_RABBITMQ_URL"
        ) from None


_REFUSALS: tuple[tuple[str, type[BrokerUnavailable], str], ...] = (
    ("connection limit", BrokerUnavailable, "raise that limit, or close connections"),
    (
        "vhost .* not found",
        LoginRefused,
        "make the virtual host, or name another in CALLS_RABBITMQ_URL",
    ),
    (
        "refused for user",
        LoginRefused,
        "give the user permissions there, or name another virtual host in CALLS_RABBITMQ_URL",
    ),
    ("is down|CONNECTION_FORCED", BrokerUnavailable, "wait for it, or see its log"),
)
"""What the broker may say when a connection is opened, and what to do: the first that fits."""


def _refusal(place: str, words: str) -> BrokerUnavailable:
    for pattern, kind, advice in _REFUSALS:
        if re.search(pattern, words):
            return kind(f"the broker at {place} refuses the connection: {words}: {advice}")
    return BrokerUnavailable(f"the broker at {place} refuses the connection: {words}: see its log")


def _cause(error: BaseException, scheme: str) -> str:
    if isinstance(error.__cause__, asyncio.IncompleteReadError | ConnectionResetError):
        hint = "; if it wants TLS write amqps://" if scheme == "amqp" else ""
        return f"it closed the connection at our first words{hint}"
    cause = cause_of(error)
    return f"{cause}; write amqp://, or its port for TLS" if cause == NO_TLS else cause

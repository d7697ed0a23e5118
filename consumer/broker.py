"""One way to connect to RabbitMQ: named, within a time limit, its errors saying what to mend."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aio_pika
import aiormq.exceptions
from aio_pika.abc import AbstractConnection
from pamqp import decode
from yarl import URL

CONNECT_TIMEOUT_S = 5.0
HEARTBEAT_S = 10
"""A link that died in silence is noticed after some three of these."""
LINK_BROKE = "the link to the broker broke"
LINK_ERRORS = (aiormq.exceptions.AMQPError, OSError, RuntimeError)
"""What a call over a lost link raises inside `link_losses`; to aio-pika that it is closed is a
plain RuntimeError."""


def _read_leniently(kind: str, size: Callable[[bytes], int], instead: Callable[[], Any]) -> None:
    """Let a property that cannot be read count as not there.

    pamqp raises (a time in nanoseconds, a name in Latin-1, tables nested too deep), which breaks
    the connection, and once more at each redelivery of that one message.
    """
    strict = decode.METHODS[kind]

    def read(value: bytes) -> tuple[int, Any]:
        try:
            return strict(value)
        except (ValueError, OverflowError, OSError, RecursionError):
            return size(value), instead()

    decode.METHODS[kind] = read


_read_leniently("timestamp", lambda _: 8, lambda: None)
_read_leniently("shortstr", lambda value: 1 + value[0], str)
_read_leniently("table", lambda value: 4 + int.from_bytes(value[:4]), dict)


class NoBroker(ConnectionError):
    """Raised when the broker cannot be used at all; says what to mend, and no password."""


def address_of(url: str, name: str) -> URL:
    """Return *url* with a heartbeat, unless it has one, and a name for the broker's tools."""
    address = URL(url).update_query(name=f"call-consumer {name}")
    return address if "heartbeat" in address.query else address.update_query(heartbeat=HEARTBEAT_S)


async def connect(url: str, name: str) -> AbstractConnection:
    """Open a plain connection that the broker's tools show under *name*.

    Raises:
        NoBroker: Nobody answers at *url*, or refuses us.
    """
    address = address_of(url, name)
    place = f"{address.host}:{address.port or 5672}"
    try:
        with link_losses():
            return await aio_pika.connect(address, timeout=CONNECT_TIMEOUT_S)
    except (aiormq.exceptions.AuthenticationError, aiormq.exceptions.ProbableAuthenticationError):
        raise NoBroker(
            f"the broker at {place} refuses the user or the password: mend CALLS_RABBITMQ_URL"
        ) from None
    except aiormq.exceptions.ConnectionNotAllowed as error:
        raise NoBroker(f"the broker at {place} refuses the virtual host: {error}") from None
    except aiormq.exceptions.InvalidFrameError as error:
        # Where the virtual host is refused, aiormq sees a frame that it does not expect.
        if "Connection.OpenOk" not in str(error):
            raise NoBroker(f"what answers at {place} is no broker") from None
        vhost = address.path.removeprefix("/") or "/"
        raise NoBroker(f"the broker at {place} refuses the virtual host: {vhost}") from None
    except (aiormq.exceptions.AMQPError, OSError) as error:
        why = LINK_BROKE if isinstance(error, NoBroker) else type(error).__name__
        raise NoBroker(f"no broker answers at {place} ({why}): see CALLS_RABBITMQ_URL") from None


@contextmanager
def link_losses() -> Iterator[None]:
    """Let a lost link be an error that can be named.

    aiormq gives the calls under way a CancelledError or, where it knows no reason, a bare
    Exception; the task itself is not cancelled then.

    Raises:
        NoBroker: It did so.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling() > 0:
            raise  # by somebody who wants the task to end
        raise NoBroker(LINK_BROKE) from None
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise NoBroker(LINK_BROKE) from None

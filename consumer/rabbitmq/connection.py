"""One way to connect to RabbitMQ: named, within a time limit, at the next address after a loss."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import aiormq.base
from aio_pika.abc import AbstractChannel, AbstractConnection, TimeoutType
from pamqp import commands, decode
from yarl import URL

from consumer.rabbitmq.losses import BrokerUnavailable
from consumer.rabbitmq.refusals import LoginRefused, refusals_named

CONNECT_TIMEOUT_S = 5.0
RPC_TIMEOUT_S = 5.0
"""How long the broker may take for one answer."""
HEARTBEAT_S = 10
"""A link that died in silence is noticed after some three of these."""


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


# Without this aiormq takes a refusal for a broken frame, and keeps the broker's words to itself.
commands.Connection.Open.valid_responses = ["Connection.OpenOk", "Connection.Close"]


# aiormq 7.2 gives out another future at each look, so that aio-pika 10.2 cannot take back what it
# has hung on one: the connection would keep some 4 KB of each channel that is opened over it.
aiormq.base.Base.closing = property(lambda self: self._closing)  # type: ignore[method-assign,assignment]


class Addresses:
    """The brokers of `CALLS_RABBITMQ_URL`, the one to try first in front.

    Args:
        urls: One address, or several with commas between.
    """

    def __init__(self, urls: str) -> None:
        self._turns = deque(urls.split(","))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._turns)

    @property
    def first(self) -> str:
        """The address to try now."""
        return self._turns[0]

    def move_on(self, url: str) -> None:
        """Try *url*, which has just failed, last of all, unless that has been done already."""
        if self.first == url:
            self._turns.rotate(-1)


_KNOWN: dict[str, Addresses] = {}


def addresses_of(urls: str) -> Addresses:
    """Return one and the same list for all connections, so that they use the same broker."""
    return _KNOWN.setdefault(urls, Addresses(urls))


def forget(urls: str) -> None:
    """Forget a list, and the passwords in it."""
    _KNOWN.pop(urls, None)


def address_of(url: str, name: str) -> URL:
    """Return *url* with a heartbeat, unless it has one, and a name for the broker's tools."""
    address = URL(url).update_query(name=f"call-consumer {name}")
    return address if "heartbeat" in address.query else address.update_query(heartbeat=HEARTBEAT_S)


class PlainConnection(aio_pika.Connection):
    """A connection that is closed where it could not be opened.

    aio-pika leaves that to the garbage collector, which cannot where no event loop runs.
    """

    async def connect(self, timeout: TimeoutType = None) -> None:  # noqa: ASYNC109
        """Connect, or close."""
        try:
            await super().connect(timeout)
        except BaseException:
            await self.close()
            raise


async def connect(urls: str, name: str) -> aio_pika.Connection:
    """Open a plain connection that the broker's tools show under *name*.

    Args:
        urls: One address, or several to be tried in turn, with commas between.
        name: What the connection is for.

    Raises:
        LoginRefused: Each broker refuses us for good.
        BrokerUnavailable: None can be used now.
    """
    addresses = addresses_of(urls)
    refusals: list[BrokerUnavailable] = []
    for _ in range(len(addresses)):
        url = addresses.first
        try:
            with refusals_named(url):
                return await aio_pika.connect(
                    address_of(url, name),
                    timeout=CONNECT_TIMEOUT_S,
                    connection_class=PlainConnection,
                )
        except BaseException as error:  # who gives up waiting for a silent broker moves on, too
            addresses.move_on(url)
            if not isinstance(error, BrokerUnavailable):
                raise
            refusals.append(error)
    for_good = all(isinstance(error, LoginRefused) for error in refusals)
    kind = LoginRefused if for_good else BrokerUnavailable
    raise kind("; ".join(str(error) for error in refusals))


class RobustConnection(aio_pika.RobustConnection):
    """Comes back by itself after a loss, from the next address of the list.

    Args:
        urls: As for `connect`.
        name: As for `connect`.
        url: Ignored: the address as FastStream has it.
        options: As aio-pika has them.
    """

    def __init__(self, urls: str, name: str, url: URL, **options: Any) -> None:  # noqa: ANN401
        super().__init__(url, **options)
        self._addresses = addresses_of(urls)
        self._name = name
        self._take_turn()

    def _take_turn(self) -> None:
        self._tried = self._addresses.first
        self.url = address_of(self._tried, self._name)

    async def connect(self, timeout: TimeoutType = None) -> None:  # noqa: ASYNC109
        """Connect for the first time.

        Raises:
            LoginRefused, BrokerUnavailable: As `connect` has it.
        """
        with refusals_named(self._tried):
            await super().connect(timeout)

    async def _on_connection_close(self, closing: asyncio.Future[Any]) -> None:
        self._addresses.move_on(self._tried)
        self._take_turn()
        await super()._on_connection_close(closing)


@asynccontextmanager
async def plain_channel(connection: AbstractConnection) -> AsyncIterator[AbstractChannel]:
    """Open a channel for a while. Unlike a robust connection's own it never opens itself anew."""
    channel = aio_pika.Channel(connection, publisher_confirms=False)
    await channel.initialize()
    try:
        yield channel
    finally:
        # Cancelled meanwhile, aiormq would close it again, and the broker then the connection.
        await asyncio.shield(channel.close())

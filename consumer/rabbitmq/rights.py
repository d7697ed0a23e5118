"""What a user of the broker may do, asked of the broker without doing it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from aiormq.abc import AbstractChannel, ArgumentsType
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed

from consumer.errors import OperatorError
from consumer.rabbitmq.connection import connect, plain_channel
from consumer.rabbitmq.losses import link_losses, words_of

NO_PRIORITY: ArgumentsType = {"x-priority": "none"}
SEE = "see Rights on the broker in OPERATING.md"


class NotAllowed(OperatorError):
    """Raised where the broker refuses this user a right; says which, in the broker's words."""


def signed_in_as(urls: str, user: str, password: str) -> str:
    """Return the addresses with another user, who logs in by this password and nothing else."""
    return ",".join(_signed_in_as(url, user, password) for url in urls.split(","))


def _signed_in_as(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    place = f"{quote(user, safe='')}:{quote(password, safe='')}@{host}"
    query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != "auth"]
    return urlunsplit(parts._replace(netloc=place, query=urlencode(query)))


async def see_may_publish(url: str, exchange: str, routing_key: str) -> None:
    """See that this user may publish there: in a transaction that is rolled back.

    Source: https://www.rabbitmq.com/docs/semantics#tx

    Raises:
        NotAllowed: The user may not.
        BrokerUnavailable: It cannot be told now.
    """
    async with _asking(url) as channel:
        await channel.tx_select()
        await channel.basic_publish(b"", exchange=exchange, routing_key=routing_key)
        await channel.tx_rollback()


async def see_may_read(url: str, queue: str) -> None:
    """See that this user may read a queue: the right comes first, then the odd argument.

    Raises:
        NotAllowed: The user may not, or there is no such queue.
        BrokerUnavailable: It cannot be told now.
    """
    async with _asking(url) as channel:
        with suppress(ChannelPreconditionFailed):
            await channel.basic_consume(queue, _ignore, arguments=NO_PRIORITY)


@asynccontextmanager
async def _asking(url: str) -> AsyncIterator[AbstractChannel]:
    connection = await connect(url, "rights")
    async with connection:
        with link_losses():
            async with plain_channel(connection) as channel:
                try:
                    yield await channel.get_underlay_channel()
                except (ChannelAccessRefused, ChannelNotFoundEntity) as error:
                    raise NotAllowed(f"{words_of(error)}: {SEE}") from None


async def _ignore(_: object) -> None:
    """Do nothing with a message that never comes."""

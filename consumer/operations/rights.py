"""What an operator may do: the broker's own rights decide, of the user in `CALLS_RABBITMQ_URL`."""

from consumer.messages import CANCEL
from consumer.rabbitmq.losses import BrokerUnavailable
from consumer.rabbitmq.refusals import LoginRefused
from consumer.rabbitmq.rights import see_may_publish, see_may_read
from consumer.rabbitmq.topology import topology_of
from consumer.settings import Settings


async def see_may_look(settings: Settings) -> None:
    """See that this user may read the dead letters: then, too, what the ledger tells.

    Raises:
        LoginRefused, NotAllowed: The broker says no.
        BrokerUnavailable: It cannot be asked.
    """
    queue = topology_of(settings).dead_letters.name
    await see_may_read(settings.needed("rabbitmq_url"), queue)


async def see_may_still_look(settings: Settings) -> None:
    """See that again; while the broker is away, what the ledger tells may be read.

    Raises:
        LoginRefused, NotAllowed: The broker says no.
    """
    try:
        await see_may_look(settings)
    except LoginRefused:
        raise
    except BrokerUnavailable:
        return


async def see_may_order(settings: Settings) -> None:
    """See that this user may take requests back: to pause and to block calls come to the same.

    Raises:
        NotAllowed: The broker says no.
        BrokerUnavailable: It cannot be asked.
    """
    await see_may_publish(settings.needed("rabbitmq_url"), settings.exchange, CANCEL)


async def see_may_send_back(settings: Settings) -> None:
    """See that this user may publish to the queue of requests.

    Raises:
        NotAllowed: The broker says no.
        BrokerUnavailable: It cannot be asked.
    """
    await see_may_publish(settings.needed("rabbitmq_url"), "", settings.queue)

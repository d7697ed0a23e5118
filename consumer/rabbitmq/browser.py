"""Look at the messages of a queue, or remove some; the others go back in their order.

A quorum queue puts a returned message behind those that were returned before, and before those that
nobody has received yet. So after some are put back, all that had been returned before must be put
back again after them.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aiormq.exceptions import ChannelClosed

from consumer.errors import OperatorError
from consumer.rabbitmq.connection import connect
from consumer.rabbitmq.declaration import WrongTopology
from consumer.rabbitmq.losses import LINK_BROKE, BrokerUnavailable, ConnectionLost, link_losses
from consumer.rabbitmq.queue_counts import QueueCounts
from consumer.rabbitmq.unread import Unread

SILENCE_S = 10.0
"""Messages that do not come within this are in somebody else's hands."""
PUT_BACK_S = 5.0
"""How long the broker may take to have again what was let go."""
WINDOW = 65_535
"""Messages in one consumer's browser: a prefetch has 16 bits, and none at all means 2,000."""
WENT_BACK = "what was in hand went back: do it again"


class DeliveriesReturned(BrokerUnavailable):
    """Raised when the broker took back unacknowledged messages, though connected; says why."""


class QueueBusy(OperatorError):
    """Raised when somebody else has taken all messages, to look at or to replay them."""


@asynccontextmanager
async def browse(
    url: str, queue: str, window: int = WINDOW, *, evicted: str | None = None
) -> AsyncIterator["QueueBrowser"]:
    """Take what *queue* holds; what is not acknowledged goes back in order.

    Args:
        url: The broker.
        queue: A quorum queue.
        window: How many messages to take at first.
        evicted: A classic queue, where the broker puts what it takes out of *queue*.

    Raises:
        BrokerUnavailable, WrongTopology: The broker or the queue cannot be reached.
        DeliveriesReturned: It was held for longer than the broker allows, or the queue is gone.
        QueueBusy: There is nothing left to take.
    """
    connection = await connect(url, "dead letters")
    async with connection:
        browser = QueueBrowser(str(connection.url), connection, queue, window, evicted)
        await browser.count_all()
        try:
            with link_losses():
                yield browser
        except ConnectionLost:
            raise browser.loss() from None
        finally:  # also when interrupted: a connection's end alone would put back in any order
            with suppress(ConnectionLost, WrongTopology), link_losses():
                await browser.put_back()


class QueueBrowser:
    """The messages of a queue, after those that the broker has evicted from it.

    Attributes:
        count: How many the queue held when it was opened.
        gone: How many messages have been acknowledged since.
    """

    def __init__(
        self,
        url: str,
        connection: AbstractConnection,
        queue: str,
        window: int,
        evicted: str | None = None,
    ) -> None:
        self._url = url
        self._connection = connection
        self._queue = queue
        self._window = window
        self._evicted = evicted
        self._counts = QueueCounts(connection, queue, evicted)
        self._aside = 0
        self._taken_back: str | None = None
        self._channels: list[AbstractChannel] = []
        self._taken = 0
        self._last: AbstractIncomingMessage | None = None
        self.count = 0
        self.gone = 0

    async def count_all(self) -> None:
        """Count what there is to take.

        Raises:
            QueueBusy: Nothing, because somebody else has it.
        """
        now = await self._counts.now()
        self.count = now.message_count or 0
        if self.count == 0 and now.consumer_count and not (await self._counts.aside())[0]:
            raise QueueBusy(
                f"another command has all messages of {self._queue} in hand: try again afterwards"
            )

    async def messages(self, at_least: int = 0) -> AsyncIterator[AbstractIncomingMessage]:
        """Yield all messages in order, one consumer after the other, each with its window."""
        # Those come first: once they are taken, the worker cannot move them back meanwhile.
        async for message in self._evicted_ones():
            yield message
        arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        everything = max(self.count, at_least)
        while self._taken < everything:
            taken = min(self._window, WINDOW, everything - self._taken)
            self._taken += taken
            self._window *= 4
            await self._consume(taken, arrived)
            for _ in range(taken):
                if arrived.empty():
                    try:
                        async with asyncio.timeout(SILENCE_S):
                            self._last = await arrived.get()
                    except TimeoutError:
                        if self._taken_back or self._connection.is_closed:
                            raise self.loss() from None
                        return
                else:
                    self._last = arrived.get_nowait()
                yield self._last

    async def _evicted_ones(self) -> AsyncIterator[AbstractIncomingMessage]:
        """Yield what the broker has evicted, one by one: the worker takes from there, too."""
        if self._evicted is None or not (await self._counts.aside())[0]:
            return
        channel = await self._connection.channel()
        self._channels.append(channel)
        queue = await channel.get_queue(self._evicted, ensure=False)
        while (message := await queue.get(fail=False)) is not None:
            self._aside += 1
            yield message

    async def _consume(
        self, prefetch: int, arrived: asyncio.Queue[AbstractIncomingMessage]
    ) -> None:
        channel = await self._connection.channel()
        self._channels.append(channel)
        channel.close_callbacks.add(self._note_close)
        (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(self._note_cancel)
        await channel.set_qos(prefetch_count=prefetch)
        queue = await channel.get_queue(self._queue, ensure=False)
        await queue.consume(arrived.put)

    async def remove(self, message: AbstractIncomingMessage) -> None:
        """Remove a message for good.

        Raises:
            DeliveriesReturned: The broker took it back.
        """
        if self._taken_back is not None:
            raise self.loss()
        await message.ack()
        self.gone += 1

    def _note_close(self, _: object, error: BaseException | None) -> None:
        if isinstance(error, ChannelClosed):
            self._taken_back = " ".join(str(error).split())

    def _note_cancel(self, _: object) -> None:
        self._taken_back = "its consumer timeout passed, or the queue is gone"

    def loss(self) -> BrokerUnavailable:
        """Return the error that says why the broker took everything back."""
        if self._taken_back is None or self._connection.is_closed:
            return BrokerUnavailable(f"{LINK_BROKE}, {WENT_BACK}")
        return DeliveriesReturned(
            f"the broker took back the messages of {self._queue} ({self._taken_back}): {WENT_BACK}"
        )

    async def put_back(self) -> None:
        """Let go of everything in order, and see it back: the broker takes a moment for that."""
        unread = await self._hold_rest() if self._last and self._last.redelivered else []
        for channel in self._channels:
            await channel.close()
        back = self._aside + self._taken - self.gone
        for held in unread:
            await self._see_back(back)
            await held.let_go()
            back += held.count
        await self._see_back(self._aside + self.count - self.gone)

    async def _hold_rest(self) -> list[Unread]:
        """Keep all that nobody has looked at from staying before what has been looked at."""
        unread: list[Unread] = []
        left = self.count - self._taken
        while left > 0:
            held = Unread(min(left, WINDOW))
            await held.take(self._url, self._queue)
            unread.append(held)
            left -= held.count
        if unread:
            # What has come since is nobody's to hold, so that there may always be some.
            await self._wait_until(self._none_ready)
        return unread

    async def _see_back(self, count: int) -> None:
        async def back() -> bool:
            if (ready := await self._counts.ready()) >= count:
                return True
            # Where a worker brings back what was evicted, the next look is to find all of it.
            evicted, workers = await self._counts.aside()
            return not workers and ready + evicted >= count

        await self._wait_until(back)

    async def _none_ready(self) -> bool:
        return await self._counts.ready() == 0

    async def _wait_until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Ask until it *holds*, for a while at most.

        A timeout would not do: aiormq may swallow the cancellation that comes while it asks.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + PUT_BACK_S
        while not await holds() and clock() < deadline:  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.01)

"""A look at the dead letters, whose result a page may show before the look is over."""

import asyncio
import time
from contextlib import aclosing

from consumer.errors import OperatorError
from consumer.operations.choice import Choice
from consumer.operations.dead_letter import DeadLetter, Groups
from consumer.operations.dead_letters import look
from consumer.rabbitmq.browser import QueueBusy
from consumer.rabbitmq.topology import topology_of
from consumer.settings import Settings

AT_FIRST = 1_000
"""So many dead letters are looked at for a page, unless somebody asks for all."""
MOST = 10_000
"""So many go back, or are discarded, in one go."""
MOST_BYTES = 32_000_000
WAIT_S = 2.0
FRESH_S = 20.0
BUSY_S = 15.0
"""For so long a replay may have everything in hand."""


class Survey:
    """What was found so far; the look goes on in a task of its own.

    Args:
        settings: Those of whoever looks.
        choice: Which dead letters.
        limit: How many are enough; None for all.
        keep: Of how many to keep more than a count.
        looking: Held while dead letters are in hand.
    """

    def __init__(
        self,
        settings: Settings,
        choice: Choice,
        limit: int | None,
        keep: int,
        looking: asyncio.Lock,
    ) -> None:
        self.choice = choice
        self.limit = limit
        self.groups = Groups()
        self.letters: list[DeadLetter] = []
        self.found = self.looked = self.total = 0
        self.error = ""
        self.at = time.time()
        self._keep = keep
        self._bytes = 0
        self._ready = asyncio.Event()
        self._task = asyncio.create_task(self._look(settings, looking))

    @property
    def ready(self) -> bool:
        """Whether everything is there that was asked for."""
        return self._ready.is_set()

    @property
    def fresh(self) -> bool:
        """Whether it need not be made anew."""
        return not self.ready or (not self.error and time.time() - self.at < FRESH_S)

    @property
    def cut_short(self) -> bool:
        """Whether there may be more."""
        return self.found == self.limit or self._bytes > MOST_BYTES

    async def wait(self) -> bool:
        """Wait for it, but not for long; tell whether it is ready."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self._ready.wait()
        except TimeoutError:
            pass
        return self.ready

    async def _look(self, settings: Settings, looking: asyncio.Lock) -> None:
        give_up_at = time.monotonic() + BUSY_S
        try:
            async with looking:
                while not await self._look_once(settings, last=time.monotonic() > give_up_at):  # noqa: ASYNC110  # no event tells
                    await asyncio.sleep(0.5)
        except OperatorError as error:
            self.error = str(error)
        finally:
            self.letters.sort(key=lambda letter: letter.failed_at or "")
            self._ready.set()

    async def _look_once(self, settings: Settings, *, last: bool) -> bool:
        """Look; False if somebody has everything in hand for the moment."""
        url, topology = settings.needed("rabbitmq_url"), topology_of(settings)
        letters = look(url, topology, self.choice, self.limit, seen=self._note)
        try:
            async with aclosing(letters):
                async for letter in letters:
                    self._add(letter)
                    if self.cut_short:
                        self.letters.sort(key=lambda letter: letter.failed_at or "")
                        self._ready.set()  # to put all back in its order may take seconds
                    if self._bytes > MOST_BYTES:
                        break
        except QueueBusy:
            if last:
                raise
            return False
        return True

    def _add(self, letter: DeadLetter) -> None:
        self.found += 1
        self.groups.add(letter)
        if len(self.letters) < self._keep:
            self.letters.append(letter)
            self._bytes += len(letter.body)

    def _note(self, looked: int, total: int) -> None:
        self.looked, self.total = looked, max(total, looked)

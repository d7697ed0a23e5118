"""A look at the dead letters, whose result a page may show before the look is over."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing

from consumer.errors import OperatorError
from consumer.operations.choice import Choice
from consumer.operations.dead_letter import DeadLetter, Groups
from consumer.operations.dead_letters import look
from consumer.operations.filters import in_words
from consumer.rabbitmq.browser import QueueBusy
from consumer.rabbitmq.topology import topology_of
from consumer.settings import Settings

AT_FIRST = 1_000
"""So many dead letters are looked at for a page, unless somebody asks for all."""
SHOWN = 200
"""So many are in a list."""
MOST = 10_000
"""So many go back, or are discarded, in one go."""
MOST_BYTES = 16_000_000
WAIT_S = 2.0
FRESH_S = 20.0
FRESH_TIMES = 5
"""A look that took long is good for so many times as long."""
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
        self._began = self._fresh_until = time.monotonic()
        self._ready = asyncio.Event()
        self._task = asyncio.create_task(self._look(settings, looking))

    @property
    def ready(self) -> bool:
        """Whether everything is there that was asked for."""
        return self._ready.is_set()

    @property
    def fresh(self) -> bool:
        """Whether it need not be made anew."""
        return not self.ready or (not self.error and time.monotonic() < self._fresh_until)

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
            self._be_ready()

    async def _look_once(self, settings: Settings, *, last: bool) -> bool:
        """Look; False if somebody has everything in hand for the moment."""
        url, topology = settings.needed("rabbitmq_url"), topology_of(settings)
        letters = look(url, topology, self.choice, self.limit, seen=self._note)
        try:
            async with aclosing(letters):
                async for letter in letters:
                    self._add(letter)
                    if self.cut_short:
                        self._be_ready()  # to put all back in its order may take seconds
                    if self._bytes > MOST_BYTES:
                        break
        except QueueBusy:
            if last:
                raise
            return False
        return True

    def stop(self) -> None:
        """Look no further: nobody asks any more."""
        self._task.cancel()

    def _be_ready(self) -> None:
        if not self.ready:
            now = time.monotonic()
            self._fresh_until = now + max(FRESH_S, FRESH_TIMES * (now - self._began))
            self.letters.sort(key=lambda letter: letter.failed_at or "")
            self._ready.set()

    def _add(self, letter: DeadLetter) -> None:
        self.found += 1
        self.groups.add(letter)
        if len(self.letters) < self._keep:
            self.letters.append(letter)
            self._bytes += len(letter.body)

    def _note(self, looked: int, total: int) -> None:
        self.looked, self.total = looked, max(total, looked)


class Selection:
    """What somebody chose, and the looks for its list and for what is to be done with all of it.

    Args:
        choice: Which dead letters.
        settings: Those of whoever chose.
        looking: As `Survey` has it.
    """

    def __init__(self, choice: Choice, settings: Settings, looking: asyncio.Lock) -> None:
        self.choice = choice
        self._settings = settings
        self._looking = looking
        self._shown: Survey | None = None
        self._taken: Survey | None = None

    @property
    def words(self) -> str:
        """Say what it is."""
        return in_words(self.choice)

    @property
    def shown(self) -> Survey:
        """The look for a list."""
        self._shown = self._fresh(self._shown, AT_FIRST, SHOWN)
        return self._shown

    @property
    def taken(self) -> Survey:
        """The look for all of it, up to a limit."""
        self._taken = self._fresh(self._taken, MOST, MOST)
        return self._taken

    @property
    def letters(self) -> Sequence[DeadLetter]:
        """What has been taken, for a plan."""
        return self._taken.letters if self._taken is not None and self._taken.ready else ()

    def listed(self, n: int | None) -> DeadLetter | None:
        """Return a letter of the list, or the newest replay among all."""
        letters = self._shown.letters if self._shown is not None else []
        if n is None:
            return max(letters, key=lambda letter: letter.replay, default=None)
        return letters[n] if n < len(letters) else None

    def stop(self) -> None:
        """Look no further, and look anew next time."""
        for survey in (self._shown, self._taken):
            if survey is not None:
                survey.stop()
        self._taken = None

    def _fresh(self, survey: Survey | None, limit: int, keep: int) -> Survey:
        if survey is not None and survey.fresh:
            return survey
        return Survey(self._settings, self.choice, limit, keep, self._looking)

"""Follows up calls that were started: reads the call history on, and tells how they ended.

The history shows a call when it has ended. One worker of all reads it, by the id of its rows, while
a call is open. What a page shows is noted in the ledger first, then published, then noted as
published: at whichever point the worker dies, another one goes on, with the same event.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import structlog

from consumer.bitrix24.call_history import PAGE_ROWS, Page, after, by_call_ids
from consumer.completed import CompletedPublisher
from consumer.findings import LookUpFailed, NoHistory
from consumer.history import History
from consumer.ledger import Ledger, LedgerDown
from consumer.ledger.ages import Ages
from consumer.ledger.completions import OpenCall
from consumer.limits.rate_limiter import RateLimiter
from consumer.messages import Ending
from consumer.messages.endings import NEVER_SHOWN
from consumer.reconciler import Reconciler

BEAT_S = 5.0
WATCH_S = 1.0
FIRST_PAUSE_S = 5.0
"""Between two looks whether a call is open, and before the first reading after one is; from there
on the pause doubles."""
PAUSE_S = 30.0
LONG_PAUSE_S = 60.0
"""Where one page does not hold what is new: fewer pages are read half empty."""
REFUSED_PAUSE_S = 3600.0
OVERLAP = 25
"""Rows that are read again: one with a lower id may become visible later."""
LATE_S = 300.0
"""A call that is open for so long is asked for by its id, in case its row came out of order."""
GIVE_UP_S = 7200.0
"""A call lasts an hour at most: https://helpdesk.bitrix24.com/open/18265028"""
MOST_LATE = 500

log = structlog.get_logger(__name__)


class Follower:
    """Waits for the rows of open calls, on the one worker that has the lease.

    Args:
        owner: Which worker process this is.
        ledger: Knows which calls are open, and who follows them up.
        history: Where it is shown how they ended.
        reconciler: Resolves doubts by what is shown.
        ages: Say for how long a call is open.
        rate_limiter: Knows whether this process places calls.
        completed: Publishes the events.
    """

    def __init__(  # noqa: PLR0913  # it asks, notes and tells
        self,
        owner: str,
        *,
        ledger: Ledger,
        history: History,
        reconciler: Reconciler,
        ages: Ages,
        rate_limiter: RateLimiter,
        completed: CompletedPublisher,
    ) -> None:
        self._owner = owner
        self._completions = ledger.completions
        self._lease = ledger.completions.lease
        self._history = history
        self._reconciler = reconciler
        self._ages = ages
        self._rate_limiter = rate_limiter
        self._completed = completed
        self._pause_s = FIRST_PAUSE_S
        self._is_open = False
        self._read_at = float("-inf")
        self._late_at = float("-inf")
        self._begun = False

    @property
    def jobs(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What is to be run for ever, by name."""
        return {"follow": self._follow, "follow_lease": self._keep_lease}

    async def _keep_lease(self) -> None:
        """See that one worker follows: the one that places calls, as it knows what the rate allows.

        A worker without calls leaves the lease to who has it, while that one lives.
        """
        known_calls = 0
        while True:
            calling, known_calls = self._rate_limiter.calls > known_calls, self._rate_limiter.calls
            with suppress(LedgerDown):
                await self._lease.beat(self._owner, at_once=calling)
            await asyncio.sleep(BEAT_S)

    async def release(self) -> None:
        """Leave it to another worker.

        Raises:
            LedgerDown: It finds out by itself, a little later.
        """
        await self._lease.release(self._owner)

    async def _follow(self) -> None:
        """Read on while a call is open."""
        while True:
            if self._lease.held:
                with suppress(LedgerDown):
                    await self._completed.publish()
                    await self._read_if_due()
            await asyncio.sleep(WATCH_S)

    async def _read_if_due(self) -> None:
        if time.monotonic() - self._read_at < self._pause_s:
            return
        was_open, self._is_open = self._is_open, await self._completions.something_open()
        if self._is_open and was_open:
            await self._read()
        elif self._pause_s <= LONG_PAUSE_S:
            self._pause_s = FIRST_PAUSE_S
        self._read_at = time.monotonic()

    async def _read(self) -> None:
        """Read all that is new, and ask for what should have been there."""
        pages = await self._read_on()
        if isinstance(pages, NoHistory):
            # If it could be read before, that may be so again soon.
            pause_s = 2 * self._pause_s if await self._history.was_readable() else REFUSED_PAUSE_S
            self._pause_s = min(pause_s, REFUSED_PAUSE_S)
        elif isinstance(pages, int):
            self._pause_s = min(2 * self._pause_s, PAUSE_S if pages == 1 else LONG_PAUSE_S)
            if time.monotonic() - self._late_at >= LATE_S:
                self._late_at = time.monotonic()
                await self._ask_for_late()

    async def _read_on(self) -> int | NoHistory | LookUpFailed:
        """Read the pages after the last row that is known, and say how many they were."""
        if not self._begun:
            latest = await self._begin()
            if not isinstance(latest, Page):
                return latest
        cursor = await self._lease.cursor() or 0
        read_to = max(0, cursor - OVERLAP)
        pages = 0
        while self._lease.held:
            page = await self._history.read(after(read_to))
            if not isinstance(page, Page):
                return page
            pages += 1
            await self._take(page)
            if page.last_id > cursor:
                cursor = page.last_id
                await self._lease.move_cursor(cursor)
                if page.odd:
                    log.warning("history.odd_rows", rows=page.odd)
            if not page.full or page.last_id <= read_to:
                break
            read_to = page.last_id
        return pages

    async def _begin(self) -> Page | NoHistory | LookUpFailed:
        """Look at the latest rows first: in another portal, or one made anew, ids are others."""
        page = await self._history.read(after(None))
        if isinstance(page, Page):
            cursor = await self._lease.cursor()
            if cursor is None or page.last_id < cursor:
                await self._lease.move_cursor(page.last_id)
            await self._take(page)
            self._begun = True
        return page

    async def _take(self, page: Page) -> None:
        """Note what a page shows: how calls of ours ended, and which doubts it resolves."""
        try:
            await self._note(page)
            await self._reconciler.resolve_seen(page.rows)
        except LedgerDown:
            raise
        except Exception:
            log.exception("history.bug")
        await self._completed.publish()

    async def _note(self, page: Page) -> None:
        calls = await self._completions.open_among(list(page.endings))
        await self._note_all([(call, page.endings[call.call_id]) for call in calls])

    async def _note_all(self, ended: Sequence[tuple[OpenCall, Ending]]) -> None:
        now = time.time()
        await asyncio.gather(*(self._completions.note(call, how, now) for call, how in ended))

    async def _ask_for_late(self) -> None:
        """Ask for calls by their ids whose rows are late; give up those that are too late."""
        calls = await self._completions.open_calls(MOST_LATE)
        # A history that shows no call of ours is not asked before there is something to tell.
        least_s = LATE_S if self._history.shown else GIVE_UP_S
        late = [call for call in calls if self._age_s(call) >= least_s]
        for first in range(0, len(late), PAGE_ROWS // 2):
            batch = late[first : first + PAGE_ROWS // 2]
            page = await self._history.read(by_call_ids([call.call_id for call in batch]))
            if not isinstance(page, Page) or page.full:
                return
            await self._take(page)
            silent = [call for call in batch if call.call_id not in page.endings]
            given_up = [call for call in silent if self._age_s(call) >= GIVE_UP_S]
            await self._note_all([(call, NEVER_SHOWN) for call in given_up])
        await self._completed.publish()

    def _age_s(self, call: OpenCall) -> float:
        key = ("open", call.request_id, call.replay)
        return self._ages.age_s(key, call.started_at, call.clock_offset_s)

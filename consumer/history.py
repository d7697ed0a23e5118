"""Reads the portal's call history, for all who need it, and knows how far it can be trusted."""

import time
from collections.abc import Mapping, Sequence

import structlog

from consumer.bitrix24.call_history import Page, Row, Wanted, by_call_ids
from consumer.bitrix24.portal import Portal
from consumer.findings import LookUpFailed, NoHistory
from consumer.ledger import Ledger
from consumer.limits.rate_limiter import RateLimiter

MOST_PAGES = 20
PROOF_CANDIDATES = 3
PROOF_LASTS_S = 3600.0
LONGEST_YIELDING_S = 60.0
"""Reading goes on while there are always calls that wait: a page a minute costs them under 1 %."""

log = structlog.get_logger(__name__)


class History:
    """The call history, as one webhook may see it.

    It counts as readable only once it has shown one of our calls: a user who may see only own calls
    gets a good answer without any automatic call. Whichever page shows one is proof.

    Three clocks may disagree: ours, that of the portal's web server and that of its telephony,
    which dates the calls. The first two are known; how far the third is from ours, calls show whose
    ids the ledger knows.

    Args:
        lag_s: After so many seconds the history should show a call.
    """

    def __init__(
        self, ledger: Ledger, portal: Portal, rate_limiter: RateLimiter, *, lag_s: float
    ) -> None:
        self._ledger = ledger
        self._portal = portal
        self._rate_limiter = rate_limiter
        self._lag_s = lag_s
        self._shown_at = float("-inf")
        self._warned = False
        self.row_offset_s: float | None = None
        """How far the clock that dates the calls is ahead of ours; None if unknown."""

    @property
    def clock_offset_s(self) -> float | None:
        """How far the clock of the portal's web server is ahead of ours; None if unknown."""
        return self._portal.clock_offset_s

    @property
    def shown(self) -> bool:
        """Whether it has shown a call of ours not long ago."""
        return time.monotonic() - self._shown_at < PROOF_LASTS_S

    async def read(self, parameters: Mapping[str, object]) -> Page | NoHistory | LookUpFailed:
        """Ask for one page, after all calls that wait for their turn."""
        await self._rate_limiter.acquire_after_others(LONGEST_YIELDING_S)
        return await self._portal.history(parameters)

    async def find(self, wanted: Wanted) -> list[Row] | NoHistory | LookUpFailed:
        """Return the calls that are *wanted*: all of them, or the reason why not."""
        found: list[Row] = []
        start = 0
        for _ in range(MOST_PAGES):
            page = await self._ask(wanted.parameters() | {"start": start})
            if not isinstance(page, Page):
                return page
            found += [row for row in page.rows if wanted.matches(row)]
            if page.next_start is None or wanted.lies_before(page.rows):
                return found
            start = page.next_start
        return LookUpFailed("too many calls")

    async def _ask(self, parameters: Mapping[str, object]) -> Page | NoHistory | LookUpFailed:
        """Ask for a page that is believed only if all of it can be read."""
        await self._rate_limiter.acquire()
        page = await self._portal.history(parameters)
        return NoHistory() if isinstance(page, Page) and page.odd else page

    async def unknown(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows that belong to no call that the ledger knows.

        Raises:
            LedgerDown: That cannot be told.
        """
        known = await self._ledger.search.known_calls([row.call_id for row in rows if row.call_id])
        for row in rows:
            if row.call_id in known:
                await self._note_shown(row, known[row.call_id])
        return [row for row in rows if row.call_id not in known]

    async def _note_shown(self, row: Row, claimed_at: float) -> None:
        """Note that the history shows our calls, and how its clock differs from ours."""
        if claimed_at:
            self.row_offset_s = row.started_at - claimed_at
        if not self.shown:
            await self._ledger.history_seen.note()
        self._shown_at = time.monotonic()

    async def is_shown(self) -> bool:
        """Tell whether the history shows calls of ours, and ask it if that is not known.

        Raises:
            LedgerDown: It cannot be told which calls are ours.
        """
        if self.shown:
            return True
        for call_id in await self._candidates():
            page = await self._ask(by_call_ids([call_id]))
            if isinstance(page, Page):
                await self.unknown([row for row in page.rows if row.call_id == call_id])
            if self.shown:
                return True
        return False

    async def _candidates(self) -> list[str]:
        """Return call ids that the history should show: the latest, and the latest surely ended."""
        now = time.time()
        latest = await self._ledger.search.recent_call_ids(now, PROOF_CANDIDATES)
        ended = await self._ledger.search.recent_call_ids(now - self._lag_s, PROOF_CANDIDATES)
        return list(dict.fromkeys(latest + ended))

    async def was_readable(self) -> bool:
        """Say once which right is missing; tell whether it was there before.

        Raises:
            LedgerDown: It cannot be told.
        """
        if not self._warned:
            self._warned = True
            log.warning(
                "history.unreadable",
                advice="grant the webhook the scope telephony and its owner Call statistics - View",
            )
        return self._shown_at > float("-inf") or await self._ledger.history_seen.not_long_ago()

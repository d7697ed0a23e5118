"""Asks the portal's call history about a call whose answer was lost."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import structlog

from consumer import metrics
from consumer.bitrix24.call_history import Page, Row, Wanted, by_call_id
from consumer.bitrix24.errors import REPORTED_FAILURES
from consumer.bitrix24.portal import Portal
from consumer.decision import Announce, Fail, Reconcile, Retry
from consumer.findings import Ambiguous, Found, HistoryFinding, LookUpFailed, NoHistory, NotFound
from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.ledger.ages import Ages
from consumer.ledger.changes import taken_back
from consumer.limits.rate_limiter import RateLimiter
from consumer.messages import CallRequested
from consumer.reconciliation import DoubtfulCall, reconcile

WINDOW_MARGIN_S = 120.0
"""How far the portal's idea of when a call began may lie from ours."""
NEARBY_S = 7200.0
"""A call that began so near the window may be ours all the same, if a clock is wrong."""
WHOLE_SECONDS_S = 2.0
"""The portal tells whole seconds."""
LONGEST_PLACING_S = 60.0
"""The portal cuts a request off after this."""
MOST_PAGES = 20
PROOF_CANDIDATES = 3
PROOF_LASTS_S = 3600.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of a look-up.

    Attributes:
        rang_not: Whether it is proved that the call was not placed.
        doubt_age_s: For how many seconds it has been in doubt.
    """

    decision: Announce | Retry | Fail | Reconcile
    rang_not: bool
    doubt_age_s: float


@dataclass(frozen=True, slots=True)
class Window:
    """When a call can have begun, in seconds since the epoch by whichever clock."""

    since: float
    until: float

    def covers(self, row: Row) -> bool:
        return self.since <= row.started_at <= self.until


class Reconciler:
    """Looks calls up, and knows how far the history can be trusted.

    It counts as readable only once it has shown one of our calls: a user who may see only own calls
    gets a good answer without any automatic call.

    Three clocks may disagree: ours, that of the portal's web server and that of its telephony,
    which dates the calls. The first two are known; how far the third is from ours, calls show whose
    ids the ledger knows.

    Args:
        lag_s: That a call is absent proves nothing until so many seconds after the doubt.
        delays_s: One wait in seconds per retry, growing.
        retry_unsure: Whether to dial again where no history can tell.
    """

    def __init__(  # noqa: PLR0913  # whom it asks, and the settings that decide
        self,
        ledger: Ledger,
        portal: Portal,
        rate_limiter: RateLimiter,
        ages: Ages,
        *,
        lag_s: float,
        delays_s: Sequence[int],
        retry_unsure: bool,
    ) -> None:
        self._ledger = ledger
        self._ages = ages
        self._delays_s = delays_s
        self._retry_unsure = retry_unsure
        self._portal = portal
        self._rate_limiter = rate_limiter
        self._lag_s = lag_s
        self._shown_at = float("-inf")
        self._row_offset_s: float | None = None
        self._warned = False

    async def settle(self, entry: Entry, call: CallRequested) -> Settled:
        """Look up the call that *entry* may have placed, and say what follows.

        Raises:
            LedgerDown: It cannot be told whose the calls in the history are.
        """
        doubt = self._doubt(entry)
        finding = await self.look(entry, call)
        decision = reconcile(doubt, finding, self._delays_s, self._lag_s)
        log.info(
            "call.looked_up",
            finding=type(finding).__name__,
            reason=finding.reason if isinstance(finding, LookUpFailed) else None,
            then=type(decision).__name__,
        )
        if not isinstance(decision, Reconcile):
            metrics.DOUBTS_RESOLVED.labels(_resolved(decision)).inc()
        rang_not = isinstance(finding, NotFound) and finding.conclusive
        return Settled(decision, rang_not, doubt.age_s)

    def _doubt(self, entry: Entry) -> DoubtfulCall:
        age_s = self._ages.age_of_doubt(entry)
        return DoubtfulCall(
            attempt=entry.attempt,
            replayed=entry.replayed_at > 0,
            age_s=age_s,
            looking_s=self._ages.age_of_replay(entry) if entry.replayed_at else age_s,
            may_retry=self._retry_unsure or entry.code.upper() in REPORTED_FAILURES,
            failure=entry.failure,
            taken_back=taken_back(entry.cancelled_for) if entry.cancelled_at else None,
        )

    async def look(self, entry: Entry, call: CallRequested) -> HistoryFinding:
        """Look in the history for the call that *entry* may have placed.

        Raises:
            LedgerDown: It cannot be told whose the calls are.
        """
        try:
            return await self._look(entry, call)
        except LedgerDown:
            raise
        except Exception as error:
            # An answer that our code fails to read says nothing about the call.
            log.exception("history.bug")
            return LookUpFailed(f"the answer could not be read ({type(error).__name__})")

    async def _look(self, entry: Entry, call: CallRequested) -> HistoryFinding:
        line, number = entry.line or call.from_line or "", call.to_number
        asked = self._window(entry)
        rows = await self._find(Wanted(line, number, asked.since - NEARBY_S))
        if isinstance(rows, NoHistory):
            return await self._without_history()
        if isinstance(rows, LookUpFailed):
            return rows
        unknown = await self._unknown(rows)
        shown = await self._is_shown()  # this also learns how far the telephony's clock is off
        window = self._window(entry)
        inside = [row for row in unknown if window.covers(row)]
        if inside:
            return await self._attribute(entry, inside)
        if any(row.started_at <= window.until + NEARBY_S for row in unknown):
            return LookUpFailed("a call near the time in question may be this one")
        # Each answer measures the clocks anew, and no two agree to the second.
        if window.since < asked.since - WINDOW_MARGIN_S:
            return LookUpFailed("a clock is further off than was known when it was asked for")
        return NotFound(conclusive=shown)

    async def _find(self, wanted: Wanted) -> list[Row] | NoHistory | LookUpFailed:
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

    async def _ask(self, parameters: dict[str, object]) -> Page | NoHistory | LookUpFailed:
        await self._rate_limiter.acquire()
        return await self._portal.history(parameters)

    async def _unknown(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows that belong to no call that the ledger knows."""
        known = await self._ledger.search.known_calls([row.call_id for row in rows if row.call_id])
        for row in rows:
            if row.call_id in known:
                await self._note_shown(row, known[row.call_id])
        return [row for row in rows if row.call_id not in known]

    async def _note_shown(self, row: Row, claimed_at: float) -> None:
        """Note that the history shows our calls, and how its clock differs from ours."""
        if claimed_at:
            self._row_offset_s = row.started_at - claimed_at
        if time.monotonic() - self._shown_at >= PROOF_LASTS_S:
            await self._ledger.note_history_shown()
        self._shown_at = time.monotonic()

    async def _attribute(self, entry: Entry, rows: Sequence[Row]) -> HistoryFinding:
        """Say whose *rows* are: another request in doubt may also have placed them."""
        others = [
            other
            for other in await self._ledger.search.others_in_doubt(entry)
            if any(self._window(other).covers(row) for row in rows)
        ]
        if any(other.state == "placing" for other in others):
            return LookUpFailed("another call to the number is being placed")
        if not others and not rows[0].call_id:
            return LookUpFailed("a call without an id may be this one")
        return Ambiguous() if others else Found(rows[0].call_id)

    async def _is_shown(self) -> bool:
        """Tell whether the history shows calls of ours."""
        if time.monotonic() - self._shown_at < PROOF_LASTS_S:
            return True
        for call_id in await self._candidates():
            page = await self._ask(by_call_id(call_id))
            if isinstance(page, Page):
                await self._unknown([row for row in page.rows if row.call_id == call_id])
            if time.monotonic() - self._shown_at < PROOF_LASTS_S:
                return True
        return False

    async def _candidates(self) -> list[str]:
        """Return call ids that the history should show: the latest, and the latest surely ended."""
        now = time.time()
        latest = await self._ledger.search.recent_call_ids(now, PROOF_CANDIDATES)
        ended = await self._ledger.search.recent_call_ids(now - self._lag_s, PROOF_CANDIDATES)
        return list(dict.fromkeys(latest + ended))

    def _window(self, entry: Entry) -> Window:
        """Return when a call that *entry* placed can have begun, by whichever of the clocks."""
        offsets_s = (
            0.0,
            self._portal.clock_offset_s or 0.0,
            entry.clock_offset_s or 0.0,
            self._row_offset_s or 0.0,
        )
        doubt = entry.claimed_at if entry.unsure_since is None else entry.unsure_since
        # Our own clock may have been set back since the first attempt, or during the last one.
        first = min(entry.first_claimed_at or entry.first_seen_at, doubt)
        last = max(entry.claimed_at, doubt)
        since = first + min(offsets_s) - WINDOW_MARGIN_S
        if entry.rows_from:
            after = min(entry.rows_from, doubt) + max(offsets_s) - WHOLE_SECONDS_S
            since = max(since, after)
        return Window(since, last + LONGEST_PLACING_S + max(offsets_s) + WINDOW_MARGIN_S)

    async def _without_history(self) -> NoHistory | LookUpFailed:
        """Tell a history that cannot be read from one that just now cannot be."""
        if not self._warned:
            self._warned = True
            log.warning(
                "history.unreadable",
                advice="grant the webhook the scope telephony and its owner Call statistics - View",
            )
        if self._shown_at > float("-inf") or await self._ledger.has_seen_history():
            return LookUpFailed("the history could be read before")
        return NoHistory()


def _resolved(decision: Announce | Retry | Fail) -> str:
    """Name the way in which a doubt ended, for the metric."""
    match decision:
        case Announce():
            return "found"
        case Retry():
            return "dialled_again"
        case Fail("cancelled"):
            return "cancelled"
        case Fail():
            return "left_to_a_person"
    assert_never(decision)

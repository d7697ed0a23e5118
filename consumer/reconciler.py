"""Asks the portal's call history about a call whose answer was lost."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import structlog

from consumer import metrics
from consumer.bitrix24.call_history import Row, Wanted
from consumer.bitrix24.errors import REPORTED_FAILURES
from consumer.decision import Announce, Fail, Reconcile, Retry
from consumer.findings import Ambiguous, Found, HistoryFinding, LookUpFailed, NoHistory, NotFound
from consumer.history import History
from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.ledger.ages import Ages
from consumer.ledger.changes import apply_decision, taken_back
from consumer.messages import CallRequested, Invalid
from consumer.reconciliation import DoubtfulCall, reconcile

WINDOW_MARGIN_S = 120.0
"""How far the portal's idea of when a call began may lie from ours."""
NEARBY_S = 7200.0
"""A call that began so near the window may be ours all the same, if a clock is wrong."""
WHOLE_SECONDS_S = 2.0
"""The portal tells whole seconds."""
LONGEST_PLACING_S = 60.0
"""The portal cuts a request off after this."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LookedUp:
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
    """Looks calls up, and says whose the calls are that the history shows.

    Args:
        lag_s: That a call is absent proves nothing until so many seconds after the doubt.
        delays_s: One wait in seconds per retry, growing.
        retry_unsure: Whether to dial again where no history can tell.
    """

    def __init__(  # noqa: PLR0913  # whom it asks, and the settings that decide
        self,
        ledger: Ledger,
        history: History,
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
        self._history = history
        self._lag_s = lag_s

    async def look_up(self, entry: Entry, call: CallRequested | Invalid) -> LookedUp:
        """Look up the call that *entry* may have placed, and say what follows.

        Raises:
            LedgerDown: It cannot be told whose the calls in the history are.
        """
        doubt = self._doubt(entry)
        if isinstance(call, Invalid):
            # A setting changed, so that its number or line cannot be read any more.
            return LookedUp(Fail("unsure", entry.failure), rang_not=False, doubt_age_s=doubt.age_s)
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
        return LookedUp(decision, rang_not, doubt.age_s)

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
        rows = await self._history.find(Wanted(line, number, asked.since - NEARBY_S))
        if isinstance(rows, NoHistory) and await self._history.was_readable():
            return LookUpFailed("the history could be read before")
        if isinstance(rows, NoHistory | LookUpFailed):
            return rows
        unknown = await self._history.unknown(rows)
        shown = await self._history.is_shown()  # which also learns the clock of the rows
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

    async def resolve_seen(self, rows: Sequence[Row]) -> None:
        """Resolve doubts by *rows* not asked for; what they leave open is looked up later.

        The request's message is in a delay queue. When it comes back, the call is known, and the
        message, which alone has the number, is announced.

        Raises:
            LedgerDown: It cannot be told whose the calls are.
        """
        for row in await self._history.unknown([row for row in rows if row.call_id]):
            target = self._ledger.digest(f"+{row.digits}", row.line)
            for entry in await self._ledger.search.in_doubt(target):
                await self._history.is_shown()  # which also learns the clock of the rows
                if self._window(entry).covers(row):
                    await self._resolve_seen(entry, row)

    async def _resolve_seen(self, entry: Entry, row: Row) -> None:
        finding = await self._attribute(entry, [row])
        if not isinstance(finding, Found):
            return
        found = Announce(finding.call_id, "history")
        started = apply_decision(entry, found, time.time(), expires_at=None)
        offset_s = self._ages.clock_offset_s()
        written = await self._ledger.put(replace(started, clock_offset_s=offset_s), entry)
        if written is not None:
            self._ages.note(written, entry)
            metrics.DOUBTS_RESOLVED.labels("found").inc()
            log.info(
                "call.looked_up", request_id=entry.request_id, finding="Found", then="Announce"
            )

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

    def _window(self, entry: Entry) -> Window:
        """Return when a call that *entry* placed can have begun, by whichever of the clocks."""
        offsets_s = (
            0.0,
            self._history.clock_offset_s or 0.0,
            entry.clock_offset_s or 0.0,
            self._history.row_offset_s or 0.0,
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

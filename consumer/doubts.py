"""Doubts: was a call placed whose answer was lost? The portal's call history may tell."""

import time
from collections.abc import Sequence

import structlog

from consumer.decision import Absent, Contested, Found, LookUpFailed, NoHistory, Sighting
from consumer.history import Page, Row, Wanted, by_call_id
from consumer.ledger import Entry, Ledger
from consumer.messages import CallRequested
from consumer.pace import Pace
from consumer.portal import Portal

WINDOW_MARGIN_S = 120.0
"""How far the portal's idea of when a call began may lie from ours."""
LONGEST_PLACING_S = 60.0
"""The portal cuts a request off after this."""
MOST_PAGES = 20
PROOF_CANDIDATES = 3
PROOF_LASTS_S = 3600.0

log = structlog.get_logger(__name__)


class Doubts:
    """Looks calls up, and knows how far the history can be trusted.

    It is believed to show calls only once it has shown one of ours: a user who may see only own
    calls gets a good answer without any automatic call.
    """

    def __init__(self, ledger: Ledger, portal: Portal, pace: Pace, lag_s: float) -> None:
        self._ledger = ledger
        self._portal = portal
        self._pace = pace
        self._lag_s = lag_s
        self._shown_at = float("-inf")
        self._said_unreadable = False

    async def look(self, entry: Entry, call: CallRequested) -> Sighting:
        """Look into the history for the call that *entry* may have placed."""
        since, until = self._window(entry)
        wanted = Wanted(entry.line or call.from_line or "", call.to_number, since, until)
        rows = await self._find(wanted)
        if isinstance(rows, LookUpFailed | NoHistory):
            self._say(rows)
            return rows
        known = await self._ledger.known_call_ids([row.call_id for row in rows])
        if known:
            self._shown_at = time.monotonic()
        unknown = [row for row in rows if row.call_id not in known]
        if unknown:
            return await self._attribute(entry, unknown)
        return Absent(proved=await self._is_proved())

    async def _find(self, wanted: Wanted) -> list[Row] | NoHistory | LookUpFailed:
        """Return the calls that are *wanted*: all of them, or the reason why not."""
        found: list[Row] = []
        start = 0
        for _ in range(MOST_PAGES):
            await self._pace.wait()
            page = await self._portal.history(wanted.parameters() | {"start": start})
            if not isinstance(page, Page):
                return page
            found += [row for row in page.rows if wanted.matches(row)]
            if page.next_start is None or wanted.lies_before(page.rows):
                return found
            start = page.next_start
        return LookUpFailed()

    async def _attribute(self, entry: Entry, rows: Sequence[Row]) -> Sighting:
        """Say whose *rows* are: another request in doubt may have placed them as well."""
        others = [
            other
            for other in await self._ledger.others_in_doubt(entry)
            if any(self._covers(other, row) for row in rows)
        ]
        if any(other.state == "placing" for other in others):
            return LookUpFailed()  # its answer is still to come, or its doubt to be noticed
        return Contested() if others else Found(rows[0].call_id)

    async def _is_proved(self) -> bool:
        if time.monotonic() - self._shown_at < PROOF_LASTS_S:
            return True
        for call_id in await self._candidates():
            await self._pace.wait()
            page = await self._portal.history(by_call_id(call_id))
            if isinstance(page, Page) and any(row.call_id == call_id for row in page.rows):
                self._shown_at = time.monotonic()
                return True
        return False

    async def _candidates(self) -> list[str]:
        """Return call ids that the history should show: the latest, and the latest surely ended."""
        now = time.time()
        latest = await self._ledger.recent_call_ids(now, PROOF_CANDIDATES)
        ended = await self._ledger.recent_call_ids(now - self._lag_s, PROOF_CANDIDATES)
        return list(dict.fromkeys(latest + ended))

    def _window(self, entry: Entry) -> tuple[float, float]:
        """Return when a call that *entry* placed can have begun, by the portal's clock."""
        doubt = entry.claimed_at if entry.unsure_since is None else entry.unsure_since
        since = (entry.first_claimed_at or entry.first_seen_at) + self._portal.clock_offset_s
        until = doubt + LONGEST_PLACING_S + self._portal.clock_offset_s
        return since - WINDOW_MARGIN_S, until + WINDOW_MARGIN_S

    def _covers(self, other: Entry, row: Row) -> bool:
        since, until = self._window(other)
        return since <= row.started_at <= until

    def _say(self, failed: LookUpFailed | NoHistory) -> None:
        if isinstance(failed, NoHistory) and not self._said_unreadable:
            self._said_unreadable = True
            log.warning(
                "history.unreadable",
                advice="grant the webhook the scope telephony and its owner Call statistics - View",
            )

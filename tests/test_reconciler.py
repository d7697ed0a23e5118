"""A look into the call history: which rows count, what they prove, and when they decide nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from consumer.bitrix24.call_history import Page, Row
from consumer.findings import Ambiguous, Found, HistoryFinding, LookUpFailed, NoHistory, NotFound
from consumer.history import History
from consumer.ledger import Entry, Ledger
from consumer.ledger.ages import Ages
from consumer.reconciler import NEARBY_S, WINDOW_MARGIN_S, Reconciler
from tests.fakes import NUMBER, delivery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from consumer.messages import CallRequested

LINE = "reg1"


def row(call_id: str, started_at: float, *, line: str = LINE) -> Row:
    return Row(call_id, "5", line, NUMBER.lstrip("+"), started_at)


@dataclass
class FakePortal:
    """Answers with pages in turn, the last of which stays, or by call id with what it knows."""

    pages: list[Page | NoHistory | LookUpFailed | Exception] = field(default_factory=list)
    known: dict[str, Row] = field(default_factory=dict)
    clock_offset_s: float | None = 0.0
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def history(self, parameters: dict[str, Any]) -> Page | NoHistory | LookUpFailed:
        self.asked.append(parameters)
        if (call_id := parameters["FILTER"].get("CALL_ID")) is not None:
            rows = (self.known[call_id],) if call_id in self.known else ()
            return Page(rows, None)
        page = self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]
        if isinstance(page, Exception):
            raise page
        return page


class FakeLimiter:
    async def acquire(self) -> None:
        pass


@dataclass
class Desk:
    ledger: Ledger
    portal: FakePortal
    reconciler: Reconciler
    now: float

    async def put(self, entry: Entry) -> Entry:
        written = await self.ledger.put(entry, None)
        assert written is not None
        return written

    async def look(self, entry: Entry, *rows: Row) -> HistoryFinding:
        """Look for the call of *entry* in a history of *rows*."""
        if rows or not self.portal.pages:
            self.portal.pages = [Page(rows, None)]
        return await self.reconciler.look(entry, call())

    def entry(self, request_id: str, **changes: Any) -> Entry:  # noqa: ANN401
        fields: dict[str, Any] = {
            "state": "delayed",
            "attempt": 1,
            "replay": 0,
            "owner": "o",
            "first_seen_at": self.now - 60,
            "first_claimed_at": self.now - 50,
            "claimed_at": self.now - 50,
            "changed_at": self.now,
            "clock_offset_s": 0.0,
            "unsure_since": self.now - 40,
            "line": LINE,
            "body_digest": "b",
            "target_digest": "t",
        }
        return Entry(request_id=request_id, **fields | changes)

    async def shown(self) -> None:
        """Let the history show a call of ours, by another number."""
        started = self.entry(
            "shown", state="started", call_id="ours", unsure_since=None, target_digest="u"
        )
        await self.put(started)
        self.portal.known["ours"] = row("ours", self.now - 50)


def call() -> CallRequested:
    asked = delivery(from_line=LINE).call
    assert asked is not None
    return asked


def reconciler_of(ledger: Ledger, portal: Any, limiter: Any) -> Reconciler:  # noqa: ANN401
    ages = Ages(lambda: None)
    history = History(ledger, portal, limiter, lag_s=300.0)
    return Reconciler(ledger, history, ages, lag_s=300.0, delays_s=(5, 30), retry_unsure=False)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    ledger = Ledger("sqlite://", "queue")
    await ledger.open()
    portal = FakePortal()
    neighbours: tuple[Any, Any] = (portal, FakeLimiter())
    yield Desk(ledger, portal, reconciler_of(ledger, *neighbours), time.time())
    await ledger.close()


async def test_a_row_of_that_number_line_and_time_is_the_call(desk: Desk) -> None:
    doubt = await desk.put(desk.entry("r-1"))

    assert await desk.look(doubt, row("c1", desk.now - 49)) == Found("c1")
    assert await desk.look(doubt, row("c1", desk.now - 49, line="reg2")) == NotFound(
        conclusive=False
    )


async def test_absence_is_conclusive_once_a_call_of_ours_was_shown(desk: Desk) -> None:
    doubt = await desk.put(desk.entry("r-1"))
    assert await desk.look(doubt) == NotFound(conclusive=False)

    await desk.shown()

    assert await desk.look(doubt) == NotFound(conclusive=True)


async def test_calls_that_the_ledger_knows_are_not_taken(desk: Desk) -> None:
    doubt = await desk.put(desk.entry("r-1"))
    await desk.put(desk.entry("r-2", state="started", call_id="c2", unsure_since=None))
    earlier = desk.entry("r-1", call_id="c1")
    await desk.ledger.earlier.remember_call(earlier)

    rows = (row("c1", desk.now - 49), row("c2", desk.now - 49))
    assert await desk.look(doubt, *rows) == NotFound(conclusive=True)


async def test_a_row_that_another_doubt_may_own_is_nobodys(desk: Desk) -> None:
    doubt = await desk.put(desk.entry("r-1"))
    await desk.put(desk.entry("r-2"))

    assert await desk.look(doubt, row("c1", desk.now - 49)) == Ambiguous()


async def test_a_row_without_an_id_decides_nothing(desk: Desk) -> None:
    await desk.shown()
    doubt = await desk.put(desk.entry("r-1"))

    assert isinstance(await desk.look(doubt, row("", desk.now - 49)), LookUpFailed)


async def test_while_another_call_is_being_placed_nothing_is_decided(desk: Desk) -> None:
    doubt = await desk.put(desk.entry("r-1"))
    await desk.put(desk.entry("r-2", state="placing", unsure_since=None))

    assert isinstance(await desk.look(doubt, row("c1", desk.now - 49)), LookUpFailed)


# How far the web server's clock and the row are from ours, in seconds, and what that shows.
CLOCKS: dict[str, tuple[float | None, float, type[HistoryFinding]]] = {
    "all right": (0.0, 0, Found),
    "the web server tells no time": (None, 0, Found),
    "the web server is ahead, the row is not": (3600.0, 0, Found),
    "the web server is behind, the row is not": (-3600.0, 0, Found),
    "both are ahead": (3600.0, 3600, Found),
    "both are behind": (-3600.0, -3600, Found),
    "the row alone is ahead": (0.0, 3600, LookUpFailed),
    "the row alone is behind": (0.0, -3600, LookUpFailed),
    "one each way": (600.0, -3600, LookUpFailed),
    "a row of another time": (0.0, -2 * NEARBY_S, NotFound),
}


@pytest.mark.parametrize(("http_s", "row_s", "finding"), CLOCKS.values(), ids=CLOCKS)
async def test_a_row_counts_by_whichever_clock(
    desk: Desk, http_s: float | None, row_s: float, finding: type[HistoryFinding]
) -> None:
    desk.portal.clock_offset_s = http_s
    doubt = await desk.put(desk.entry("r-1"))

    assert isinstance(await desk.look(doubt, row("c1", desk.now - 50 + row_s)), finding)


@pytest.mark.parametrize("row_s", [600.0, -3600.0])
async def test_the_clock_of_the_rows_is_learned_from_calls_of_ours(
    desk: Desk, row_s: float
) -> None:
    await desk.shown()
    desk.portal.known["ours"] = row("ours", desk.now - 50 + row_s)
    doubt = await desk.put(desk.entry("r-1"))

    assert await desk.look(doubt, row("c1", desk.now - 50 + row_s)) == Found("c1")


@pytest.mark.parametrize(
    "changes", [{"first_claimed_at": 10_000.0}, {"unsure_since": -10_000.0}], ids=["since", "amid"]
)
async def test_a_row_counts_though_our_clock_was_set_back(
    desk: Desk, changes: dict[str, float]
) -> None:
    """Since the first attempt, or in the middle of the call."""
    moments = {name: desk.now + ahead_s for name, ahead_s in changes.items()}
    doubt = await desk.put(desk.entry("r-1", **moments))

    assert await desk.look(doubt, row("c1", desk.now - 49)) == Found("c1")


async def test_a_look_that_asked_for_too_little_decides_nothing(desk: Desk) -> None:
    """Only what it shows tells how far the clock of its rows is off."""
    doubt = await desk.put(desk.entry("r-1"))
    await desk.shown()
    desk.portal.known["ours"] = row("ours", desk.now - 50 - 4 * 3600)
    rows = (row("c1", desk.now - 49 - 4 * 3600),)

    assert isinstance(await desk.look(doubt, *rows), LookUpFailed)
    assert await desk.look(doubt, *rows) == Found("c1")


async def test_after_a_call_that_may_have_rung_only_later_rows_count(desk: Desk) -> None:
    doubt = await desk.put(desk.entry("r-1", rows_from=desk.now - 50))

    before = desk.now - 50 - WINDOW_MARGIN_S / 2
    assert isinstance(await desk.look(doubt, row("c1", before)), LookUpFailed)
    assert await desk.look(doubt, row("c2", desk.now - 50)) == Found("c2")


UNREADABLE: list[Page | NoHistory | LookUpFailed | Exception] = [
    NoHistory(),
    LookUpFailed("busy"),
    OverflowError(),
]


@pytest.mark.parametrize("answer", UNREADABLE, ids=["no history", "failed", "a bug"])
async def test_once_shown_whatever_is_not_rows_decides_nothing(
    desk: Desk, answer: Page | NoHistory | LookUpFailed | Exception
) -> None:
    await desk.shown()
    doubt = await desk.put(desk.entry("r-1"))
    await desk.look(doubt)
    desk.portal.pages = [answer]

    assert isinstance(await desk.look(doubt), LookUpFailed)


async def test_a_history_that_never_could_be_read_is_none(desk: Desk) -> None:
    desk.portal.pages = [NoHistory()]
    doubt = await desk.put(desk.entry("r-1"))

    assert await desk.look(doubt) == NoHistory()


async def test_all_pages_are_read_and_a_gap_decides_nothing(desk: Desk) -> None:
    doubt = await desk.put(desk.entry("r-1"))
    first = Page((row("x", desk.now, line="reg2"),), 50)
    desk.portal.pages = [first, Page((row("c1", desk.now - 49),), None)]
    assert await desk.look(doubt) == Found("c1")
    assert [asked.get("start") for asked in desk.portal.asked[:2]] == [0, 50]

    desk.portal.pages = [first, LookUpFailed("busy")]
    assert isinstance(await desk.look(doubt), LookUpFailed)

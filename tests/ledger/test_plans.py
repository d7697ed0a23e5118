"""However much a ledger holds, what a call and a page ask of it is found by an index."""

import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consumer.ledger import Ledger
from tests.ledger.test_ledger import NOW, QUEUE, entry


class Watched:
    """A ledger in a file that notes what it asks of SQLite."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ledger = Ledger(f"sqlite:///{file}", QUEUE)
        self._file = file
        self._asked: list[tuple[str, Sequence[Any]]] = []
        store = self.ledger._store  # noqa: SLF001  # to see the statements
        for name in ("fetch", "execute"):
            monkeypatch.setattr(store, name, self._noted(getattr(store, name)))

    def _noted(self, ask: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def noted(statement: str, *values: Any, **how: bool) -> object:  # noqa: ANN401
            self._asked.append((statement, values))
            return await ask(statement, *values, **how)

        return noted

    def plans(self) -> list[str]:
        """Return how SQLite finds what was asked of the calls."""
        db = sqlite3.connect(self._file)
        plans = [
            row[3]
            for statement, values in self._asked
            for row in db.execute(f"EXPLAIN QUERY PLAN {statement}".replace("$", "?"), values)
            if re.search(r" (calls|c|completions)\b", row[3])
        ]
        db.close()
        self._asked.clear()
        return plans


@pytest.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    watched = Watched(tmp_path / "plans.db", monkeypatch)
    await watched.ledger.open()
    yield watched
    await watched.ledger.close()


async def test_no_question_about_the_state_of_things_reads_what_is_settled(
    watched: Watched,
) -> None:
    ledger = watched.ledger
    await ledger.search.waiting()
    await ledger.search.outcomes(NOW)
    await ledger.search.dialled(NOW)
    await ledger.search.entries_to_number("n")

    plans = [plan for plan in watched.plans() if " calls " in plan]
    assert len(plans) == 7
    assert {plan.partition(" (")[0] for plan in plans} <= {
        f"SEARCH calls USING INDEX calls_{name}" for name in ("delayed", "by_change", "by_number")
    }


async def test_a_call_touches_no_entry_but_its_own(watched: Watched) -> None:
    ledger = watched.ledger
    controls = (await ledger.controls.read()).version
    await ledger.get("early")
    early = await ledger.claim(entry("early"), None, controls)
    late = await ledger.put(entry("late"), None)
    assert early is not None
    assert late is not None
    await ledger.claim(replace(late, attempt=2), late, controls)
    started = await ledger.put(replace(early, state="started", call_id="c-1"), early)
    assert started is not None
    await ledger.published.write([started, late])
    await ledger.cancel(replace(late, cancelled_at=NOW, cancelled_for="a test"))
    await ledger.forget(started)

    plans = watched.plans()
    assert len(plans) > 6
    assert [plan for plan in plans if not re.search(r"(request|call)_id=\?", plan)] == []


async def test_to_follow_calls_reads_no_more_than_is_open(watched: Watched) -> None:
    ledger = watched.ledger
    await ledger.completions.follow()
    await ledger.completions.something_open()
    await ledger.completions.open_calls(10)
    await ledger.completions.open_among(["c-1", "c-2"])
    await ledger.completions.to_announce(NOW)
    await ledger.completions.outcomes_since(NOW)
    await ledger.completions.forget(NOW)

    plans = watched.plans()
    assert len(plans) > 9
    found = {plan.partition(" USING ")[2] for plan in plans}
    assert found <= {
        "INDEX calls_in_doubt (queue=?)",
        "INDEX calls_open (queue=? AND changed_at>?)",
        "INDEX completions_by_time (queue=? AND completed_at<?)",
        "INDEX completions_by_time (queue=? AND completed_at>?)",
        "INDEX completions_open (queue=? AND began_at<?)",
        "INDEX completions_open (queue=? AND began_at>?)",
        "INDEX completions_to_announce (queue=? AND announced=?)",
        "INDEX sqlite_autoindex_calls_1 (queue=? AND request_id=?)",
    }

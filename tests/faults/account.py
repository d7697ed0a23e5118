"""The account of a scenario: what became of each request, and what is wrong with that."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.portal import WatchedPortal, text_of
from tests.faults.traffic import Traffic
from tests.promises import LOST, TWICE, Call, Copy, Story, broken


@dataclass
class Row:
    """A line of the table, and what is wrong with it; a number left out is in another line."""

    fault: str
    times: int
    requests: int | None = None
    lost: int | None = None
    twice: int | None = None
    unsure: int | None = None
    recovery_s: float | None = None
    wrong: list[str] = field(default_factory=list)
    store: str = ""

    def expect(self, bar_s: float) -> None:
        """Take it for wrong if the recovery took longer than *bar_s*."""
        if self.recovery_s is not None and self.recovery_s > bar_s:
            self.wrong.append(f"going on took {self.recovery_s:.1f} s, more than {bar_s:g}")


def account(
    fault: str,
    times: int,
    ids: Sequence[str],
    traffic: Traffic,
    portal: WatchedPortal,
    copies: Mapping[str, list[Copy]],
    allowed: Mapping[str, int],
) -> Row:
    """Account for *ids* by the rules of `promises`.

    Args:
        fault: What was done to the workers.
        times: How often.
        ids: The requests in question.
        traffic: The events.
        portal: The calls.
        copies: In which queues each request lay at the end.
        allowed: How many calls a request may lead to, where that is more than one.
    """
    calls = defaultdict(list)
    for call in portal.calls:
        calls[call.text].append(Call(call.placed_at, call.call_id))
    stories = {
        request_id: Story(
            calls=calls[text_of(request_id)],
            events=traffic.finals(request_id),
            copies=copies.get(request_id, []),
            allowed=allowed.get(request_id, 1),
            causes=frozenset(traffic.causes[request_id]),
            forbidden=[*traffic.forbidden, *traffic.forbidden_for.get(request_id, [])],
        )
        for request_id in ids
    }
    found = defaultdict(list)
    for request_id, story in stories.items():
        for text in broken(story):
            found[text].append(request_id)
    wrong = [f"{len(those)} {text}: {those[:10]}" for text, those in found.items()]
    lost, twice = len(found[LOST]), len(found[TWICE])
    unsure = sum("unsure" in story.reasons for story in stories.values())
    return Row(fault, times, len(ids), lost, twice, unsure, None, wrong)


def summed(fault: str, cases: Sequence[object], rows: Sequence[Row]) -> Row:
    """Sum up the *rows* of like *cases*."""
    wrong = [
        f"at {case}: {text}" for case, row in zip(cases, rows, strict=True) for text in row.wrong
    ]
    return Row(
        fault,
        len(rows),
        sum(row.requests or 0 for row in rows),
        sum(row.lost or 0 for row in rows),
        sum(row.twice or 0 for row in rows),
        sum(row.unsure or 0 for row in rows),
        None,
        wrong,
    )

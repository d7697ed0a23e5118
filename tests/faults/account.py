"""The account of a scenario: what became of each request, and what is wrong with that."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.portal import WatchedPortal, text_of
from tests.faults.traffic import Event, Traffic


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
    copies: Mapping[str, list[str]],
    allowed: Mapping[str, int],
) -> Row:
    """Account for *ids*.

    Args:
        fault: What was done to the workers.
        times: How often.
        ids: The requests in question.
        traffic: The events.
        portal: The calls.
        copies: In which queues each request lay at the end.
        allowed: How many calls a request may lead to, where that is more than one.
    """
    phoned = portal.phoned()
    known = defaultdict(set)
    for call in portal.calls:
        known[call.text].add(call.call_id)
    finals = {request_id: traffic.finals(request_id) for request_id in ids}
    lost = [i for i in ids if not finals[i] and i not in copies]
    twice = [i for i in ids if phoned[text_of(i)] > allowed.get(i, 1)]
    unsure = [i for i in ids if any(event.reason == "unsure" for event in finals[i])]
    wrong = [f"lost: {lost}"] if lost else []
    wrong += [f"phoned twice: {twice}"] if twice else []
    found = defaultdict(list)
    dead_letters = traffic.topology.dead_letters.name
    for request_id in ids:
        lies_in = copies.get(request_id, [])
        for text in [
            *_at_odds(finals[request_id], known[text_of(request_id)]),
            *_misplaced(finals[request_id], lies_in, dead_letters),
        ]:
            found[text].append(request_id)
    wrong += [f"{len(those)} {text}: {those[:10]}" for text, those in found.items()]
    return Row(fault, times, len(ids), len(lost), len(twice), len(unsure), None, wrong)


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


def _at_odds(events: Sequence[Event], call_ids: set[str]) -> list[str]:
    """Say where events do not match each other, or the calls that were placed."""
    replays = {event.event_id: event.replay for event in events}
    wrong = []
    if len(replays) > len(set(replays.values())):
        wrong.append("with more than one final event")
    if len({(event.event_id, event.call_id, event.reason) for event in events}) > len(replays):
        wrong.append("with an event that was repeated otherwise than it was")
    started = [event for event in events if event.kind == "call.started"]
    if started and not call_ids:
        wrong.append("announced as started, and never phoned")
    elif {event.call_id for event in started} - call_ids:
        wrong.append("announced with a call that was not placed for it")
    return wrong


def _misplaced(events: Sequence[Event], copies: list[str], dead_letters: str) -> list[str]:
    """Say where the copies in the queues do not match the events."""
    dead = copies.count(dead_letters)
    if not events:
        return [f"still open, in {sorted(set(copies))}"] if copies else []
    started = any(event.kind == "call.started" for event in events)
    wrong = []
    if started and dead:
        wrong.append("started, and a dead letter too")
    taken_back = any(event.reason == "cancelled" for event in events)
    if not started and not dead and not taken_back:
        wrong.append("failed, and no dead letter")
    if len(copies) > dead:
        wrong.append(f"settled, and still in {sorted(set(copies))}")
    return wrong

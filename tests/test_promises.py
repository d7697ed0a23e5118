"""Each rule finds the story that breaks it, and none finds fault with a good one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.promises import AT_ANY_TIME, AT_THE_END, CAUSES, Call, Copy, Event, Story, broken

STARTED = Event(2.0, "call.started", "e-1", 0, None, "c-1")
FAILED = Event(2.0, "call.failed", "e-2", 0, "refused")
DEAD = Copy("dead letters", 0, dead=True)
WAITING = Copy("requests", 0, dead=False)
PLACED = Story(calls=[Call(1.0, "c-1")], events=[STARTED])
REFUSED = Story(events=[FAILED], copies=[DEAD])
CANCELLED = replace(FAILED, reason="cancelled")
TAKEN_BACK = Story(events=[CANCELLED], causes=frozenset({CAUSES["cancelled"]}))


@pytest.mark.parametrize(
    "story",
    [
        PLACED,
        REFUSED,
        TAKEN_BACK,
        Story(events=[STARTED, STARTED], calls=PLACED.calls),
        Story(events=[replace(FAILED, reason="unsure")], copies=[DEAD], calls=PLACED.calls),
        Story(events=[FAILED, replace(STARTED, replay=1)], calls=PLACED.calls, copies=[DEAD]),
        Story(
            events=[replace(FAILED, reason="invalid")],
            copies=[DEAD],
            causes=frozenset({CAUSES["invalid"]}),
        ),
    ],
)
def test_a_good_story_breaks_no_rule(story: Story) -> None:
    assert broken(story) == []


BROKEN = {
    "phoned more often": replace(PLACED, calls=[Call(1.0, "c-1"), Call(1.5, "c-2")]),
    "phoned while": replace(PLACED, forbidden=[(0.5, 1.5)]),
    "with two ends": replace(REFUSED, events=[FAILED, replace(FAILED, event_id="e-3")]),
    "with an event": replace(REFUSED, events=[FAILED, replace(FAILED, reason="exhausted")]),
    "announced": replace(PLACED, events=[replace(STARTED, call_id="c-2")]),
    "ended in a way": replace(TAKEN_BACK, causes=frozenset()),
    "lost": Story(),
    "still open": replace(PLACED, copies=[WAITING]),
    "phoned, and neither": replace(REFUSED, calls=PLACED.calls),
    "with dead letters": replace(REFUSED, copies=[]),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_finds_the_story_that_breaks_it(rule: str) -> None:
    (found,) = broken(BROKEN[rule])
    assert found.startswith(rule)


def test_there_is_a_broken_story_for_each_rule() -> None:
    assert len(BROKEN) == len(AT_ANY_TIME | AT_THE_END) == 10


def test_what_was_announced_as_taken_back_is_not_phoned() -> None:
    story = replace(TAKEN_BACK, calls=[Call(3.0, "c-1")], events=[CANCELLED, STARTED])
    assert "phoned while that was forbidden" in broken(story, AT_ANY_TIME)


def test_a_replay_that_nobody_asked_for_has_no_event() -> None:
    story = replace(REFUSED, events=[replace(FAILED, replay=1)], replays=0)
    assert "ended in a way that nothing gave cause for" in broken(story)

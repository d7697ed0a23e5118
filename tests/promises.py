"""What may become of a request, whatever happens: ten rules over what the world saw of it.

The model (`tests/test_histories.py`) asks them after each step of a made-up history, and every run
of the fault suite asks them about each of its requests.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Event:
    """An event that was published; *at* is when it was got."""

    at: float
    kind: str
    event_id: str
    replay: int
    reason: str | None = None
    call_id: str | None = None
    confirmed_by: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A phone that rang."""

    at: float
    call_id: str | None


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a request in a queue."""

    queue: str
    replay: int
    dead: bool


@dataclass(frozen=True, kw_only=True)
class Story:
    """What the world saw of one request, and what was asked for; moments are on one clock.

    Attributes:
        allowed: How many calls people asked for: one, and one more for each replay with `--redial`
            or to another number.
        causes: What gave cause for the reasons of `CAUSES`.
        forbidden: From when to when nobody was to be phoned.
        replays: How often a person sent it back; None if nobody counted.
    """

    calls: Sequence[Call] = ()
    events: Sequence[Event] = ()
    copies: Sequence[Copy] = ()
    allowed: int = 1
    causes: frozenset[str] = frozenset()
    forbidden: Sequence[tuple[float, float]] = ()
    replays: int | None = None
    finals: Sequence[Event] = field(init=False)

    def __post_init__(self) -> None:
        """Leave out what was said of other content under the same id."""
        finals = [event for event in self.events if event.reason != "invalid"]
        object.__setattr__(self, "finals", finals)

    @property
    def waiting(self) -> list[Copy]:
        return [copy for copy in self.copies if not copy.dead]

    @property
    def dead(self) -> list[Copy]:
        return [copy for copy in self.copies if copy.dead]

    @property
    def started(self) -> list[Event]:
        return [event for event in self.finals if event.kind == "call.started"]

    @property
    def reasons(self) -> set[str]:
        return {event.reason or "started" for event in self.events}

    @property
    def latest(self) -> int:
        """The highest replay that has an event."""
        return max((event.replay for event in self.finals), default=0)

    @property
    def when_forbidden(self) -> list[tuple[float, float]]:
        """From when to when it was not to be phoned; what was announced as taken back, never."""
        taken_back = [event.at for event in self.finals if event.reason == "cancelled"]
        return [*self.forbidden, *((at, float("inf")) for at in taken_back)]


CAUSES = {
    "cancelled": "a cancellation",
    "blocked": "a block",
    "expired": "an expiry",
    "invalid": "other content",
}
"""Reasons that need one."""


def _ends(story: Story) -> set[tuple[int, str]]:
    return {(event.replay, event.event_id) for event in story.finals}


def _dead_letters_match(story: Story) -> bool:
    """Tell whether each failure has a dead letter, unless it was taken back, and no success has."""
    last = [event for event in story.finals if event.replay == story.latest]
    dead = {copy.replay for copy in story.dead}
    if not last or story.waiting:
        return True
    needed = last[-1].kind == "call.failed" and last[-1].reason != "cancelled"
    return (story.latest in dead) == needed


LOST = "lost: neither an event nor a copy"
TWICE = "phoned more often than people asked for"
Rules = dict[str, "Callable[[Story], bool]"]
AT_ANY_TIME: Rules = {
    TWICE: lambda s: len(s.calls) <= s.allowed,
    "phoned while that was forbidden": lambda s: (
        not any(begun < call.at < over for call in s.calls for begun, over in s.when_forbidden)
    ),
    "with two ends of one replay": lambda s: all(
        times == 1 for times in Counter(replay for replay, _ in _ends(s)).values()
    ),
    "with an event that was repeated otherwise than it was": lambda s: (
        len(_ends(s))
        == len({(event.event_id, event.kind, event.reason, event.call_id) for event in s.finals})
    ),
    "announced with a call that was not placed for it": lambda s: (
        {event.call_id for event in s.started} <= {None, *(call.call_id for call in s.calls)}
        and len(s.calls) >= bool(s.started)
    ),
    "ended in a way that nothing gave cause for": lambda s: (
        {CAUSES[reason] for reason in s.reasons & CAUSES.keys()} <= s.causes
        and (s.replays is None or s.latest <= s.replays)
    ),
}
AT_THE_END: Rules = {
    LOST: lambda s: bool(s.events or s.copies),
    "still open": lambda s: not s.waiting,
    "phoned, and neither announced nor left to a person": lambda s: bool(
        not s.calls or s.started or "unsure" in s.reasons or s.waiting
    ),
    "with dead letters that do not match its end": _dead_letters_match,
}


def broken(story: Story, *rules: Rules) -> list[str]:
    """Return which *rules* a story breaks; all of them, if none are named."""
    asked = rules or (AT_ANY_TIME, AT_THE_END)
    return [text for group in asked for text, holds in group.items() if not holds(story)]

"""What a step came to, and the entry that follows. Pure: `recorder` acts on it."""

from dataclasses import dataclass, replace
from typing import Literal, assert_never

from consumer.decision import Decision, Failure
from consumer.ledger import Entry
from consumer.ledger.changes import (
    apply_decision,
    cancel,
    expire,
    forbid,
    in_doubt,
    reopened,
    schedule,
)
from consumer.messages import Invalid


@dataclass(frozen=True, slots=True)
class Rejected:
    """It is no request that can be carried out; *forget* is the entry that it must not keep."""

    error: Invalid
    forget: Entry | None = None


@dataclass(frozen=True, slots=True)
class Postponed:
    """It waits; nothing about it has changed."""

    wait_s: float
    entry: Entry


@dataclass(frozen=True, slots=True)
class LetPass:
    """It makes way for those behind it in its queue, and comes again."""


@dataclass(frozen=True, slots=True)
class AlreadyKnown:
    """It is closed: what belongs to its state is published once more."""

    entry: Entry
    asked_again: bool


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing is to be done."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What follows from an attempt or a look-up, whose entry is *was*.

    Attributes:
        expires_at: When the request's time is over, in seconds since the epoch.
        doubt_age_s: For how many seconds the call has been in doubt.
    """

    was: Entry
    decision: Decision
    expires_at: float | None = None
    doubt_age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Expired:
    """The time of a request is over: the attempt of *draft* is not made."""

    draft: Entry
    was: Entry | None


@dataclass(frozen=True, slots=True)
class Forbidden:
    """A rule of our own forbids the attempt of *draft*."""

    draft: Entry
    was: Entry | None
    failure: Failure


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The attempt of *draft* waits until *due_at*, for its time or for the calling hours."""

    draft: Entry
    was: Entry | None
    due_at: float
    calling_hours: bool


@dataclass(frozen=True, slots=True)
class TakenBack:
    """Upstream has taken the request back before this replay was dialled."""

    was: Entry
    replay: int
    body_digest: str


@dataclass(frozen=True, slots=True)
class Doubted:
    """The attempt of *draft* may have been made; the next step follows at once."""

    draft: Entry
    was: Entry | None
    code: Literal["LEDGER_LOST", "WORKER_LOST"]


@dataclass(frozen=True, slots=True)
class Reopened:
    """A replay whose number is in doubt since *doubt*; the next step follows at once."""

    doubt: Entry
    was: Entry
    replay: int
    body_digest: str


@dataclass(frozen=True, slots=True)
class Freed:
    """What was claimed was certainly not dialled; the next step follows at once."""

    was: Entry


Closing = Decided | Expired | Forbidden | Scheduled | TakenBack
"""A new state, to be recorded in place of *was* and published."""
Passing = Doubted | Reopened | Freed
"""A new state, to be recorded in place of *was*."""
Result = Rejected | Postponed | LetPass | AlreadyKnown | Ignored | Closing | Passing


def entry_after(result: Closing | Passing, now: float) -> Entry:
    """Return the entry that a result leads to.

    Args:
        result: What a step came to.
        now: Seconds since the epoch.
    """
    match result:
        case Decided(was, decision, expires_at, doubt_age_s):
            since = now - doubt_age_s
            return apply_decision(was, decision, now, expires_at=expires_at, unsure_since=since)
        case Expired(draft, was):
            return expire(draft, was)
        case Forbidden(draft, _, failure):
            return forbid(draft, "blocked", failure)
        case Scheduled(draft, was, due_at, calling_hours):
            return schedule(draft, was, due_at, now, calling_hours=calling_hours)
        case TakenBack(was, replay, body_digest):
            return cancel(was, replay, now, body_digest)
        case Doubted(draft, _, code):
            return in_doubt(draft, code, now)
        case Reopened(doubt, _, replay, body_digest):
            return reopened(doubt, replay, body_digest, now)
        case Freed(was):
            return replace(was, state="delayed", due_at=was.changed_at)
    assert_never(result)

"""What a message asks for, given what the ledger knows. Pure; `results` says what follows.

The rules are those of "never twice": the ledger is the truth, the message only asks.
"""

from dataclasses import dataclass
from typing import assert_never

from consumer.delivery import MessageHeaders
from consumer.ledger import Entry
from consumer.ledger.entry import UNSEEN_BODY


@dataclass(frozen=True, slots=True)
class IdConflict:
    """Another request already has this id."""


@dataclass(frozen=True, slots=True)
class Superseded:
    """A copy with the content of an earlier replay: the later replay counts."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """It is closed: publish again what was published, and do not dial.

    Attributes:
        asked_again: Whether a person asked for it; otherwise a copy of the message came.
    """

    asked_again: bool


@dataclass(frozen=True, slots=True)
class NotYet:
    """Come back in so many seconds."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class Orphaned:
    """A process that has ended was dialling: nobody knows whether the phone rang."""


@dataclass(frozen=True, slots=True)
class InDoubt:
    """The phone may have rung: ask the call history."""


@dataclass(frozen=True, slots=True)
class Due:
    """Its time has come: make the ledger's attempt."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A person wants it tried anew."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """It was taken back, and nothing was dialled that is not settled."""


Step = (
    IdConflict | Superseded | Duplicate | NotYet | Orphaned | InDoubt | Due | Replayed | Cancelled
)


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger knows, as one process sees it.

    Attributes:
        age_s: Seconds since the entry's claim or, where it is delayed, since its latest change, as
            far as that is certain.
        now: Seconds since the epoch.
        own: Whether this process wrote it. No call of the request is in flight here.
        undecided_s: How long after its claim another process may still be dialling.
    """

    entry: Entry
    age_s: float
    now: float
    own: bool
    undecided_s: float


def next_step(known: Known, headers: MessageHeaders, body_digest: str) -> Step:
    """Say what a message asks for.

    Args:
        known: What the ledger knows of its request.
        headers: What the message's headers say.
        body_digest: Of the message's fields as sent.
    """
    entry = known.entry
    same = entry.body_digest in {body_digest, UNSEEN_BODY}
    replayed = headers.replay > entry.replay
    if not same and headers.replay == entry.replay:
        return IdConflict()
    match entry.state:
        case "started" | "failed":
            if replayed and (entry.state == "failed" or headers.redial):
                return _tried_anew(entry)
            return Duplicate(replayed) if same or replayed else Superseded()
        case "placing" if not known.own and known.age_s < known.undecided_s:
            return NotYet(known.undecided_s - known.age_s)
        case "placing":
            return Orphaned()
        case "delayed":
            return _when_delayed(known, same=same, replayed=replayed)
    assert_never(entry.state)


def _when_delayed(known: Known, *, same: bool, replayed: bool) -> Step:
    entry = known.entry
    if entry.cancelled_at and entry.unsure_since is None:
        return Cancelled()
    # Where the clock was set back, it waits no longer than it was to wait at first.
    wait_s = min(entry.due_at - entry.changed_at - known.age_s, entry.due_at - known.now)
    if wait_s > 0:
        return NotYet(wait_s)
    if replayed and (same or not entry.cancelled_at):
        return Replayed()
    if not same:
        # Not the content whose time has come: that message is on its way.
        return NotYet(known.undecided_s)
    return Due() if entry.unsure_since is None else InDoubt()


def _tried_anew(entry: Entry) -> Step:
    """Say what a replay of a closed request asks for; what was taken back stays so."""
    if not entry.cancelled_at or (entry.state == "failed" and entry.unsure_since is not None):
        return Replayed()  # a doubt is settled first
    return Cancelled() if entry.state == "failed" else Duplicate(asked_again=True)

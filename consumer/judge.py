"""What a message is to its request, and what state a decision leads to. Pure.

The rules are those of "never twice": the ledger is the truth, the message only asks.
"""

from dataclasses import dataclass, replace
from typing import assert_never

from consumer.decision import Announce, Decision, GiveUp, Retry, Verify
from consumer.ledger import Entry
from consumer.messages import ConfirmedBy, Trail


@dataclass(frozen=True, slots=True)
class New:
    """The ledger knows nothing of this request."""


@dataclass(frozen=True, slots=True)
class Reused:
    """Another request already has this id."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """It is settled: publish again what was published, and do not dial.

    Attributes:
        entry: What the ledger knows.
        asked_again: Whether a person asked for it, rather than a copy came by.
    """

    entry: Entry
    asked_again: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Come back at a moment, in seconds since the epoch."""

    entry: Entry
    until: float


@dataclass(frozen=True, slots=True)
class Inherit:
    """A life that has ended was dialling: nobody knows whether the phone rang."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Resume:
    """Its time has come: look it up if it is in doubt, else make the ledger's attempt."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Reopen:
    """A person wants it tried anew."""

    entry: Entry


Step = New | Reused | Repeat | Wait | Inherit | Resume | Reopen


@dataclass(frozen=True, slots=True)
class Asker:
    """Who judges: one life of one worker, with no call of the request in flight.

    Attributes:
        owner: As it stands in the ledger.
        undecided_s: How long after its claim another life may still be dialling.
    """

    owner: str
    undecided_s: float


def judge(entry: Entry | None, trail: Trail, digest: str, now: float, asker: Asker) -> Step:
    """Say what a message is to its request.

    Args:
        entry: What the ledger knows.
        trail: What the message's headers say.
        digest: Of the message's fields as sent.
        now: Seconds since the epoch.
        asker: Who wants to know.
    """
    if entry is None:
        return New()
    if trail.replay == entry.replay and digest != entry.body_digest:
        return Reused()
    asked_again = trail.replay > entry.replay
    match entry.state:
        case "started" | "failed":
            reopened = asked_again and (entry.state == "failed" or trail.redial)
            return Reopen(entry) if reopened else Repeat(entry, asked_again)
        case "placing":
            decided_at = entry.claimed_at + asker.undecided_s
            undecided = entry.owner != asker.owner and now < decided_at
            return Wait(entry, decided_at) if undecided else Inherit(entry)
        case "delayed" if now < entry.due_at:
            return Wait(entry, entry.due_at)
        case "delayed" if digest != entry.body_digest:
            # Not the content whose time has come: that message is on its way.
            return Wait(entry, now + asker.undecided_s)
        case "delayed":
            return Resume(entry)
    assert_never(entry.state)


def reach(
    entry: Entry,
    decision: Decision,
    now: float,
    *,
    expires_at: float | None,
    confirmed_by: ConfirmedBy = "answer",
) -> Entry:
    """Return the entry that *decision* leads to from *entry*; a retry too late is an expiry."""
    reached = replace(entry, changed_at=now, out=False, reason=None)
    match decision:
        case Announce(call_id):
            return replace(
                reached,
                state="started",
                call_id=call_id,
                confirmed_by=confirmed_by,
                unsure_since=None,
            )
        case Retry(delay_s, attempt, code, description, status):
            told = replace(reached, code=code, description=description, http_status=status)
            if expires_at is not None and now + delay_s >= expires_at:
                return replace(told, state="failed", reason="expired", unsure_since=None)
            due_at = now + delay_s
            return replace(told, state="delayed", attempt=attempt, due_at=due_at, unsure_since=None)
        case Verify(delay_s, code, description, status):
            return replace(
                reached,
                state="delayed",
                due_at=now + delay_s,
                unsure_since=now if entry.unsure_since is None else entry.unsure_since,
                code=code,
                description=description,
                http_status=status,
            )
        case GiveUp(reason, code, description, status):
            return replace(
                reached,
                state="failed",
                reason=reason,
                unsure_since=(entry.unsure_since or now) if reason == "unsure" else None,
                code=code,
                description=description,
                http_status=status,
            )
    assert_never(decision)

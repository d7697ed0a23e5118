"""What a message asks for, given what the ledger knows, and the entries that follow. Pure.

The rules are those of "never twice": the ledger is the truth, the message only asks.
"""

from dataclasses import dataclass, replace
from typing import Literal, assert_never

from consumer.decision import Announce, Decision, Fail, Failure, Reconcile, Retry
from consumer.delivery import MessageHeaders
from consumer.ledger import Entry


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


Step = IdConflict | Superseded | Duplicate | NotYet | Orphaned | InDoubt | Due | Replayed


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
    same = body_digest == entry.body_digest
    replayed = headers.replay > entry.replay
    if not same and headers.replay == entry.replay:
        return IdConflict()
    match entry.state:
        case "started" | "failed":
            if replayed and (entry.state == "failed" or headers.redial):
                return Replayed()
            return Duplicate(replayed) if same or replayed else Superseded()
        case "placing" if not known.own and known.age_s < known.undecided_s:
            return NotYet(known.undecided_s - known.age_s)
        case "placing":
            return Orphaned()
        case "delayed":
            # Where the clock was set back, it waits no longer than it was to wait at first.
            wait_s = min(entry.due_at - entry.changed_at - known.age_s, entry.due_at - known.now)
            if wait_s > 0:
                return NotYet(wait_s)
            if replayed:
                return Replayed()
            if not same:
                # Not the content whose time has come: that message is on its way.
                return NotYet(known.undecided_s)
            return Due() if entry.unsure_since is None else InDoubt()
    assert_never(entry.state)


def apply_decision(
    entry: Entry,
    decision: Decision,
    now: float,
    *,
    expires_at: float | None,
    unsure_since: float | None = None,
) -> Entry:
    """Return the entry that *decision* leads to from *entry*; a retry too late is an expiry.

    Args:
        entry: The attempt that was made, or the doubt that was looked up.
        decision: What follows.
        now: Seconds since the epoch.
        expires_at: When the request's time is over, in seconds since the epoch.
        unsure_since: Since when a doubt lasts, by our clock.
    """
    reached = replace(entry, changed_at=now, published=False, reason=None)
    match decision:
        case Announce(call_id, confirmed_by):
            return replace(
                reached,
                state="started",
                call_id=call_id,
                confirmed_by=confirmed_by,
                unsure_since=None,
            )
        case Retry(delay_s, attempt, failure):
            told = with_failure(replace(reached, unsure_since=None), failure)
            if expires_at is not None and now + delay_s >= expires_at:
                return replace(told, state="failed", reason="expired")
            return replace(told, state="delayed", attempt=attempt, due_at=now + delay_s)
        case Reconcile(delay_s, failure):
            since = now if unsure_since is None else unsure_since
            told = with_failure(replace(reached, unsure_since=since), failure)
            return replace(told, state="delayed", due_at=now + delay_s)
        case Fail(reason, failure):
            since = now if unsure_since is None else unsure_since
            told = with_failure(replace(reached, state="failed", reason=reason), failure)
            return replace(told, unsure_since=since if reason == "unsure" else None)
    assert_never(decision)


def with_failure(entry: Entry, failure: Failure) -> Entry:
    """Return *entry* with what went wrong last."""
    return replace(
        entry,
        code=failure.code,
        description=failure.description,
        http_status=failure.http_status,
    )


def claim(draft: Entry, was: Entry | None, now: float) -> Entry:
    """Return the entry that says: about to dial.

    Args:
        draft: The attempt to make.
        was: What the ledger knows, if anything.
        now: Seconds since the epoch.
    """
    claimed = replace(draft, claimed_at=now, changed_at=now, first_claimed_at=now)
    if was is None:
        return claimed
    claimed = replace(claimed, first_seen_at=was.first_seen_at, rows_from=was.rows_from)
    if was.replay == draft.replay and not was.replayed_at and was.first_claimed_at:
        return replace(claimed, first_claimed_at=was.first_claimed_at)
    rang = was.state == "started" or was.unsure_since is not None
    return replace(claimed, rows_from=now) if rang else claimed


def in_doubt(entry: Entry, code: Literal["LEDGER_LOST", "WORKER_LOST"], now: float) -> Entry:
    """Return the entry that says: it may have been dialled, see the call history at once."""
    description = {
        "LEDGER_LOST": "the ledger does not know whether it was dialled",
        "WORKER_LOST": "the worker ended during the call",
    }[code]
    doubt = replace(
        entry, state="delayed", changed_at=now, due_at=now, unsure_since=now, published=False
    )
    return with_failure(doubt, Failure(code, description))


def reopened(entry: Entry, replay: int, body_digest: str, now: float) -> Entry:
    """Return the entry of a replay whose request is still in doubt: look it up once more."""
    return replace(
        entry,
        state="delayed",
        replay=replay,
        replayed_at=now,
        changed_at=now,
        due_at=now,
        body_digest=body_digest,
        reason=None,
        published=False,
    )


def expire(draft: Entry, was: Entry | None) -> Entry:
    """Return the entry of an attempt that is not made, because the request's time is over."""
    code = (was.code if was is not None else "") or "EXPIRED"
    expired = replace(draft, state="failed", attempt=draft.attempt - 1, reason="expired")
    text = "expires_at has passed, or would have before the next try"
    return with_failure(expired, Failure(code, text))

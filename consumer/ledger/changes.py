"""The entry that follows from another: a claim, an outcome, a doubt, a rule that forbids. Pure."""

from dataclasses import replace
from typing import Literal, assert_never

from consumer.decision import Announce, Decision, Fail, Failure, Reconcile, Retry
from consumer.ledger.entry import UNSEEN_BODY, Entry


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
    reached = replace(entry, changed_at=now, published=False, reason=None, scheduled=None)
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


def about_to_dial(draft: Entry, was: Entry | None, now: float) -> Entry:
    """Return the entry of a claim: somebody is about to dial.

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


def schedule(
    draft: Entry, was: Entry | None, due_at: float, now: float, *, calling_hours: bool
) -> Entry:
    """Return the entry of an attempt that waits for its time, without a failure.

    Args:
        draft: The attempt.
        was: What the ledger holds.
        due_at: When it may be made, in seconds since the epoch.
        now: Seconds since the epoch.
        calling_hours: Whether it waits for them; else for its `not_before`.
    """
    drafted = about_to_dial(draft, was, now)
    same_replay = was is not None and was.replay == draft.replay
    return replace(
        drafted,
        state="delayed",
        due_at=due_at,
        scheduled="calling_hours" if calling_hours else "not_before",
        claimed_at=0.0,
        first_claimed_at=was.first_claimed_at if was is not None and same_replay else 0.0,
    )


def expire(draft: Entry, was: Entry | None) -> Entry:
    """Return the entry of an attempt that is not made, because the request's time is over."""
    code = (was.code if was is not None else "") or "EXPIRED"
    text = "expires_at has passed, or would have before the next try"
    return forbid(draft, "expired", Failure(code, text))


def forbid(draft: Entry, reason: Literal["expired", "blocked"], failure: Failure) -> Entry:
    """Return the entry of an attempt that is not made, because a rule speaks against it."""
    forbidden = replace(draft, state="failed", attempt=draft.attempt - 1, reason=reason)
    return with_failure(forbidden, failure)


def cancel(entry: Entry, replay: int, now: float, body_digest: str) -> Entry:
    """Return the entry of a request that ends because it was taken back.

    Args:
        entry: As the ledger has it.
        replay: Which replay of it ends so, counting from 0.
        now: Seconds since the epoch.
        body_digest: Of what this replay asked for, which a person may have edited.
    """
    made = entry.attempt - 1 if entry.state == "delayed" else entry.attempt
    later = replay > entry.replay
    cancelled = replace(
        entry,
        state="failed",
        reason="cancelled",
        attempt=0 if later else made,
        replay=replay if later else entry.replay,
        body_digest=body_digest if later else entry.body_digest,
        changed_at=now,
        scheduled=None,
        unsure_since=None,
        published=False,
    )
    return with_failure(cancelled, taken_back(entry.cancelled_for))


def cancel_unseen(request_id: str, owner: str, why: str | None, now: float) -> Entry:
    """Return the entry of a request that was taken back before any worker saw it."""
    unseen = Entry(
        request_id=request_id,
        state="failed",
        reason="cancelled",
        attempt=0,
        replay=0,
        owner=owner,
        first_seen_at=now,
        changed_at=now,
        cancelled_at=now,
        cancelled_for=why,
        body_digest=UNSEEN_BODY,
    )
    return with_failure(unseen, taken_back(why))


def taken_back(why: str | None) -> Failure:
    """Return what to tell of a request that was taken back, and *why*, if upstream said so."""
    return Failure("CANCELLED", f"taken back: {why}" if why else "taken back")

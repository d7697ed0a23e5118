"""What a request waits for, and until when, in words. Pure."""

import time
from datetime import UTC, datetime

from consumer.ledger import Entry
from consumer.messages import rfc3339_at
from consumer.operations.dead_letter import DeadLetter
from consumer.output import shown_id


def when_delayed(entry: Entry) -> str:
    """Say what a delayed request waits for, and until when."""
    due = _due(entry.due_at)
    if entry.unsure_since is not None:
        since = f"in doubt since {moment(entry.unsure_since)}: the call history is asked"
        return f"{since} {due}" + ("; then it ends, taken back" if entry.cancelled_at else "")
    if entry.cancelled_at:
        return f"taken back, is not dialled: ends when its message comes, {due}"
    match entry.scheduled:
        case "not_before":
            return f"waits for its not_before: {due}"
        case "calling_hours":
            return f"waits for the calling hours: {due}"
        case None:
            return f"attempt {entry.attempt} {due}"


def _due(at: float) -> str:
    if at <= time.time():
        return "as soon as a worker takes it"
    return f"at {moment(at)} or soon after"


def waits_for_a_person(letter: DeadLetter) -> str:
    """Say since when a dead letter waits, and what a person can do with it."""
    id_ = shown_id(letter.id)
    since = f" since {letter.failed_at}" if letter.failed_at else ""
    return f"a dead letter{since}: dlq show {id_}, then dlq replay or discard {id_}"


def moment(at: float) -> str:
    """Write a time for people, in UTC; 0 is never, and is empty."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC" if at else ""


def stamp(at: float | None) -> str | None:
    """Write a time for programs; 0 is never, as None is."""
    return rfc3339_at(at) if at else None

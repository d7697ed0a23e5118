"""The statements that read and write entries, and how calls ended."""

from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from consumer.ledger.entry import Entry

COMPLETION = ("outcome", "ended_code", "duration_s")
"""What an entry tells of how its call ended: columns of another table, written with it alone."""
COLUMNS = tuple(field.name for field in fields(Entry) if field.name not in COMPLETION)
CHANGED = tuple(
    name for name in COLUMNS if name != "request_id" and not name.startswith("cancelled_")
)
"""What a new version of an entry changes: a cancellation stays, whoever writes."""
OF_CLAIM = ("claimed_at", "target_digest", "number_digest")
AFTER_CLAIM = tuple(name for name in CHANGED if name not in OF_CLAIM)
"""What changes after a claim: with the others left out, their indexes need not be written."""
SELECT = (
    f"SELECT queue, {', '.join((*COLUMNS, *COMPLETION))} FROM calls"  # noqa: S608
    " LEFT JOIN completions USING (queue, request_id, replay)"
)
INSERT = (
    f"INSERT INTO calls ({', '.join(COLUMNS)}, queue)"
    f" SELECT {', '.join(f'${n}' for n in range(1, len(COLUMNS) + 2))} WHERE {{}}"
    " ON CONFLICT DO NOTHING"
)
"""With ``{}`` for a condition."""
NOT_ADOPTED = "NOT EXISTS (SELECT 1 FROM calls WHERE call_id = $4)"
OPEN_CALLS = (
    "SELECT request_id, replay, call_id, changed_at, clock_offset_s FROM calls"
    " WHERE queue = $1 AND state = 'started' AND call_id IS NOT NULL"
    " AND completed_replay < replay AND changed_at >= $2"
)
OPEN_EARLIER = (
    "SELECT request_id, replay, of_call, began_at, NULL FROM completions"
    " WHERE queue = $1 AND outcome IS NULL AND began_at >= $2"
)
ENDED = (
    "c.request_id, c.replay, c.of_call, c.began_at, c.completed_at, c.outcome,"
    " c.ended_code, c.ended_reason, c.duration_s, c.cost, c.cost_currency"
)
NOTE_ENDING = (
    "INSERT INTO completions (queue, request_id, replay, of_call, began_at, outcome,"
    " ended_code, ended_reason, duration_s, cost, cost_currency, completed_at)"
    " SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12"
    " WHERE EXISTS (SELECT 1 FROM leases WHERE name = $13 AND fence = $14)"
    " ON CONFLICT (queue, request_id, replay) DO UPDATE SET outcome = $6,"
    " ended_code = $7, ended_reason = $8, duration_s = $9, cost = $10,"
    " cost_currency = $11, completed_at = $12 WHERE completions.outcome IS NULL"
)


def changed(entry: Entry, was: Entry) -> tuple[str, ...]:
    """Return the columns to write where *entry* takes the place of *was*."""
    same = all(getattr(entry, name) == getattr(was, name) for name in OF_CLAIM)
    return AFTER_CLAIM if same else CHANGED


@cache
def update(columns: Sequence[str], condition: str, first: int) -> str:
    """Return the statement that changes an entry: the one of queue $1, id $2, version $3.

    Args:
        columns: What to change.
        condition: A further condition, with values from $4 on.
        first: The number of the value of the first column.
    """
    sets = ", ".join(f"{name} = ${n}" for n, name in enumerate(columns, first))
    return (
        f"UPDATE calls SET {sets}"  # noqa: S608
        f" WHERE queue = $1 AND request_id = $2 AND version = $3 AND {condition}"
    )


def same_controls(first: int) -> str:
    """Return the condition that the controls have the version in value *first* + 1."""
    return f"EXISTS (SELECT 1 FROM about WHERE name = ${first} AND value = ${first + 1})"  # noqa: S608


def entry_of(row: Sequence[Any]) -> Entry:
    """Return the entry that is in a row of `SELECT`, without the queue."""
    known = dict(zip((*COLUMNS, *COMPLETION), row, strict=True))
    return Entry(**known | {"published": bool(known["published"])})  # SQLite knows numbers only

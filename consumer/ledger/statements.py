"""The statements that read and write entries; ``{}`` stands for a further condition."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from consumer.ledger.entry import Entry

COMPLETION = ("outcome", "ended_code", "duration_s")
"""What an entry tells of how its call ended: columns of another table, written with it alone."""
COLUMNS = tuple(field.name for field in fields(Entry) if field.name not in COMPLETION)
CHANGED = tuple(name for name in COLUMNS if not name.startswith("cancelled_"))
"""What a new version of an entry changes: a cancellation stays, whoever writes."""
SELECT = (
    f"SELECT queue, {', '.join((*COLUMNS, *COMPLETION))} FROM calls"  # noqa: S608
    " LEFT JOIN completions USING (queue, request_id, replay)"
)
INSERT = (
    f"INSERT INTO calls ({', '.join(COLUMNS)}, queue)"
    f" SELECT {', '.join(f'${n}' for n in range(1, len(COLUMNS) + 2))} WHERE {{}}"
    " ON CONFLICT DO NOTHING"
)
UPDATE = (
    f"UPDATE calls SET {', '.join(f'{name} = ${n}' for n, name in enumerate(CHANGED, 1))}"  # noqa: S608
    f" WHERE queue = ${len(CHANGED) + 1} AND request_id = $1 AND version = ${len(CHANGED) + 2}"
    " AND {}"
)
NOT_ADOPTED = f"NOT EXISTS (SELECT 1 FROM calls WHERE call_id = ${len(CHANGED) + 3})"  # noqa: S608


def same_controls(first: int) -> str:
    """Return the condition that the controls have the version in value *first* + 1."""
    return f"EXISTS (SELECT 1 FROM about WHERE name = ${first} AND value = ${first + 1})"  # noqa: S608


def entry_of(row: Sequence[Any]) -> Entry:
    """Return the entry that is in a row of `SELECT`, without the queue."""
    known = dict(zip((*COLUMNS, *COMPLETION), row, strict=True))
    return Entry(**known | {"published": bool(known["published"])})  # SQLite knows numbers only

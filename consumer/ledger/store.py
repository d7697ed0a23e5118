"""What a ledger needs of the database that keeps it, and the tables it keeps there."""

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from consumer.errors import OperatorError

Value = str | float | bytes | bool | None


class LedgerDown(OperatorError):
    """Raised when the ledger cannot be read or written; nothing may be dialled then."""


class WrongLedger(LedgerDown):
    """Raised when the ledger cannot be used, and waiting would not help."""


class Store(Protocol):
    """A database. Each statement is a transaction of its own, written when its method returns.

    Statements name their values ``$1``, ``$2`` and so on. Every method raises `LedgerDown` where
    the database cannot do what it should.

    Attributes:
        place: What to call it, without a password.
    """

    place: str

    async def exists(self) -> bool:
        """Tell whether a ledger has been made there."""

    async def open(self) -> None:
        """Connect, and run those of `MIGRATIONS` that have not run there."""

    async def close(self) -> None:
        """Disconnect; may be called again."""

    async def fetch(self, statement: str, *values: Value) -> Sequence[Sequence[Any]]:
        """Return the rows that a query finds."""

    async def execute(self, statement: str, *values: Value, durable: bool = True) -> int:
        """Return how many rows a change touched: none if it would break a unique index.

        Args:
            statement: An INSERT, UPDATE or DELETE.
            values: Its values.
            durable: Whether it must be on disk by then. If not, it survives the end of any process
                of ours, but perhaps not the machine's; what is durable later brings it along.
        """


def marks(values: Collection[object], after: int = 0) -> str:
    """Return the marks of *values* in a statement, *after* so many others: ``$1, $2``."""
    return ", ".join(f"${n}" for n in range(after + 1, after + len(values) + 1))


MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE about (name TEXT PRIMARY KEY, value BYTEA NOT NULL);
    CREATE TABLE calls (
        queue TEXT NOT NULL,
        request_id TEXT NOT NULL,
        state TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        replay INTEGER NOT NULL,
        owner TEXT NOT NULL,
        first_seen_at DOUBLE PRECISION NOT NULL,
        first_claimed_at DOUBLE PRECISION NOT NULL,
        claimed_at DOUBLE PRECISION NOT NULL,
        changed_at DOUBLE PRECISION NOT NULL,
        due_at DOUBLE PRECISION NOT NULL,
        call_id TEXT,
        confirmed_by TEXT,
        unsure_since DOUBLE PRECISION,
        line TEXT,
        reason TEXT,
        code TEXT NOT NULL,
        description TEXT NOT NULL,
        http_status INTEGER,
        out BOOLEAN NOT NULL,
        body_digest TEXT NOT NULL,
        target_digest TEXT NOT NULL,
        version INTEGER NOT NULL,
        PRIMARY KEY (queue, request_id)
    );
    CREATE INDEX calls_by_call_id ON calls (call_id) WHERE call_id IS NOT NULL;
    CREATE UNIQUE INDEX calls_adopted_once ON calls (call_id) WHERE confirmed_by = 'history';
    CREATE INDEX calls_by_target ON calls (target_digest);
    CREATE INDEX calls_by_change ON calls (state, changed_at);
    INSERT INTO about VALUES ('new', '');
    """,
    """
    ALTER TABLE calls RENAME COLUMN out TO published;
    ALTER TABLE calls ADD COLUMN replayed_at DOUBLE PRECISION NOT NULL DEFAULT 0;
    ALTER TABLE calls ADD COLUMN rows_from DOUBLE PRECISION NOT NULL DEFAULT 0;
    ALTER TABLE calls ADD COLUMN clock_offset_s DOUBLE PRECISION;
    CREATE TABLE earlier_calls (call_id TEXT PRIMARY KEY, claimed_at DOUBLE PRECISION NOT NULL);
    INSERT INTO about SELECT DISTINCT 'begun ' || queue, CAST('' AS BYTEA) FROM calls;
    DELETE FROM about WHERE name = 'new';
    """,
    """
    CREATE TABLE earlier_doubts (
        queue TEXT NOT NULL,
        request_id TEXT NOT NULL,
        replay INTEGER NOT NULL,
        target_digest TEXT NOT NULL,
        claimed_at DOUBLE PRECISION NOT NULL,
        entry TEXT NOT NULL,
        PRIMARY KEY (queue, request_id, replay)
    );
    CREATE INDEX earlier_doubts_by_target ON earlier_doubts (target_digest);
    """,
    """
    ALTER TABLE calls ADD COLUMN scheduled TEXT;
    ALTER TABLE calls ADD COLUMN cancelled_at DOUBLE PRECISION NOT NULL DEFAULT 0;
    ALTER TABLE calls ADD COLUMN cancelled_for TEXT;
    ALTER TABLE calls ADD COLUMN number_digest TEXT NOT NULL DEFAULT '';
    CREATE INDEX calls_by_number ON calls (number_digest, claimed_at);
    CREATE TABLE blocks (
        queue TEXT NOT NULL,
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        reason TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL,
        created_by TEXT NOT NULL,
        PRIMARY KEY (queue, id)
    );
    CREATE TABLE workers (
        queue TEXT NOT NULL,
        owner TEXT NOT NULL,
        host TEXT NOT NULL,
        started_at DOUBLE PRECISION NOT NULL,
        seen_at DOUBLE PRECISION NOT NULL,
        handled_at DOUBLE PRECISION NOT NULL,
        detail TEXT NOT NULL,
        PRIMARY KEY (queue, owner)
    );
    ALTER TABLE earlier_calls ADD COLUMN queue TEXT NOT NULL DEFAULT '';
    ALTER TABLE earlier_calls ADD COLUMN request_id TEXT NOT NULL DEFAULT '';
    ALTER TABLE earlier_calls ADD COLUMN number_digest TEXT NOT NULL DEFAULT '';
    CREATE INDEX earlier_calls_by_request ON earlier_calls (queue, request_id);
    CREATE INDEX earlier_calls_by_number ON earlier_calls (number_digest, claimed_at);
    CREATE TABLE letter_acts (
        queue TEXT NOT NULL,
        request_id TEXT NOT NULL,
        act TEXT NOT NULL,
        replay INTEGER NOT NULL,
        done_at DOUBLE PRECISION NOT NULL,
        done_by TEXT NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (queue, request_id)
    );
    CREATE INDEX calls_delayed ON calls (queue, scheduled, due_at) WHERE state = 'delayed';
    """,
    """
    CREATE TABLE tokens (
        portal TEXT PRIMARY KEY,
        generation INTEGER NOT NULL,
        sealed BYTEA NOT NULL,
        renewing TEXT NOT NULL,
        refused TEXT NOT NULL
    );
    """,
    """
    ALTER TABLE calls ADD COLUMN completed_replay INTEGER NOT NULL DEFAULT -1;
    CREATE INDEX calls_open ON calls (queue, changed_at)
        WHERE state = 'started' AND call_id IS NOT NULL AND completed_replay < replay;
    CREATE INDEX calls_in_doubt ON calls (queue, target_digest)
        WHERE state = 'delayed' AND unsure_since IS NOT NULL;
    CREATE TABLE completions (
        queue TEXT NOT NULL,
        request_id TEXT NOT NULL,
        replay INTEGER NOT NULL,
        of_call TEXT NOT NULL,
        began_at DOUBLE PRECISION NOT NULL,
        outcome TEXT,
        ended_code TEXT,
        ended_reason TEXT,
        duration_s DOUBLE PRECISION,
        cost DOUBLE PRECISION,
        cost_currency TEXT,
        completed_at DOUBLE PRECISION,
        announced BOOLEAN NOT NULL DEFAULT FALSE,
        PRIMARY KEY (queue, request_id, replay)
    );
    CREATE INDEX completions_open ON completions (queue) WHERE outcome IS NULL;
    CREATE INDEX completions_to_announce ON completions (queue) WHERE NOT announced;
    CREATE INDEX completions_by_time ON completions (queue, completed_at);
    CREATE TABLE leases (
        name TEXT PRIMARY KEY,
        holder TEXT NOT NULL,
        fence INTEGER NOT NULL,
        beat INTEGER NOT NULL,
        cursor BIGINT
    );
    """,
    """
    ALTER TABLE calls ADD COLUMN traceparent TEXT;
    """,
    # With the queue alone SQLite cannot tell these from an index of all completions.
    """
    DROP INDEX completions_open;
    CREATE INDEX completions_open ON completions (queue, began_at) WHERE outcome IS NULL;
    DROP INDEX completions_to_announce;
    CREATE INDEX completions_to_announce ON completions (queue, announced)
        WHERE announced = FALSE;
    """,
)
"""One script per version of the tables, in SQL that every store understands."""


def statements_since(done: int, place: str) -> list[str]:
    """Return the statements still to run where *done* migrations have run.

    Raises:
        WrongLedger: More have run there than are known here.
    """
    if done > len(MIGRATIONS):
        raise WrongLedger(
            f"{place} was written by a newer version (schema {done}): upgrade this one"
        )
    return [s for script in MIGRATIONS[done:] for s in script.split(";") if s.strip()]

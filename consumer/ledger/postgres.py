"""A ledger in PostgreSQL: for workers on several hosts."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import quote

import asyncpg

from consumer import tracing
from consumer.ledger.store import MIGRATIONS, LedgerDown, Value, WrongLedger, statements_since
from consumer.unreachable import cause_of

SCHEMA = "call_consumer"
ANSWER_WITHIN_S = 5.0
"""A server that takes longer counts as down."""
MIGRATE_WITHIN_S = 1800.0
"""To index millions of entries takes minutes."""
CLOSE_WITHIN_S = 1.0
T = TypeVar("T")
if TYPE_CHECKING:  # generic in asyncpg's stubs only
    from asyncpg.pool import PoolConnectionProxy
Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"


class PostgresStore:
    """See `Store`. Its tables are in a schema of their own.

    Args:
        url: ``postgresql://user:password@host:5432/database``, as libpq has it.
        connections: How many to have at most.
    """

    place = "PostgreSQL"

    def __init__(self, url: str, connections: int) -> None:
        self._url = url
        self._connections = connections
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def exists(self) -> bool:
        """Connect, and tell whether the schema is there."""
        await self._connect()
        found = await self.fetch("SELECT to_regclass($1) IS NOT NULL", f"{SCHEMA}.calls")
        return bool(found[0][0])

    async def open(self) -> None:
        """Connect, and make the schema if there is none."""
        await self._connect()
        if not await self._ask(_is_current):
            await self._ask(_migrate, MIGRATE_WITHIN_S)

    async def _connect(self) -> None:
        if self._pool is not None:
            return
        try:
            self._pool = await asyncpg.create_pool(
                _with_authorities(self._url),
                min_size=1,
                max_size=self._connections,
                timeout=ANSWER_WITHIN_S,
                reset=_leave_as_it_is,
                server_settings={
                    "search_path": SCHEMA,
                    "application_name": "call-consumer",
                    # A statement that we gave up would wait for its lock for ever, and keep a
                    # connection of the server's few.
                    "statement_timeout": f"{ANSWER_WITHIN_S:g}s",
                },
            )
        except (*_FAILURES, ValueError) as error:
            raise _down(error) from error

    async def close(self) -> None:
        """Disconnect."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await pool.close()
        except _FAILURES:
            pool.terminate()

    async def fetch(self, statement: str, *values: Value) -> Sequence[Sequence[Any]]:
        """Return the rows that a query finds."""

        async def query(connection: Connection) -> Sequence[Sequence[Any]]:
            return [tuple(row) for row in await connection.fetch(statement, *_plain(values))]

        with tracing.querying("postgresql", statement):
            return await self._ask(query)

    async def execute(self, statement: str, *values: Value, durable: bool = True) -> int:  # noqa: ARG002  # the server's disk is not waited for here
        """Return how many rows a change touched."""

        async def change(connection: Connection) -> int:
            try:
                done = await connection.execute(statement, *_plain(values))
            except asyncpg.UniqueViolationError:
                return 0
            return int(done.rpartition(" ")[2])  # as in "UPDATE 1"

        with tracing.querying("postgresql", statement):
            return await self._ask(change)

    async def _ask(
        self, ask: Callable[[Connection], Awaitable[T]], within_s: float | None = None
    ) -> T:
        """Ask over a connection of the pool, which is not used again after a failure."""
        pool = self._pool
        if pool is None:
            raise LedgerDown("the ledger is closed")
        try:
            async with asyncio.timeout(within_s or ANSWER_WITHIN_S):
                connection = await pool.acquire()
                try:
                    return await ask(connection)
                except BaseException:
                    connection.terminate()
                    raise
                finally:
                    await pool.release(connection)
        except _FAILURES as error:
            raise _down(error) from error


_LASTING = (
    asyncpg.InvalidAuthorizationSpecificationError,  # the password among them
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


async def _leave_as_it_is(_: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Ask nothing of the server after each statement: none of ours changes its session."""


async def _is_current(connection: Connection) -> bool:
    """Tell whether nothing is left to migrate."""
    if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{SCHEMA}.migrations"):
        return False
    return bool(await connection.fetchval("SELECT max(done) FROM migrations") == len(MIGRATIONS))


async def _migrate(connection: Connection) -> None:
    async with connection.transaction():
        # Replicas may start at the same moment.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", SCHEMA)
        if await connection.fetchval("SELECT to_regnamespace($1) IS NULL", SCHEMA):
            await connection.execute(f"CREATE SCHEMA {SCHEMA}")
        await connection.execute("CREATE TABLE IF NOT EXISTS migrations (done INTEGER NOT NULL)")
        done = await connection.fetchval("SELECT max(done) FROM migrations") or 0
        await connection.execute("SET LOCAL statement_timeout = 0")
        for statement in statements_since(done, "PostgreSQL"):
            await connection.execute(statement)
        if done < len(MIGRATIONS):
            await connection.execute("INSERT INTO migrations VALUES ($1)", len(MIGRATIONS))


def _plain(values: Sequence[Value]) -> list[Value]:
    """Leave out the one character that PostgreSQL keeps in no text."""
    return [value.replace("\0", "") if isinstance(value, str) else value for value in values]


def _with_authorities(url: str) -> str:
    """Trust `SSL_CERT_FILE` where a certificate is to be verified and no others are named.

    The portal's and the broker's clients do that by themselves, asyncpg does not.
    """
    file = os.environ.get("SSL_CERT_FILE")
    verified = re.search(r"[?&]sslmode=verify-(ca|full)", url)
    named = "sslrootcert=" in url or os.environ.get("PGSSLROOTCERT")
    return f"{url}&sslrootcert={quote(file, safe='')}" if file and verified and not named else url


def _down(error: Exception) -> LedgerDown:
    match error:
        case asyncpg.PostgresError() | asyncpg.InterfaceError():
            kind = WrongLedger if isinstance(error, _LASTING) else LedgerDown
            return kind(f"PostgreSQL: {type(error).__name__}: {error}".rstrip(": "))
        case OSError():  # an untrusted certificate among them, which is a ValueError too
            return LedgerDown(f"PostgreSQL: {type(error).__name__}: {cause_of(error)}")
        case _:  # a ValueError, which may quote a part of the address
            return WrongLedger("PostgreSQL: CALLS_LEDGER_URL is no address that can be read")

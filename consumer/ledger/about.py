"""What a ledger says of itself and of its queues: a name, a value."""

from consumer.ledger.store import Store, marks


class About:
    """The values by name; each method raises `LedgerDown` where the store cannot be used."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def note_once(self, name: str, value: bytes) -> None:
        """Write a value that stays as it was first written."""
        await self._store.execute(
            "INSERT INTO about VALUES ($1, $2) ON CONFLICT DO NOTHING", name, value
        )

    async def note(self, name: str, value: bytes) -> None:
        """Write a value over the one that was there."""
        await self._store.execute(
            "INSERT INTO about VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = $2",
            name,
            value,
        )

    async def read(self, *names: str) -> dict[str, bytes]:
        """Return the values of those *names* that have one."""
        rows = await self._store.fetch(
            f"SELECT name, value FROM about WHERE name IN ({marks(names)})",  # noqa: S608
            *names,
        )
        return {row[0]: row[1] for row in rows}

    async def forget(self, name: str) -> bool:
        """Remove a value; tell whether there was one."""
        return await self._store.execute("DELETE FROM about WHERE name = $1", name) == 1

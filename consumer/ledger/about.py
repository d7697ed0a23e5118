"""What a ledger says of itself and of its queues: a name, a value."""

import time

from consumer import metrics
from consumer.ledger.store import Store, marks

HISTORY_BELIEVED_S = 7 * 86_400.0
"""For how long it is remembered that the portal's call history could be read."""


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


class HistorySeen:
    """When the portal's call history showed a call of a queue's last, whichever worker asked."""

    def __init__(self, about: About, queue: str) -> None:
        self._about = about
        self._name = f"history {queue}"

    async def note(self) -> None:
        """Note that it has just done so."""
        with metrics.LEDGER.labels("note_history_shown").time():
            await self._about.note(self._name, repr(time.time()).encode())

    async def not_long_ago(self) -> bool:
        """Tell whether it did within `HISTORY_BELIEVED_S`."""
        with metrics.LEDGER.labels("has_seen_history").time():
            about = await self._about.read(self._name)
        return any(time.time() - float(at) < HISTORY_BELIEVED_S for at in about.values())

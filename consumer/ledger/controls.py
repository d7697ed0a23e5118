"""What operators say while workers run: paused or not, and whom not to phone."""

import json
import secrets
import time
from dataclasses import asdict, astuple, dataclass

from consumer import metrics
from consumer.blocks import Block
from consumer.ledger.about import About
from consumer.ledger.store import Store


@dataclass(frozen=True, slots=True)
class Pause:
    """No calls until an operator resumes them.

    Attributes:
        since: Seconds since the epoch.
        by: Who paused them.
    """

    reason: str
    since: float
    by: str


@dataclass(frozen=True, slots=True)
class Controls:
    """What operators have said.

    Attributes:
        version: Differs after each change; empty before the first.
    """

    version: bytes = b""
    pause: Pause | None = None
    blocks: tuple[Block, ...] = ()


class ControlsTable:
    """Each method raises `LedgerDown` where the store cannot be used.

    A change is written before its new version, and the version is read before the rest: so whoever
    knows the latest version knows every change.
    """

    def __init__(self, store: Store, about: About, queue: str) -> None:
        self._store = store
        self._about = about
        self._queue = queue
        self.version_name = f"controls {queue}"
        """Under which name `About` keeps the version."""

    async def version(self) -> bytes:
        """Return the latest version."""
        return (await self._about.read(self.version_name)).get(self.version_name, b"")

    async def read(self) -> Controls:
        """Return all that counts now."""
        with metrics.LEDGER.labels("controls").time():
            version = await self.version()
            pause = (await self._about.read(self._paused)).get(self._paused)
            rows = await self._store.fetch(
                "SELECT id, kind, key, value, reason, created_at, created_by FROM blocks"
                " WHERE queue = $1 ORDER BY created_at, id",
                self._queue,
            )
        return Controls(
            version,
            Pause(**json.loads(pause)) if pause else None,
            tuple(Block(*row) for row in rows),
        )

    async def pause(self, reason: str, by: str) -> Pause:
        """Pause all workers; one that is paused already keeps its reason and time."""
        pause = Pause(reason, time.time(), by)
        await self._about.note_once(self._paused, json.dumps(asdict(pause)).encode())
        await self._note_change()
        return (await self.read()).pause or pause

    async def resume(self) -> bool:
        """Let calls be made again; tell whether they were paused."""
        was_paused = await self._about.forget(self._paused)
        await self._note_change()
        return was_paused

    async def add_block(self, block: Block) -> bool:
        """Add a block; tell whether its id was free."""
        added = await self._store.execute(
            "INSERT INTO blocks (queue, id, kind, key, value, reason, created_at, created_by)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            self._queue,
            *astuple(block),
        )
        await self._note_change()
        return added == 1

    async def remove_block(self, block_id: str) -> bool:
        """Remove a block; tell whether there was one."""
        removed = await self._store.execute(
            "DELETE FROM blocks WHERE queue = $1 AND id = $2", self._queue, block_id
        )
        await self._note_change()
        return removed == 1

    @property
    def _paused(self) -> str:
        return f"paused {self._queue}"

    async def _note_change(self) -> None:
        await self._about.note(self.version_name, secrets.token_hex(8).encode())

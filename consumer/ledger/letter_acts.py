"""What operators did with dead letters: the request is not in their queue any more."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from consumer.ledger.store import Store, marks


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterAct:
    """The latest thing done with the dead letter of a request.

    Attributes:
        replay: As which replay it was sent back; where it was discarded, which one had failed.
        done_at: Seconds since the epoch, by the clock where the command ran.
        done_by: The user's name there.
        reason: Why, where it was discarded.
    """

    request_id: str
    act: Literal["replayed", "discarded"]
    replay: int
    done_at: float
    done_by: str
    reason: str = ""


class LetterActs:
    """Each method raises `LedgerDown` where the store cannot be used."""

    def __init__(self, store: Store, queue: str) -> None:
        self._store = store
        self._queue = queue

    async def note(self, act: LetterAct) -> None:
        """Write down what is about to be done."""
        await self._store.execute(
            "INSERT INTO letter_acts"
            " (queue, request_id, act, replay, done_at, done_by, reason)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (queue, request_id)"
            " DO UPDATE SET act = $3, replay = $4, done_at = $5, done_by = $6, reason = $7",
            self._queue,
            act.request_id,
            act.act,
            act.replay,
            act.done_at,
            act.done_by,
            act.reason,
        )

    async def of(self, request_ids: Collection[str]) -> dict[str, LetterAct]:
        """Return what was done with the dead letters of those requests."""
        if not request_ids:
            return {}
        rows = await self._store.fetch(
            "SELECT request_id, act, replay, done_at, done_by, reason FROM letter_acts"  # noqa: S608
            f" WHERE queue = $1 AND request_id IN ({marks(request_ids, after=1)})",
            self._queue,
            *request_ids,
        )
        names = ("request_id", "act", "replay", "done_at", "done_by", "reason")
        return {row[0]: LetterAct(**dict(zip(names, row, strict=True))) for row in rows}

    async def forget(self, before: float) -> None:
        """Remove what was done before a moment."""
        await self._store.execute(
            "DELETE FROM letter_acts WHERE queue = $1 AND done_at < $2", self._queue, before
        )

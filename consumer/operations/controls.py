"""What operators say while workers run: pause, resume, block. It is in force once this returns."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from consumer import controls as live
from consumer.blocks import Block, BlockKind
from consumer.ledger import Ledger, LedgerDown
from consumer.ledger.controls import Pause
from consumer.masking import masked, plain
from consumer.messages import Defaults
from consumer.operations.filters import BadFilter, number_of, pair_of
from consumer.operations.ledger_at_hand import NoLedger, ledger_at_hand
from consumer.settings import Settings

COMMITTED_S = 0.1
"""After so long a claim that was on its way into the ledger is there, or was refused."""
LOOK_EVERY_S = 0.02
IN_FORCE_WITHIN_S = 2.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class InForce(Generic[T]):
    """What an operator has said, and that every worker obeys it.

    Attributes:
        what: What holds; one that held before keeps its reason and time.
        begun: Whether it was said just now.
        under_way: How many calls were claimed before it, and had no answer yet when we stopped
            waiting for one. None of them begins later than that.
    """

    what: T
    begun: bool
    under_way: int


@dataclass(frozen=True, slots=True)
class Target:
    """What the requests have in common that a block stops.

    Attributes:
        key: The metadata's; empty for a line or a number.
        value: The metadata's, the line's id, or the number in E.164.
    """

    kind: BlockKind
    key: str
    value: str

    @property
    def words(self) -> str:
        """Say what it is; a number is only called one."""
        named = f"{self.key}={self.value}" if self.key else self.value
        return "a number" if self.kind == "number" else f"{self.kind} {named}"

    def masked_in(self, text: str) -> str:
        """Return *text* without the number, where that is what it is about."""
        return masked(plain(text), [self.value]) if self.kind == "number" else text

    def __repr__(self) -> str:
        """Leave the value out: it may be a number."""
        return f"Target({self.kind!r}, {self.key!r})"


def read_target(kind: str, text: str, defaults: Defaults) -> Target:
    """Read what a form blocks: a pair of the metadata, a line or a number.

    Raises:
        BadFilter: It cannot be read.
    """
    if not text:
        raise BadFilter("Say which: a pair of the metadata, a line or a number")
    match kind:
        case "metadata":
            return Target("metadata", *pair_of(text))
        case "number":
            return Target("number", "", number_of(text, defaults))
        case _:
            return Target("line", "", text)


@asynccontextmanager
async def existing_ledger(settings: Settings) -> AsyncIterator[Ledger]:
    """Open the workers' ledger for a while.

    Raises:
        NoLedger: There is none.
        LedgerDown: It cannot be used; whatever was to be said may be said again.
    """
    try:
        async with ledger_at_hand(settings) as ledger:
            yield ledger
    except NoLedger:
        raise
    except LedgerDown as error:
        text = f"{error}; see CALLS_LEDGER_URL, then say it again: twice does no harm"
        raise type(error)(text) from error


async def pause(ledger: Ledger, reason: str, by: str) -> InForce[Pause]:
    """Pause all calls, and return when no worker begins one any more.

    Raises:
        LedgerDown: Perhaps they are not paused.
    """
    begun = (await ledger.controls.read()).pause is None
    paused = await ledger.controls.pause(reason, by)
    return InForce(paused, begun, await _under_way(ledger))


async def block(ledger: Ledger, target: Target, reason: str, by: str) -> InForce[Block]:
    """Block requests, and return when no worker begins to dial one of them any more.

    Raises:
        LedgerDown: Perhaps they are not blocked.
    """
    if (known := await find_block(ledger, target)) is not None:
        return InForce(known, begun=False, under_way=await _under_way(ledger))
    reason = target.masked_in(reason)
    stored = _stored(ledger, target)
    size = 2
    while True:
        id_ = f"b-{secrets.token_hex(size)}"
        added = Block(id_, target.kind, target.key, stored, reason, time.time(), by)
        if await ledger.controls.add_block(added):
            return InForce(added, begun=True, under_way=await _under_way(ledger))
        size += 1


async def unblock(ledger: Ledger, block_id: str) -> bool:
    """Remove a block, and return when workers know; tell whether there was one.

    Before that a replay of what it stopped would be stopped again.

    Raises:
        LedgerDown: Perhaps it is still there.
    """
    removed = await ledger.controls.remove_block(block_id)
    await asyncio.sleep(2 * live.REFRESH_S)
    return removed


async def find_block(ledger: Ledger, target: Target) -> Block | None:
    """Return the oldest block that stops just this, if there is one.

    Raises:
        LedgerDown: The ledger cannot be read.
    """
    wanted = (target.kind, target.key, _stored(ledger, target))
    blocks = (await ledger.controls.read()).blocks
    return next((b for b in blocks if (b.kind, b.key, b.value) == wanted), None)


def _stored(ledger: Ledger, target: Target) -> str:
    """Return what the ledger keeps: of a number its keyed digest, as `Claims.draft` makes it."""
    return ledger.digest(target.value) if target.kind == "number" else target.value


async def _under_way(ledger: Ledger) -> int:
    """Wait until the calls are over that were claimed before now; return how many are not.

    From the change on the ledger refuses the claim of whoever does not know it.
    """
    give_up_at = time.monotonic() + IN_FORCE_WITHIN_S
    await asyncio.sleep(COMMITTED_S)
    claims = await ledger.search.open_claims()
    while claims and time.monotonic() < give_up_at:
        await asyncio.sleep(LOOK_EVERY_S)
        claims &= await ledger.search.open_claims()
    return len(claims)

"""Replay or discard many dead letters to the end, noted and logged, as a page does."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import monotonic

import structlog

from consumer.operations.dead_letter import DeadLetter
from consumer.operations.dead_letters import Replay, discard_letters, send_back
from consumer.operations.notes import Notes
from consumer.rabbitmq.browser import DeliveriesReturned, QueueBusy
from consumer.rabbitmq.topology import topology_of
from consumer.settings import Settings

PATIENCE_S = 15.0
"""For so long somebody else may have in hand what is left."""

Done = Callable[[DeadLetter], None]
Act = Callable[[Iterable[str], Done], Awaitable[None]]

log = structlog.get_logger(__name__)


async def replay_all(  # noqa: PLR0913  # what, how, how fast, and for whom
    settings: Settings,
    letters: Sequence[DeadLetter],
    how: Replay,
    rate_per_s: float | None,
    *,
    who: str,
    done: Done,
) -> None:
    """Send dead letters back; those that somebody else keeps in hand are left out.

    Raises:
        NotPublished, BrokerUnavailable: As `send_back` has it.
    """
    url, topology = settings.needed("rabbitmq_url"), topology_of(settings)
    sent = 0

    def counted(letter: DeadLetter) -> None:
        nonlocal sent
        sent += 1
        done(letter)

    async with Notes(settings, who) as notes:

        async def act(keys: Iterable[str], each: Done) -> None:
            note = notes.replayed
            await send_back(url, topology, keys, how, note, done=each, rate_per_s=rate_per_s)

        try:
            await _all_done(letters, act, counted)
        finally:
            if how.edits and sent:
                log.warning("dead_letters.edited", who=who, fields=sorted(how.edits), sent=sent)


async def discard_all(
    settings: Settings, letters: Sequence[DeadLetter], why: str, *, who: str, done: Done
) -> None:
    """Remove dead letters for good; those that somebody else keeps in hand are left out.

    Raises:
        BrokerUnavailable: As `discard_letters` has it.
    """
    url, topology = settings.needed("rabbitmq_url"), topology_of(settings)

    def logged(letter: DeadLetter) -> None:
        log.warning(
            "dead_letter.discarded",
            request_id=letter.id,
            who=who,
            why=why,
            reason=letter.reason,
            code=letter.code,
        )
        done(letter)

    async with Notes(settings, who) as notes:

        async def note(letter: DeadLetter) -> None:
            await notes.discarded(letter, why)

        async def act(keys: Iterable[str], each: Done) -> None:
            await discard_letters(url, topology, keys, lambda _: None, each, note=note)

        await _all_done(letters, act, logged)


async def _all_done(letters: Sequence[DeadLetter], act: Act, done: Done) -> None:
    """Act until all are done, or somebody else has had the others in hand for too long."""
    left = Counter(letter.key for letter in letters)

    def each(letter: DeadLetter) -> None:
        left[letter.key] -= 1
        done(letter)

    give_up_at = monotonic() + PATIENCE_S
    while left.total() and monotonic() < give_up_at:
        before = left.total()
        try:
            await act(list(left.elements()), each)
        except (QueueBusy, DeliveriesReturned):
            await asyncio.sleep(1)
        if left.total() < before:
            give_up_at = monotonic() + PATIENCE_S

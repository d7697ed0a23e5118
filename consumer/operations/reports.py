"""What became of many requests: the ledger is asked, then the dead letters, where it must be."""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from consumer.errors import OperatorError
from consumer.ledger import Entry, Ledger
from consumer.operations.choice import Choice
from consumer.operations.dead_letter import DeadLetter
from consumer.operations.dead_letters import look
from consumer.operations.report import Around, Report
from consumer.rabbitmq.losses import BrokerUnavailable
from consumer.rabbitmq.queue_counts import count_queues
from consumer.rabbitmq.topology import topology_of
from consumer.settings import Settings, WrongSettings

AT_ONCE = 500
"""So many ids are asked for in one statement."""


async def report_on(
    settings: Settings,
    ledger: Ledger,
    ids: Sequence[str],
    seen: Callable[[int, int], None] = lambda *_: None,
) -> tuple[list[Report], Around]:
    """Say what became of requests, in the order of their ids.

    Args:
        settings: Where broker and queues are.
        ledger: Open.
        ids: Each once.
        seen: Called after each dead letter that was looked at, as `look` has it.

    Raises:
        LedgerDown: It cannot be read.
    """
    known = await known_to_ledger(ledger, ids)
    wanted = [report.request_id for report in known if _may_be_dead(report.entry)]
    letters, not_looked = await _dead_letters(settings, wanted, seen)
    reports = [replace(report, letter=letters.get(report.request_id)) for report in known]
    waiting = await _waiting(settings) if wanted else None
    return reports, Around(
        queue=settings.queue,
        waiting=waiting,
        not_looked=not_looked,
        retention_days=settings.ledger_retention_days,
    )


async def known_to_ledger(ledger: Ledger, ids: Sequence[str]) -> list[Report]:
    """Say what the ledger knows of requests, in the order of their ids, each once.

    Raises:
        LedgerDown: It cannot be read.
    """
    return [
        report
        for begin in range(0, len(ids), AT_ONCE)
        for report in await _from_ledger(ledger, ids[begin : begin + AT_ONCE])
    ]


async def _from_ledger(ledger: Ledger, ids: Sequence[str]) -> list[Report]:
    entries = await ledger.search.entries(ids)
    acts = await ledger.letter_acts.of(ids)
    started = [x.call_id for x in entries.values() if x.call_id and x.outcome is None]
    open_ids = {call.request_id for call in await ledger.completions.open_among(started)}
    calls = await ledger.earlier.calls_of(list(entries.values()))
    doubts = {
        id_: len(await ledger.earlier.doubts_of(id_)) for id_, x in entries.items() if x.replay
    }
    return [
        Report(
            request_id=id_,
            entry=entries.get(id_),
            act=acts.get(id_),
            earlier_calls=calls[id_],
            earlier_doubts=doubts.get(id_, 0),
            is_open=id_ in open_ids,
        )
        for id_ in ids
    ]


def _may_be_dead(entry: Entry | None) -> bool:
    return entry is None or (entry.state == "failed" and entry.reason != "cancelled")


async def _dead_letters(
    settings: Settings, ids: Sequence[str], seen: Callable[[int, int], None]
) -> tuple[dict[str, DeadLetter], str]:
    """Return the newest dead letter of each id, and why nobody could look, if nobody could."""
    found: dict[str, DeadLetter] = {}
    if not ids:
        return found, ""
    try:
        url, topology = settings.needed("rabbitmq_url"), topology_of(settings)
        async with aclosing(look(url, topology, Choice(ids=frozenset(ids)), seen=seen)) as letters:
            async for letter in letters:
                found[letter.id] = max(found.get(letter.id, letter), letter, key=_replay_of)
    except WrongSettings as error:
        return {}, error.mistakes[0]
    except OperatorError as error:
        return {}, str(error)
    return found, ""


def _replay_of(letter: DeadLetter) -> int:
    return letter.replay


async def _waiting(settings: Settings) -> int | None:
    try:
        counts = await count_queues(settings.needed("rabbitmq_url"), [settings.queue])
    except (BrokerUnavailable, WrongSettings):
        return None
    return counts[settings.queue].messages if settings.queue in counts else None

"""`call-consumer dlq …`: an operator finds out what failed and why, fixes it, and replays."""

import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

import click

from consumer.cli.console import print_table, run, settings_or_exit
from consumer.cli.filters import choice_of, filters
from consumer.cli.ids import NamesIds
from consumer.cli.progress import Progress
from consumer.ledger import Ledger, LedgerDown
from consumer.messages import rfc3339_at
from consumer.messages.endings import in_words
from consumer.operations.choice import Choice
from consumer.operations.dead_letter import COLUMNS, DeadLetter, Groups, masked
from consumer.operations.dead_letters import NoSuchDeadLetter, look
from consumer.operations.ledger_at_hand import ledger_at_hand
from consumer.output import ids_of, say, say_csv, shown_id
from consumer.rabbitmq.topology import topology_of
from consumer.settings import Settings


@click.group()
def dlq() -> None:
    """Find out what failed and why, send it back, or give it up.

    Looking changes nothing. Whatever changes something wants ids, a filter or --all.
    """


@dlq.command("list")
@filters
@click.option("--limit", type=click.IntRange(1), help="The oldest so many.")
@click.option("--unmask", is_flag=True, help="Show whole numbers, and texts in --json.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, an export.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a table for a spreadsheet.")
def list_(
    *,
    limit: int | None,
    unmask: bool,
    as_json: bool,
    as_csv: bool,
    **chosen: Any,  # noqa: ANN401
) -> None:
    """List dead letters by time of failure."""
    if as_json and as_csv:
        raise click.UsageError("--json or --csv: not both")
    settings = settings_or_exit("rabbitmq_url")
    choice = choice_of(settings, chosen, chosen["ids"])
    letters = run(lambda: letters_of(settings, choice, limit))
    _say_if_none(len(letters))
    if as_json:
        say(*(letter.as_json(unmask=unmask) for letter in letters))
    elif as_csv:
        say_csv(COLUMNS, (letter.as_cells(unmask=unmask) for letter in letters))
    else:
        print_table(
            ("ID", "FAILED AT (UTC)", "REASON", "CODE", "REPLAYS", "NUMBER", "DESCRIPTION"),
            [_row(letter, unmask=unmask) for letter in letters],
        )


def _row(letter: DeadLetter, *, unmask: bool) -> Sequence[object]:
    return (
        shown_id(letter.id),
        (letter.failed_at or "")[:19].replace("T", " "),
        letter.reason,
        letter.code,
        letter.replay or "",
        letter.number if unmask else masked(letter.number),
        letter.description,
    )


def _say_if_none(count: int) -> None:
    if count == 0:
        say("no dead letters, or none that match", err=True)


async def letters_of(
    settings: Settings, choice: Choice, limit: int | None = None
) -> list[DeadLetter]:
    """Return the chosen dead letters, the oldest first; all stay where they are."""
    letters: list[DeadLetter] = []
    await look_at_each(settings, choice, letters.append, limit)
    return sorted(letters, key=lambda x: x.failed_at or "")[:limit]


async def look_at_each(
    settings: Settings,
    choice: Choice,
    each: Callable[[DeadLetter], None],
    limit: int | None = None,
) -> None:
    """Call *each* with the chosen dead letters, at least *limit* of them, and say how far it is."""
    url, topology = settings.needed("rabbitmq_url"), topology_of(settings)
    async with (
        Progress("looking at dead letters") as progress,
        aclosing(look(url, topology, choice, limit, seen=progress.note)) as found,
    ):
        async for letter in found:
            each(letter)


@dlq.command()
@filters
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def stats(*, as_json: bool, **chosen: Any) -> None:  # noqa: ANN401
    """Group dead letters by what went wrong, and say what to do about each group."""
    settings = settings_or_exit("rabbitmq_url")
    choice = choice_of(settings, chosen, chosen["ids"])
    run(lambda: _stats(settings, choice, as_json=as_json))


async def _stats(settings: Settings, choice: Choice, *, as_json: bool) -> None:
    groups = Groups()
    await look_at_each(settings, choice, groups.add)
    _say_if_none(len(groups.largest_first))
    for found in groups.largest_first:
        letter = found.example
        told = {
            "count": found.count,
            "reason": letter.reason,
            "code": letter.code,
            "description": letter.description,
            "first": found.first,
            "last": found.last,
            "came_back": found.replayed,
            "example": letter.id,
            "advice": letter.advice,
        }
        if as_json:
            say(json.dumps(told, ensure_ascii=False))
            continue
        say(
            f"{found.count} {found.title}",
            f"    from {found.first} to {found.last}, {found.replayed} after a replay",
            f"    for example {shown_id(letter.id)}",
            f"    -> {letter.advice}",
        )


@dlq.command(cls=NamesIds)
@click.argument("id_", metavar="ID")
@click.option("--unmask", is_flag=True, help="Show the number and the text.")
def show(id_: str, *, unmask: bool) -> None:
    """Show all that is known of one dead letter, the ledger's entry too."""
    settings = settings_or_exit("rabbitmq_url")
    run(lambda: _show(settings, id_, unmask=unmask))


async def _show(settings: Settings, id_: str, *, unmask: bool) -> None:
    letters = await letters_of(settings, Choice(ids=ids_of(id_)))
    if not letters:
        raise NoSuchDeadLetter(f"no dead letter has the id {shown_id(id_)}: see dlq list")
    for letter in letters:
        told = json.loads(letter.as_json(unmask=unmask))
        say(*json.dumps(told, indent=2, ensure_ascii=False).split("\n"))
        say(f"advice: {letter.advice}")
    try:
        async with ledger_at_hand(settings) as ledger:
            say(*await _known_to(ledger, [letter.id for letter in letters]))
    except LedgerDown:
        say("ledger: not at hand here; see CALLS_LEDGER_URL")


async def _known_to(ledger: Ledger, ids: Sequence[str]) -> list[str]:
    """Say what the ledger knows: where the requests are, and how their latest calls ended."""
    told = []
    for entry in (await ledger.search.entries(ids)).values():
        call = f" as {entry.call_id}" if entry.state == "started" else ""
        since = rfc3339_at(entry.changed_at)
        tried = f"attempt {entry.attempt}, replay {entry.replay}"
        told.append(f"ledger: {entry.state}{call}, {tried}, since {since}")
    for ended in (await ledger.completions.latest(ids)).values():
        how = in_words(ended.ending.outcome, ended.ending.duration_s)
        began = rfc3339_at(ended.started_at)
        told.append(f"latest call that ended: {how}; replay {ended.replay}, started at {began}")
    return told or ["ledger: knows nothing of it"]

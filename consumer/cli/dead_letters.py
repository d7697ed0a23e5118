"""`call-consumer dlq …`: an operator finds out what failed and why, fixes it, and replays."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar, get_args

import click
import structlog

from consumer.cli.console import print_table, run, settings_or_exit
from consumer.cli.ids import Chooser, NamesIds, choice_of
from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.messages import Reason, read_moment, rfc3339
from consumer.operations.dead_letter import Choice, DeadLetter, Groups, masked
from consumer.operations.dead_letters import NoSuchDeadLetter, look
from consumer.output import ids_of, say, shown_id
from consumer.rabbitmq.topology import topology_of
from consumer.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

log = structlog.get_logger(__name__)


@click.group()
def dlq() -> None:
    """Find out what failed and why, send it back, or give it up.

    Looking changes nothing. Whatever changes something wants ids, a filter or --all.
    """


def _moment(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    moment = read_moment(value) if value is not None else None
    if value is not None and moment is None:
        raise click.BadParameter("write a time with offset, as 2026-01-31T09:00:00Z")
    return moment


def _part(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.BadParameter("is empty, so it would choose all")
    return value


chooser = partial(click.option, cls=Chooser)
_FILTERS = (
    chooser(
        "--reason",
        "reasons",
        type=click.Choice([*get_args(Reason), "broker"]),
        multiple=True,
        help="Only with this reason; repeatable.",
    ),
    chooser("--code", "codes", multiple=True, help="Only with this code; repeatable."),
    chooser(
        "--description",
        metavar="PART",
        callback=_part,
        help="Only if the description holds this.",
    ),
    chooser("--line", help="Only those that ask for this line."),
    chooser("--request-id", "ids", multiple=True, help="Only this request; repeatable."),
    chooser("--since", callback=_moment, help="Only those that failed from this time on."),
    chooser("--until", callback=_moment, help="Only those that failed before this time."),
    chooser(
        "--replayed/--not-replayed", default=None, help="Only those that came back, or did not."
    ),
)


def filters(command: F) -> F:
    """Give a command the options that choose dead letters."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


@dlq.command("list")
@filters
@click.option("--limit", type=click.IntRange(1), help="The oldest so many.")
@click.option("--unmask", is_flag=True, help="Show whole numbers, and texts in --json.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, an export.")
def list_(*, limit: int | None, unmask: bool, as_json: bool, **chosen: Any) -> None:  # noqa: ANN401
    """List dead letters by time of failure."""
    settings = settings_or_exit("rabbitmq_url")
    choice = choice_of(chosen, chosen["ids"])
    run(lambda: _list(settings, choice, limit, unmask=unmask, as_json=as_json))


async def _list(
    settings: Settings, choice: Choice, limit: int | None, *, unmask: bool, as_json: bool
) -> None:
    letters = await letters_of(settings, choice, limit)
    _say_if_none(len(letters))
    if as_json:
        for letter in letters:
            say(letter.as_json(unmask=unmask))
        return
    rows = [
        (
            shown_id(x.id),
            (x.failed_at or "")[:19].replace("T", " "),
            x.reason,
            x.code,
            x.replay or "",
            x.number if unmask else masked(x.number),
            x.description,
        )
        for x in letters
    ]
    print_table(
        ("ID", "FAILED AT (UTC)", "REASON", "CODE", "REPLAYS", "NUMBER", "DESCRIPTION"), rows
    )


def _say_if_none(count: int) -> None:
    if count == 0:
        say("no dead letters, or none that match", err=True)


async def letters_of(
    settings: Settings, choice: Choice, limit: int | None = None
) -> list[DeadLetter]:
    """Return the chosen dead letters, the oldest first; all stay where they are."""
    found = look(settings.needed("rabbitmq_url"), topology_of(settings), choice, limit)
    return sorted([letter async for letter in found], key=lambda x: x.failed_at or "")[:limit]


@dlq.command()
@filters
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def stats(*, as_json: bool, **chosen: Any) -> None:  # noqa: ANN401
    """Group dead letters by what went wrong, and say what to do about each group."""
    settings = settings_or_exit("rabbitmq_url")
    run(lambda: _stats(settings, choice_of(chosen, chosen["ids"]), as_json=as_json))


async def _stats(settings: Settings, choice: Choice, *, as_json: bool) -> None:
    groups = Groups()
    async for letter in look(settings.needed("rabbitmq_url"), topology_of(settings), choice):
        groups.add(letter)
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
    entries = await entries_of(settings, letters)
    if entries is None:
        say("ledger: not at hand here; see CALLS_LEDGER_URL")
    elif not entries:
        say("ledger: knows nothing of it")
    for entry in (entries or {}).values():
        call = f" as {entry.call_id}" if entry.state == "started" else ""
        since = rfc3339(datetime.fromtimestamp(entry.changed_at, UTC))
        tried = f"attempt {entry.attempt}, replay {entry.replay}"
        say(f"ledger: {entry.state}{call}, {tried}, since {since}")


async def entries_of(settings: Settings, letters: Sequence[DeadLetter]) -> dict[str, Entry] | None:
    """Return the ledger's entries, or None where the ledger cannot be read."""
    try:
        ledger = Ledger(settings.ledger_url.get_secret_value(), settings.queue)
        try:
            if not await ledger.exists():
                return None
            await ledger.open()
            found = {letter.id: await ledger.get(letter.id) for letter in letters}
        finally:
            await ledger.close()
    except LedgerDown:
        return None
    return {id_: entry for id_, entry in found.items() if entry is not None}

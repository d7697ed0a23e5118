"""`call-consumer dlq …`: an operator finds out what failed and why, mends it, and replays."""

import getpass
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import IO, Any, TypeVar, get_args

import click
import structlog

from consumer import log as logging_
from consumer.app import topology_of
from consumer.console import Failed, print_table, run, settings_or_exit
from consumer.deadletters import (
    Choice,
    DeadLetter,
    NoSuchDeadLetter,
    Replay,
    give_up,
    group,
    look,
    masked,
    send_back,
)
from consumer.ledger import Entry, Ledger, LedgerDown
from consumer.messages import CallRequested, Reason, read_moment, rfc3339
from consumer.pace import Pace
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


def _not_blank(_: click.Context, __: click.Parameter, value: str) -> str:
    if not value.strip():
        raise click.BadParameter("is empty: say in a few words why")
    return value


_FILTERS = (
    click.option(
        "--reason",
        "reasons",
        type=click.Choice([*get_args(Reason), "broker"]),
        multiple=True,
        help="Only with this reason; repeatable.",
    ),
    click.option("--code", "codes", multiple=True, help="Only with this code; repeatable."),
    click.option("--line", help="Only those that ask for this line."),
    click.option("--request-id", "ids", multiple=True, help="Only this request; repeatable."),
    click.option("--since", callback=_moment, help="Only those that failed from this time on."),
    click.option("--until", callback=_moment, help="Only those that failed before this time."),
    click.option(
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
    settings = settings_or_exit()
    run(lambda: _list(settings, Choice(**chosen), limit, unmask=unmask, as_json=as_json))


async def _list(
    settings: Settings, choice: Choice, limit: int | None, *, unmask: bool, as_json: bool
) -> None:
    letters = await _letters(settings, choice, limit)
    if as_json:
        for letter in letters:
            click.echo(letter.as_json(unmask=unmask))
        return
    rows = [
        (
            x.id,
            (x.failed_at or "")[:19],
            x.reason,
            x.code,
            x.replay or "",
            x.number if unmask else masked(x.number),
            x.description,
        )
        for x in letters
    ]
    print_table(("ID", "FAILED AT", "REASON", "CODE", "REPLAYS", "NUMBER", "DESCRIPTION"), rows)


async def _letters(
    settings: Settings, choice: Choice, limit: int | None = None
) -> list[DeadLetter]:
    found = look(settings.needed("rabbitmq_url"), topology_of(settings), choice, limit)
    return sorted([letter async for letter in found], key=lambda x: x.failed_at or "")[:limit]


@dlq.command()
@filters
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def stats(*, as_json: bool, **chosen: Any) -> None:  # noqa: ANN401
    """Group dead letters by what went wrong, and say what to do about each group."""
    settings = settings_or_exit()
    run(lambda: _stats(settings, Choice(**chosen), as_json=as_json))


async def _stats(settings: Settings, choice: Choice, *, as_json: bool) -> None:
    url, topology = settings.needed("rabbitmq_url"), topology_of(settings)
    for found in await group(url, topology, choice):
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
            click.echo(json.dumps(told, ensure_ascii=False))
            continue
        click.echo(f"{found.count} {letter.reason} {letter.code or ''}: {letter.description or ''}")
        click.echo(f"    from {found.first} to {found.last}, {found.replayed} after a replay")
        click.echo(f"    for example {letter.id}")
        click.echo(f"    -> {letter.advice}")


@dlq.command()
@click.argument("id_", metavar="ID")
@click.option("--unmask", is_flag=True, help="Show the number and the text.")
def show(id_: str, *, unmask: bool) -> None:
    """Show all that is known of one dead letter, the ledger's entry too."""
    settings = settings_or_exit()
    run(lambda: _show(settings, id_, unmask=unmask))


async def _show(settings: Settings, id_: str, *, unmask: bool) -> None:
    letters = await _letters(settings, Choice(ids={id_}))
    if not letters:
        raise NoSuchDeadLetter(f"no dead letter has the id {id_}: see dlq list")
    for letter in letters:
        told = json.loads(letter.as_json(unmask=unmask))
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        click.echo(f"advice: {letter.advice}")
    entries = await _entries(settings, letters)
    if entries is None:
        click.echo("ledger: not at hand here; see CALLS_LEDGER_URL")
    elif not entries:
        click.echo("ledger: knows nothing of it")
    for entry in (entries or {}).values():
        call = f" as {entry.call_id}" if entry.state == "started" else ""
        since = rfc3339(datetime.fromtimestamp(entry.changed_at, UTC))
        tried = f"attempt {entry.attempt}, replay {entry.replay}"
        click.echo(f"ledger: {entry.state}{call}, {tried}, since {since}")


async def _entries(settings: Settings, letters: Sequence[DeadLetter]) -> dict[str, Entry] | None:
    """Return the ledger's entries, or None where the ledger is not within reach."""
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


@dlq.command()
@click.argument("ids_", nargs=-1, metavar="[ID]...")
@filters
@click.option("--all", "everything", is_flag=True, help="Every dead letter there is now.")
@click.option("--set", "edits", multiple=True, metavar="FIELD=VALUE", help="Change a field.")
@click.option("--redial", is_flag=True, help="Dial even what was started before.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="At most so many a second.")
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def replay(  # noqa: PLR0913  # each is an option of the command
    ids_: tuple[str, ...],
    *,
    everything: bool,
    edits: tuple[str, ...],
    redial: bool,
    rate: float | None,
    dry_run: bool,
    yes: bool,
    **chosen: Any,  # noqa: ANN401
) -> None:
    """Send dead letters back as new requests; prints their ids.

    A request that was started meanwhile is announced again, not dialled, unless --redial is said.
    """
    choice = _choice(ids_, chosen, everything=everything)
    how = Replay(redial=redial, edits=_edits(edits))
    settings = settings_or_exit()
    run(lambda: _replay(settings, choice, how, rate, dry_run=dry_run, yes=yes))


def _choice(ids: Sequence[str], chosen: dict[str, Any], *, everything: bool) -> Choice:
    choice = Choice(**chosen | {"ids": (*ids, *chosen["ids"])})
    if choice.everything != everything:
        raise click.UsageError("name IDs or a filter, or say --all")
    return choice


def _edits(edits: Sequence[str]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for edit in edits:
        name, equals, value = edit.partition("=")
        if not equals or name not in CallRequested.model_fields or name == "request_id":
            names = ", ".join(sorted(set(CallRequested.model_fields) - {"request_id"}))
            raise click.UsageError(f"--set takes FIELD=VALUE, FIELD one of {names}")
        if name in parsed:
            raise click.UsageError(f"--set {name}= is there twice: keep one")
        try:
            parsed[name] = json.loads(value) if name == "metadata" else value
        except ValueError:
            raise click.UsageError("--set metadata= takes a JSON object") from None
    return parsed


async def _replay(  # noqa: PLR0913  # as the command has them
    settings: Settings,
    choice: Choice,
    how: Replay,
    rate: float | None,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    letters = await _chosen(settings, choice)
    for letter in letters:
        if (mistake := how.mistake(letter)) is not None:
            raise Failed(f"{letter.id} would be refused after --set: {mistake}")
    for line in await _plan(settings, letters, how, rate):
        click.echo(line, err=True)
    if dry_run or not letters:
        for letter in letters:
            click.echo(letter.id)
        click.echo(f"would replay {len(letters)}", err=True)
        return
    _confirm(f"replay {len(letters)}?", yes=yes)
    logging_.set_up(stream=sys.stderr)
    pace = Pace(rate or 0, 1)
    sent = 0
    with _progress(len(letters)) as bar:

        async def each(letter: DeadLetter) -> None:
            nonlocal sent
            await pace.wait()
            click.echo(letter.id)
            sent += 1
            bar.update(1)

        url, topology = settings.needed("rabbitmq_url"), topology_of(settings)
        await send_back(url, topology, {letter.key for letter in letters}, how, each)
    if how.edits:
        log.info("dead_letters.edited", who=getpass.getuser(), fields=sorted(how.edits), sent=sent)
    click.echo(f"replayed {sent}", err=True)
    if sent < len(letters):
        raise Failed(f"{len(letters) - sent} were in somebody else's hands: look again")


async def _chosen(settings: Settings, choice: Choice) -> list[DeadLetter]:
    letters = await _letters(settings, choice)
    if missing := sorted(set(choice.ids) - {letter.id for letter in letters}):
        raise NoSuchDeadLetter(f"no dead letter has the id {', '.join(missing)}: see dlq list")
    return letters


async def _plan(
    settings: Settings, letters: Sequence[DeadLetter], how: Replay, rate: float | None
) -> list[str]:
    """Say what a replay would do, before it does it."""
    speed = min(x for x in (rate, settings.rate_per_s or None, 1e9) if x)
    seconds = len(letters) / speed
    lines = [f"{len(letters)} dead letters, about {seconds:.0f} s at {speed:g} a second"]
    if expired := [x.id for x in letters if x.expired and "expires_at" not in how.edits]:
        lines.append(f"{_some(expired)} expired and will fail again: --set expires_at=… mends it")
    if again := [x.id for x in letters if x.replay]:
        lines.append(f"{_some(again)} came back after a replay before: was the cause mended?")
    entries = await _entries(settings, letters)
    if started := [id_ for id_, entry in (entries or {}).items() if entry.state == "started"]:
        then = "will be dialled again" if how.redial else "will be announced again, not dialled"
        lines.append(f"{_some(started)} was already started and {then}")
    return lines


def _some(ids: Sequence[str]) -> str:
    return f"{len(ids)} ({', '.join(ids[:3])}{', …' if len(ids) > 3 else ''})"  # noqa: PLR2004


def _confirm(question: str, *, yes: bool) -> None:
    """Ask a person at a terminal; a program has said enough by naming what it wants."""
    if not yes and sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)


def _progress(length: int) -> Any:  # noqa: ANN401  # click does not name its type
    stream = sys.stderr
    return click.progressbar(length=length, file=stream, hidden=not stream.isatty())


@dlq.command()
@click.argument("ids_", nargs=-1, metavar="[ID]...")
@filters
@click.option("--all", "everything", is_flag=True, help="Every dead letter there is now.")
@click.option("--why", required=True, callback=_not_blank, help="The reason, for the log.")
@click.option(
    "--to",
    type=click.File("ab", lazy=False),
    help="Append the requests to this file, as `publish FILE` takes them.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be discarded and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def discard(  # noqa: PLR0913  # each is an option of the command
    ids_: tuple[str, ...],
    *,
    everything: bool,
    why: str,
    to: IO[bytes] | None,
    dry_run: bool,
    yes: bool,
    **chosen: Any,  # noqa: ANN401
) -> None:
    """Remove dead letters for good, with a log line each; --to keeps the requests."""
    choice = _choice(ids_, chosen, everything=everything)
    settings = settings_or_exit()
    run(lambda: _discard(settings, choice, why, to, dry_run=dry_run, yes=yes))


async def _discard(  # noqa: PLR0913  # as the command has them
    settings: Settings, choice: Choice, why: str, to: IO[bytes] | None, *, dry_run: bool, yes: bool
) -> None:
    letters = await _chosen(settings, choice)
    if dry_run:
        for letter in letters:
            click.echo(letter.id)
        click.echo(f"would discard {len(letters)}", err=True)
        return
    _confirm(f"discard {len(letters)}?", yes=yes)
    logging_.set_up(stream=sys.stderr)
    discarded = 0

    def each(letter: DeadLetter) -> None:
        nonlocal discarded
        if to is not None:
            to.write(_one_line(letter) + b"\n")
            to.flush()
        log.warning(
            "dead_letter.discarded",
            request_id=letter.id,
            who=getpass.getuser(),
            why=why,
            reason=letter.reason,
            code=letter.code,
        )
        click.echo(letter.id)
        discarded += 1

    url, topology = settings.needed("rabbitmq_url"), topology_of(settings)
    await give_up(url, topology, {letter.key for letter in letters}, each)
    click.echo(f"discarded {discarded}", err=True)


def _one_line(letter: DeadLetter) -> bytes:
    """Return the body on one line, as it came where that is possible."""
    if b"\n" not in letter.body:
        return letter.body
    readable = dict(letter.fields) or letter.body.decode(errors="replace")
    return json.dumps(readable, ensure_ascii=False).encode()

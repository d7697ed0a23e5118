"""`call-consumer dlq replay` and `dlq discard`: first the plan, then a question, then the doing."""

import getpass
import json
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO, Any

import click
import structlog

from consumer import log as logging_
from consumer.app import topology_of
from consumer.cli_dlq import dlq, entries_of, filters, letters_of
from consumer.console import Failed, run, settings_or_exit
from consumer.deadletters import (
    Choice,
    DeadLetter,
    Groups,
    NoSuchDeadLetter,
    Replay,
    give_up,
    send_back,
)
from consumer.limits.rate_limiter import RateLimiter
from consumer.messages import CallRequested
from consumer.settings import Settings

__all__ = ["dlq"]

log = structlog.get_logger(__name__)


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
    settings = settings_or_exit("rabbitmq_url")
    letters = run(lambda: _planned(settings, choice, how, rate))
    if _goes_on("replay", letters, dry_run=dry_run, yes=yes):
        run(lambda: _replay(settings, letters, how, rate))


async def _planned(
    settings: Settings, choice: Choice, how: Replay, rate: float | None
) -> list[DeadLetter]:
    """Say what a replay would do, before it does it."""
    letters = await _chosen(settings, choice)
    for letter in letters:
        if (mistake := how.mistake(letter)) is not None:
            raise Failed(f"{letter.id} would be refused after --set: {mistake}")
    speed = min(x for x in (rate, settings.rate_per_s or None, float("inf")) if x)
    count = _count(len(letters))
    click.echo(f"{count}, about {len(letters) / speed:.0f} s at {speed:g} a second", err=True)
    for found in Groups(letters).largest_first:
        click.echo(f"  {found.count} {found.title}", err=True)
    for warning in await _warnings(settings, letters, how):
        click.echo(warning, err=True)
    return letters


async def _warnings(
    settings: Settings, letters: Sequence[DeadLetter], how: Replay
) -> Sequence[str]:
    lines = []
    if expired := [x.id for x in letters if x.expired and "expires_at" not in how.edits]:
        lines.append(f"{_some(expired)} expired and will fail again: --set expires_at=… mends it")
    if again := [x.id for x in letters if x.replay]:
        lines.append(f"{_some(again)} came back after a replay before: was the cause mended?")
    if unread := [x.id for x in letters if x.reason == "invalid" and not how.edits]:
        lines.append(f"{_some(unread)} cannot be read and will fail again: --set may mend it")
    if "to_number" in how.edits and len(letters) > 1:
        lines.append(f"all {len(letters)} will call the same number")
    entries = await entries_of(settings, letters)
    if started := [id_ for id_, entry in (entries or {}).items() if entry.state == "started"]:
        then = "will be dialled again" if how.redial else "will be announced again, not dialled"
        lines.append(f"{_some(started)} was already started and {then}")
    return lines


async def _replay(
    settings: Settings, letters: Collection[DeadLetter], how: Replay, rate: float | None
) -> None:
    logging_.set_up("warning", stream=sys.stderr)
    pace = RateLimiter(rate or 0, 1)
    sent = 0
    url, topology = settings.needed("rabbitmq_url"), topology_of(settings)
    with click.progressbar(
        length=len(letters), file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:

        async def each(letter: DeadLetter) -> None:
            nonlocal sent
            await pace.acquire()
            click.echo(letter.id)
            sent += 1
            bar.update(1)

        try:
            await send_back(url, topology, {letter.key for letter in letters}, how, each)
        finally:
            _tell("replayed", sent, len(letters))
            if how.edits and sent:
                who, fields = getpass.getuser(), sorted(how.edits)
                log.warning("dead_letters.edited", who=who, fields=fields, sent=sent)
    _all_done(sent, len(letters))


@dlq.command()
@click.argument("ids_", nargs=-1, metavar="[ID]...")
@filters
@click.option("--all", "everything", is_flag=True, help="Every dead letter there is now.")
@click.option("--why", required=True, help="The reason, for the log.")
@click.option(
    "--to",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append the requests to this file: whole numbers and texts.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be discarded and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def discard(  # noqa: PLR0913  # each is an option of the command
    ids_: tuple[str, ...],
    *,
    everything: bool,
    why: str,
    to: Path | None,
    dry_run: bool,
    yes: bool,
    **chosen: Any,  # noqa: ANN401
) -> None:
    """Remove dead letters for good, with a log line each; --to keeps the requests."""
    if not why.strip():
        raise click.BadParameter("is empty: say in a few words why", param_hint="--why")
    choice = _choice(ids_, chosen, everything=everything)
    settings = settings_or_exit("rabbitmq_url")
    letters = run(lambda: _shown(settings, choice))
    if _goes_on("discard", letters, dry_run=dry_run, yes=yes):
        file = _opened(to) if to is not None else None
        run(lambda: _discard(settings, letters, why, file))


async def _shown(settings: Settings, choice: Choice) -> list[DeadLetter]:
    letters = await _chosen(settings, choice)
    click.echo(_count(len(letters)), err=True)
    for found in Groups(letters).largest_first:
        click.echo(f"  {found.count} {found.title}", err=True)
    return letters


def _opened(path: Path) -> IO[bytes]:
    """Open a file for requests, which nobody else may read."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
    except OSError as error:
        raise click.UsageError(f"--to {path}: cannot be written: {error.strerror}") from None


async def _discard(
    settings: Settings, letters: Collection[DeadLetter], why: str, file: IO[bytes] | None
) -> None:
    logging_.set_up("warning", stream=sys.stderr)
    discarded = 0

    def each(letter: DeadLetter) -> None:
        nonlocal discarded
        if file is not None:
            file.write(_one_line(letter) + b"\n")
            file.flush()
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
    try:
        await give_up(url, topology, {letter.key for letter in letters}, each)
    finally:
        _tell("discarded", discarded, len(letters))
        if file is not None:
            file.close()
    _all_done(discarded, len(letters))


def _one_line(letter: DeadLetter) -> bytes:
    """Return the body on one line, as it came where that is possible."""
    if b"\n" not in letter.body:
        return letter.body
    readable = dict(letter.fields) or letter.body.decode(errors="replace")
    return json.dumps(readable, ensure_ascii=False).encode()


# --- what both do


def _choice(ids: Sequence[str], chosen: dict[str, Any], *, everything: bool) -> Choice:
    choice = Choice(**chosen | {"ids": (*ids, *chosen["ids"])})
    if everything and not choice.everything:
        raise click.UsageError("IDs or a filter, or --all: not both")
    if not everything and choice.everything:
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


async def _chosen(settings: Settings, choice: Choice) -> list[DeadLetter]:
    letters = await letters_of(settings, choice)
    if missing := sorted(set(choice.ids) - {letter.id for letter in letters}):
        which = "no dead letter has the id" if choice == Choice(ids=choice.ids) else "none matches"
        raise NoSuchDeadLetter(f"{which} {', '.join(missing)}: see dlq list")
    return letters


def _goes_on(act: str, letters: Sequence[DeadLetter], *, dry_run: bool, yes: bool) -> bool:
    """Tell whether to go on; ask a person, for a program has said enough by naming what it wants.

    This runs outside of any event loop, so that Ctrl-C ends the question.
    """
    if not letters:
        click.echo(f"nothing to {act}", err=True)
        return False
    if dry_run:
        for letter in letters:
            click.echo(letter.id)
        click.echo(f"would {act} {len(letters)}", err=True)
        return False
    if not yes and sys.stdin.isatty():
        click.confirm(f"{act} {len(letters)}?", abort=True, err=True)
    return True


def _tell(done: str, count: int, chosen: int) -> None:
    left = f" of {chosen}; the others are still dead letters" if count < chosen else ""
    click.echo(f"{done} {count}{left}", err=True)


def _all_done(count: int, chosen: int) -> None:
    if count < chosen:
        raise Failed(f"{chosen - count} were in somebody else's hands: look again")


def _count(letters: int) -> str:
    return f"{letters} dead letter{'s' if letters != 1 else ''}"


def _some(ids: Sequence[str]) -> str:
    return f"{len(ids)} ({', '.join(ids[:3])}{', …' if len(ids) > 3 else ''})"  # noqa: PLR2004

"""`call-consumer dlq replay` and `dlq discard`: the plan, then a question, then the action."""

import getpass
import json
import os
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import structlog

from consumer import log as logging_
from consumer.cli.console import Failed, run, settings_or_exit
from consumer.cli.dead_letters import chooser, dlq, entries_of, filters
from consumer.cli.ids import Chosen, NamesIds, chosen_of
from consumer.messages import CallRequested
from consumer.operations.dead_letter import Choice, DeadLetter, Groups
from consumer.operations.dead_letters import Replay, discard_letters, look, send_back
from consumer.output import OutputFailed, is_terminal, say, shown_id
from consumer.rabbitmq.connection import BrokerUnavailable, connect, link_losses
from consumer.rabbitmq.topology import topology_of
from consumer.settings import Settings

__all__ = ["dlq"]

log = structlog.get_logger(__name__)


_ids = click.argument("ids_", nargs=-1, metavar="[[--] ID]...")
_ids_file = chooser(
    "--ids", "file", metavar="FILE", help="Only the ids in this file, one a line; - is stdin."
)
_all = chooser("--all", "everything", is_flag=True, help="Every dead letter there is now.")


_HOW_TO_NAME_IDS = """\b
Ids are never taken for options. First the options, then --, then the ids:
  call-consumer dlq {0} -- ID ID
or all from a file or a pipe, JSON or one a line:
  call-consumer dlq list --json | call-consumer dlq {1}
"""


@dlq.command(
    cls=NamesIds, epilog=_HOW_TO_NAME_IDS.format("replay --set from_line=reg1", "replay --ids -")
)
@_ids
@filters
@_ids_file
@_all
@click.option("--set", "edits", multiple=True, metavar="FIELD=VALUE", help="Change a field.")
@click.option("--redial", is_flag=True, help="Dial even what was started before.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="At most so many a second.")
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def replay(  # noqa: PLR0913  # each is an option of the command
    ids_: tuple[str, ...],
    *,
    file: str | None,
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
    what = chosen_of(ids_, file, chosen, everything=everything)
    how = Replay(redial=redial, edits=_edits(edits))
    settings = settings_or_exit("rabbitmq_url")
    letters = run(lambda: _planned(settings, what, how, rate)) if what is not None else []
    if _goes_on("replay", letters, dry_run=dry_run, yes=yes):
        run(lambda: _replay(settings, letters, how, rate))


async def _planned(
    settings: Settings, what: Chosen, how: Replay, rate: float | None
) -> list[DeadLetter]:
    """Say what a replay would do, before it does it."""
    letters = await _chosen(settings, what)
    for letter in letters:
        if (mistake := how.mistake(letter)) is not None:
            raise Failed(f"{shown_id(letter.id)} would be refused after --set: {mistake}")
    speed = min(x for x in (rate, settings.rate_per_s or None, float("inf")) if x)
    count = _count(len(letters))
    say(f"{count}, about {len(letters) / speed:.0f} s at {speed:g} a second", err=True)
    say(*_causes(letters), *await _warnings(settings, letters, how), err=True)
    return letters


async def _warnings(
    settings: Settings, letters: Sequence[DeadLetter], how: Replay
) -> Sequence[str]:
    lines = []
    if expired := [x.id for x in letters if x.expired and "expires_at" not in how.edits]:
        lines.append(f"{_some(expired)} expired and will fail again: --set expires_at=… fixes it")
    if again := [x.id for x in letters if x.replay]:
        lines.append(f"{_some(again)} came back after a replay before: was the cause fixed?")
    if unread := [x.id for x in letters if x.reason == "invalid" and not how.edits]:
        lines.append(f"{_some(unread)} cannot be read and will fail again: --set may fix it")
    if "to_number" in how.edits and len(letters) > 1:
        lines.append(f"all {len(letters)} will call the same number")
    unsure = [x.id for x in letters if x.reason == "unsure"]
    if unsure and "to_number" in how.edits and not how.redial:
        lines.append(f"{_some(unsure)} was in doubt about another number: no look-up, dialled once")
    entries = await entries_of(settings, letters)
    if started := [id_ for id_, entry in (entries or {}).items() if entry.state == "started"]:
        then = "will be dialled again" if how.redial else "will be announced again, not dialled"
        lines.append(f"{_some(started)} was already started and {then}")
    most = max((found.count for found in Groups(letters).largest_first), default=0)
    if most >= settings.pause_after:
        lines.append(
            f"if {settings.pause_after} in a row fail as before, the worker pauses and the others "
            "wait until the portal is well: its log and /readyz say so"
        )
    return lines


async def _replay(
    settings: Settings, letters: Collection[DeadLetter], how: Replay, rate: float | None
) -> None:
    logging_.set_up("warning", stream=sys.stderr)
    sent = 0
    url, topology = settings.needed("rabbitmq_url"), topology_of(settings)
    # On one terminal with the ids the bar would run into them, and they show as much.
    hidden = not is_terminal(sys.stderr) or is_terminal(sys.stdout)
    with click.progressbar(length=len(letters), file=sys.stderr, hidden=hidden) as bar:

        def done(letter: DeadLetter) -> None:
            nonlocal sent
            sent += 1
            bar.update(1)
            say(shown_id(letter.id))

        try:
            keys = [letter.key for letter in letters]
            await send_back(url, topology, keys, how, done=done, rate_per_s=rate)
        finally:
            if how.edits and sent:
                log.warning("dead_letters.edited", who=_who(), fields=sorted(how.edits), sent=sent)
            _tell("replayed", sent, len(letters))
    _all_done(sent, len(letters))
    if not await _is_taken(settings):
        say(
            "no worker takes requests just now: none runs, or it is paused (its log and /readyz "
            "tell); what was replayed waits",
            err=True,
        )


async def _is_taken(settings: Settings) -> bool:
    """Tell whether anybody consumes the queue of requests; yes, where that cannot be seen."""
    with suppress(BrokerUnavailable), link_losses():
        connection = await connect(settings.needed("rabbitmq_url"), "replay")
        async with connection, connection.channel() as channel:
            queue = await channel.declare_queue(topology_of(settings).requests.name, passive=True)
        return bool(queue.declaration_result.consumer_count)
    return True


@dlq.command(
    cls=NamesIds,
    epilog=_HOW_TO_NAME_IDS.format('discard --why "a trial"', 'discard --ids - --why "a trial"'),
)
@_ids
@filters
@_ids_file
@_all
@click.option("--why", help="The reason, for the log; always needed.")
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
    file: str | None,
    everything: bool,
    why: str | None,
    to: Path | None,
    dry_run: bool,
    yes: bool,
    **chosen: Any,  # noqa: ANN401
) -> None:
    """Remove dead letters for good, with a log line each; --to keeps the requests."""
    if why is None or not why.strip():
        text = "say in a few words why, before the ids: --why TEXT -- ID…"
        raise click.BadParameter(text, param_hint="--why")
    what = chosen_of(ids_, file, chosen, everything=everything)
    settings = settings_or_exit("rabbitmq_url")
    letters = run(lambda: _shown(settings, what)) if what is not None else []
    if _goes_on("discard", letters, dry_run=dry_run, yes=yes):
        kept = _Kept(to) if to is not None else None
        run(lambda: _discard(settings, letters, why, kept))


async def _shown(settings: Settings, what: Chosen) -> list[DeadLetter]:
    letters = await _chosen(settings, what)
    say(_count(len(letters)), *_causes(letters), err=True)
    return letters


class _Kept:
    """A file of requests, one on each line, which nobody else may read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            text = f"--to {path}: cannot be written: {error.strerror}"
            raise click.UsageError(text) from None

    def add(self, letter: DeadLetter) -> None:
        """Append a request.

        Raises:
            OutputFailed: It cannot be written; the file ends as before.
        """
        left = _one_line(letter) + b"\n"
        size = os.fstat(self._file).st_size
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            with suppress(OSError):  # it may be a device
                os.ftruncate(self._file, size)
            raise OutputFailed(f"--to {self._path}", error) from None


def _one_line(letter: DeadLetter) -> bytes:
    """Return the body on one line: as it came, or with blanks for JSON's line breaks."""
    if b"\n" not in letter.body:
        return letter.body
    if letter.fields:
        return letter.body.replace(b"\n", b" ")
    return json.dumps(letter.body.decode(errors="replace")).encode()


async def _discard(
    settings: Settings, letters: Collection[DeadLetter], why: str, kept: _Kept | None
) -> None:
    logging_.set_up("warning", stream=sys.stderr, needed=True)
    discarded = 0

    def each(letter: DeadLetter) -> None:
        if kept is not None:
            kept.add(letter)

    def done(letter: DeadLetter) -> None:
        nonlocal discarded
        discarded += 1
        log.warning(
            "dead_letter.discarded",
            request_id=letter.id,
            who=_who(),
            why=why,
            reason=letter.reason,
            code=letter.code,
        )
        say(shown_id(letter.id))

    url, topology = settings.needed("rabbitmq_url"), topology_of(settings)
    try:
        await discard_letters(url, topology, [letter.key for letter in letters], each, done)
    finally:
        _tell("discarded", discarded, len(letters))
    _all_done(discarded, len(letters))


def _who() -> str:
    """Return the user's name, or number: in a container that may be all there is."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


# --- what both do


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


async def _chosen(settings: Settings, what: Chosen) -> list[DeadLetter]:
    letters = []
    async for letter in look(settings.needed("rabbitmq_url"), topology_of(settings), Choice()):
        if what.stumbles_over(letter):
            raise Failed(
                f"{shown_id(letter.id)} is a dead letter's id too: see it with "
                f"`dlq show -- {letter.id}`, and name it behind --, before you choose like this"
            )
        if what.choice.holds(letter):
            letters.append(letter)
    what.see_all_named(letters)
    return sorted(letters, key=lambda x: x.failed_at or "")


def _goes_on(act: str, letters: Sequence[DeadLetter], *, dry_run: bool, yes: bool) -> bool:
    """Tell whether to go on; ask only a person at a terminal.

    This runs outside of any event loop, so that Ctrl-C ends the question.
    """
    if not letters:
        say(f"nothing to {act}", err=True)
        return False
    if dry_run:
        say(*(shown_id(letter.id) for letter in letters))
        say(f"would {act} {len(letters)}", err=True)
        return False
    if not yes and is_terminal(sys.stdin):
        click.confirm(f"{act} {len(letters)}?", abort=True, err=True)
    return True


def _tell(done: str, count: int, chosen: int) -> None:
    left = f" of {chosen}; the others are still dead letters" if count < chosen else ""
    say(f"{done} {count}{left}", err=True)


def _all_done(count: int, chosen: int) -> None:
    if count < chosen:
        raise Failed(f"{chosen - count} were in somebody else's hands: look again")


def _count(letters: int) -> str:
    return f"{letters} dead letter{'s' if letters != 1 else ''}"


def _causes(letters: Sequence[DeadLetter]) -> list[str]:
    return [f"  {found.count} {found.title}" for found in Groups(letters).largest_first]


def _some(ids: Sequence[str]) -> str:
    return f"{len(ids)} ({', '.join(map(shown_id, ids[:3]))}{', …' if len(ids) > 3 else ''})"  # noqa: PLR2004

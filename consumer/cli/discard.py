"""`call-consumer dlq discard`: the plan, then a question, then they are gone; --to keeps them."""

import json
import os
import sys
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click
import structlog

from consumer import log as logging_
from consumer.cli.console import run, settings_or_exit, who
from consumer.cli.ids import NamesIds
from consumer.cli.plan import (
    HOW_TO_NAME_IDS,
    Chosen,
    causes,
    chosen_letters,
    chosen_of,
    counted,
    goes_on,
    letter_options,
    see_all_done,
    tell,
)
from consumer.cli.progress import Progress
from consumer.operations.dead_letter import DeadLetter
from consumer.operations.dead_letters import discard_letters
from consumer.operations.notes import Notes
from consumer.output import OutputFailed, say, shown_id
from consumer.rabbitmq.topology import topology_of
from consumer.settings import Settings

log = structlog.get_logger(__name__)


@click.command(
    cls=NamesIds,
    epilog=HOW_TO_NAME_IDS.format('discard --why "a trial"', 'discard --ids - --why "a trial"'),
)
@letter_options
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
    settings = settings_or_exit("rabbitmq_url")
    what = chosen_of(settings, ids_, file, chosen, everything=everything)
    letters = run(lambda: _shown(settings, what)) if what is not None else []
    if goes_on("discard", letters, dry_run=dry_run, yes=yes):
        kept = _Kept(to) if to is not None else None
        run(lambda: _discard(settings, letters, why, kept))


async def _shown(settings: Settings, what: Chosen) -> list[DeadLetter]:
    letters = await chosen_letters(settings, what)
    say(counted(len(letters)), *causes(letters), err=True)
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
        with progress.one_more():
            discarded += 1
            log.warning(
                "dead_letter.discarded",
                request_id=letter.id,
                who=who(),
                why=why,
                reason=letter.reason,
                code=letter.code,
            )
            say(shown_id(letter.id))

    url, topology = settings.needed("rabbitmq_url"), topology_of(settings)
    try:
        async with (
            Progress("discarding", len(letters)) as progress,
            Notes(settings, who()) as notes,
        ):
            keys = [letter.key for letter in letters]
            note = partial(notes.discarded, why=why)
            await discard_letters(url, topology, keys, each, done, note=note)
    finally:
        tell("discarded", discarded, len(letters))
    see_all_done(discarded, len(letters))

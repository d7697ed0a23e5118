"""`call-consumer dlq replay`: the plan, then a question, then the requests go back."""

import sys
from collections.abc import Collection, Sequence
from typing import Any

import click
import structlog

from consumer import log as logging_
from consumer.cli.console import Failed, run, settings_or_exit, who
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
from consumer.operations.dead_letters import Replay, send_back
from consumer.operations.edits import FIELDS, BadEdit, read_edit
from consumer.operations.notes import Notes
from consumer.operations.planning import is_taken, plan_of
from consumer.operations.replay_warnings import warnings_of
from consumer.output import say, shown_id
from consumer.rabbitmq.topology import topology_of
from consumer.settings import Settings

log = structlog.get_logger(__name__)


@click.command(
    cls=NamesIds, epilog=HOW_TO_NAME_IDS.format("replay --set from_line=reg1", "replay --ids -")
)
@letter_options
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
    how = Replay(redial=redial, edits=_edits(edits))
    settings = settings_or_exit("rabbitmq_url")
    what = chosen_of(settings, ids_, file, chosen, everything=everything)
    letters = run(lambda: planned(settings, what, how, rate)) if what is not None else []
    if goes_on("replay", letters, dry_run=dry_run, yes=yes):
        run(lambda: _replay(settings, letters, how, rate))


async def _replay(
    settings: Settings, letters: Collection[DeadLetter], how: Replay, rate: float | None
) -> None:
    logging_.set_up("warning", stream=sys.stderr)
    sent = 0
    url, topology = settings.needed("rabbitmq_url"), topology_of(settings)

    def done(letter: DeadLetter) -> None:
        nonlocal sent
        with progress.one_more():
            sent += 1
            say(shown_id(letter.id))

    try:
        async with Progress("replaying", len(letters)) as progress:
            keys = [letter.key for letter in letters]
            async with Notes(settings, who()) as notes:
                each = notes.replayed
                await send_back(url, topology, keys, how, each, done=done, rate_per_s=rate)
    finally:
        if how.edits and sent:
            log.warning("dead_letters.edited", who=who(), fields=sorted(how.edits), sent=sent)
        tell("replayed", sent, len(letters))
    see_all_done(sent, len(letters))
    if not await is_taken(settings):
        say(
            "no worker takes requests just now: none runs, or it is paused (its log and /readyz "
            "tell); what was replayed waits",
            err=True,
        )


def _edits(edits: Sequence[str]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for edit in edits:
        name, equals, value = edit.partition("=")
        if not equals or name not in FIELDS:
            raise click.UsageError(f"--set takes FIELD=VALUE, FIELD one of {', '.join(FIELDS)}")
        if name in parsed:
            raise click.UsageError(f"--set {name}= is there twice: keep one")
        try:
            parsed[name] = read_edit(name, value)
        except BadEdit as error:
            raise click.UsageError(f"--set {name}= {error}") from None
    return parsed


async def planned(
    settings: Settings, what: Chosen, how: Replay, rate: float | None
) -> Sequence[DeadLetter]:
    """Say what a replay would do, before it does it, and return what is chosen.

    Raises:
        Failed: An edited request would be refused, or as `chosen_letters` has it.
        NoSuchDeadLetter: An id names none.
    """
    letters = await chosen_letters(settings, what)
    for letter in letters:
        if (mistake := how.mistake(letter)) is not None:
            raise Failed(f"{shown_id(letter.id)} would be refused after --set: {mistake}")
    plan = await plan_of(settings, letters, how, rate)
    lasts_s = plan.lasts.total_seconds()
    pace = f"about {lasts_s:.0f} s at {plan.speed:g} a second"
    say(f"{counted(len(letters))}, {pace if lasts_s else 'without a limit of pace'}", err=True)
    say(*causes(letters), *warnings_of(plan), err=True)
    return letters

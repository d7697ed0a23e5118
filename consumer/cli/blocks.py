"""`call-consumer block add`, `list` and `remove`: for which requests nobody is phoned."""

import json
from collections.abc import Sequence

import click

from consumer.blocks import Block
from consumer.cli.console import Failed, print_table, run, settings_or_exit, who_and_where
from consumer.cli.filters import number_of, pairs_of
from consumer.cli.ids import NamesIds
from consumer.cli.orders import dry_run_option, json_option, reason_option, tell_doubts
from consumer.messages import rfc3339_at
from consumer.operations import controls
from consumer.operations.controls import Target
from consumer.output import ids_of, say, shown_id
from consumer.settings import Settings


@click.group()
def block() -> None:
    """Name the requests for which nobody is phoned: a campaign, a line, a number.

    A request that a block stops becomes a dead letter with the reason blocked.
    """


@block.command()
@click.option(
    "--metadata",
    "pairs",
    metavar="KEY=VALUE",
    multiple=True,
    callback=pairs_of,
    help="Requests with this in their metadata.",
)
@click.option("--line", "lines", metavar="ID", multiple=True, help="Calls from this line.")
@click.option(
    "--number",
    "numbers",
    metavar="NUMBER",
    multiple=True,
    help="Calls to this number, written as in a request; kept as a keyed digest.",
)
@reason_option
@dry_run_option
@json_option
def add(  # noqa: PLR0913  # each is an option of the command
    *,
    pairs: Sequence[tuple[str, str]],
    lines: Sequence[str],
    numbers: Sequence[str],
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Add a block, and print its id; it is in force on all workers when this returns."""
    settings = settings_or_exit()
    targets = [Target("metadata", key, value) for key, value in pairs]
    targets += [Target("line", "", line) for line in lines]
    targets += [
        Target("number", "", number_of(number, settings.request_defaults)) for number in numbers
    ]
    if len(targets) != 1 or not (targets[0].key or targets[0].value.strip()):
        text = "say one thing: --metadata KEY=VALUE, --line ID or --number NUMBER"
        raise click.UsageError(f"{text}; what is to match any of several needs a block each")
    run(lambda: _add(settings, targets[0], reason, dry_run=dry_run, as_json=as_json))


async def _add(
    settings: Settings, target: Target, reason: str, *, dry_run: bool, as_json: bool
) -> None:
    async with controls.existing_ledger(settings) as ledger:
        if dry_run:
            known = await controls.find_block(ledger, target)
            say(f"{shown_id(known.id)} blocks it already" if known else "would block it", err=True)
            return
        done = await controls.block(ledger, target, reason, who_and_where())
        if as_json:
            _say_json(done.what, begun=done.begun, under_way=done.under_way)
        else:
            say(shown_id(done.what.id))
        if not done.begun:
            say("it was blocked before, and keeps that reason", err=True)
        await tell_doubts(ledger, settings, done.under_way)


@block.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def list_(*, as_json: bool) -> None:
    """List the blocks that are in force, the oldest first."""
    settings = settings_or_exit()
    blocks = run(lambda: _blocks(settings))
    if not blocks:
        say("no blocks", err=True)
    elif as_json:
        for each in blocks:
            _say_json(each)
    else:
        print_table(
            ("ID", "STOPS", "SINCE", "BY", "REASON"),
            [
                (
                    shown_id(each.id),
                    _title(each),
                    rfc3339_at(each.created_at),
                    each.created_by,
                    each.reason,
                )
                for each in blocks
            ],
        )


async def _blocks(settings: Settings) -> Sequence[Block]:
    async with controls.existing_ledger(settings) as ledger:
        return (await ledger.controls.read()).blocks


def _title(block: Block) -> str:
    match block.kind:
        case "metadata":
            return f"metadata {block.key}={block.value}"
        case "line":
            return f"line {block.value}"
        case "number":
            return "a number"


def _say_json(block: Block, **more: object) -> None:
    told = {
        "id": block.id,
        "kind": block.kind,
        "key": block.key or None,
        "value": block.value if block.kind != "number" else None,
        "since": rfc3339_at(block.created_at),
        "by": block.created_by,
        "reason": block.reason,
    }
    say(json.dumps(told | more, ensure_ascii=False))


@block.command(cls=NamesIds)
@click.argument("id_", metavar="ID")
@dry_run_option
def remove(id_: str, *, dry_run: bool) -> None:
    """Remove a block; what it stopped stays a dead letter, until you replay it."""
    settings = settings_or_exit()
    run(lambda: _remove(settings, id_, dry_run=dry_run))


async def _remove(settings: Settings, word: str, *, dry_run: bool) -> None:
    async with controls.existing_ledger(settings) as ledger:
        named = ids_of(word)
        found = [b.id for b in (await ledger.controls.read()).blocks if b.id in named]
        if not found:
            raise Failed(f"no block has the id {shown_id(word)}: see block list")
        if dry_run:
            say(f"would remove {shown_id(found[0])}", err=True)
            return
        await controls.unblock(ledger, found[0])
    say(shown_id(found[0]))
    text = "what it stopped stays a dead letter: to send that back,"
    say(f'{text} call-consumer dlq replay --description "block {found[0]},"', err=True)

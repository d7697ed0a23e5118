"""`call-consumer show`: what became of any request, from the ledger and the dead letters."""

from collections.abc import Sequence

import click

from consumer.cli.console import print_table, run, settings_or_exit
from consumer.cli.ids import NamesIds, read_ids
from consumer.cli.progress import Progress
from consumer.ledger import Ledger
from consumer.messages import Invalid, read_number
from consumer.operations.ledger_at_hand import ledger_at_hand
from consumer.operations.proof import total
from consumer.operations.report import Around, Report
from consumer.operations.reports import report_on
from consumer.operations.waits import moment
from consumer.output import ids_of, say, shown_id
from consumer.settings import Settings

EPILOG = """\b
Ids are never taken for options. First the options, then --, then the ids:
  call-consumer show --json -- ID ID
or all from a file or a pipe, JSON or one a line:
  call-consumer show --ids replayed.txt
  call-consumer dlq list --json | call-consumer show -
"""


@click.command(cls=NamesIds, epilog=EPILOG)
@click.argument("ids", nargs=-1, metavar="[[--] ID]...")
@click.option("--ids", "file", metavar="FILE", help="The ids in this file, one a line; - is stdin.")
@click.option("--number", help="All requests to this number, written as in a request.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def show(ids: tuple[str, ...], *, file: str | None, number: str | None, as_json: bool) -> None:
    """Show what became of any request: ID…, or - for ids from stdin.

    One is told in full; of many there is a line each, and a sum. Changes nothing.
    """
    words = [*(read_ids("-") if ids == ("-",) else ids), *(read_ids(file) if file else ())]
    if number is None and file is None and not ids:
        raise click.UsageError("name IDs, --ids FILE or --number")
    settings = settings_or_exit()
    wanted = _e164(settings, number) if number is not None else None
    reports, around = run(lambda: _reports(settings, words, wanted))
    if as_json:
        say(*(report.as_json(around) for report in reports))
    elif len(reports) == 1:
        _print_one(reports[0], around)
    elif reports:
        _print_many(reports, around)
    if len(reports) != 1:
        say(total(reports), err=as_json)
    if around.not_looked:
        say(f"dead letters were not looked at: {around.not_looked}", err=True)


def _e164(settings: Settings, text: str) -> str:
    number = read_number(text, settings.request_defaults)
    if isinstance(number, Invalid):
        raise click.BadParameter(number.description, param_hint="--number")
    return number


async def _reports(
    settings: Settings, words: Sequence[str], number: str | None
) -> tuple[list[Report], Around]:
    ids = list(dict.fromkeys(_id_of(word) for word in words))
    async with ledger_at_hand(settings) as ledger:
        if number is not None:
            ids += await _ids_to(ledger, number, known=ids)
        async with Progress("looking at dead letters") as progress:
            return await report_on(settings, ledger, ids, progress.note)


async def _ids_to(ledger: Ledger, number: str, known: Sequence[str]) -> list[str]:
    entries = await ledger.search.entries_to_number(ledger.digest(number))
    return [entry.request_id for entry in entries if entry.request_id not in known]


def _id_of(word: str) -> str:
    """Return the id that a word names: where it is JSON, the one in that."""
    return next(iter(ids_of(word) - {word}), word)


def _print_one(report: Report, around: Around) -> None:
    lines = report.lines(around)
    say(*(f"{name:9}  {text}" for name, text in lines))


def _print_many(reports: Sequence[Report], around: Around) -> None:
    heads = ("ID", "OUTCOME", "SINCE (UTC)", "ATTEMPT", "REPLAY", "DETAIL")
    print_table(heads, [_row(report, around) for report in reports])


def _row(report: Report, around: Around) -> Sequence[object]:
    entry = report.entry
    return (
        shown_id(report.request_id),
        report.outcome,
        moment(entry.changed_at).removesuffix(" UTC") if entry else "",
        entry.attempt if entry else "",
        (entry.replay or "") if entry else "",
        _detail(report, around),
    )


def _detail(report: Report, around: Around) -> str:
    if report.outcome not in {"started", "failed"}:
        return report.next(around)
    return ", ".join(filter(None, [report.detail, report.ended]))

"""``python -m tests.faults``: break everything around the worker, and account for each request.

Ends with a table; exit 1 if anything in it is wrong.
"""

import asyncio
import logging
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from consumer.devbroker import PrivateNode
from tests.faults import deaths, doubts, outages
from tests.faults.bench import NEVER, Row, Stage

Scenario = Callable[[Stage], Awaitable[list[Row]]]
SCENARIOS: tuple[Scenario, ...] = (
    deaths.killed_at_each_point,
    deaths.three_processes_one_ledger_random_kills_and_restarts,
    outages.the_brokers_link_cut_in_mid_call,
    doubts.a_hundred_copies_at_once,
    doubts.lost_answers_with_a_readable_history,
    doubts.lost_answers_without_the_right_to_the_history,
    doubts.two_doubts_about_one_number_of_which_one_rang,
    doubts.doubt_then_something_else,
    outages.the_brokers_link_frozen,
    outages.the_portals_link_frozen,
    outages.a_memory_alarm,
    outages.a_listener_that_rejects,
    outages.the_queue_deleted,
    outages.connections_closed_by_an_operator,
    outages.the_ledger_locked,
    outages.the_ledgers_disk_full,
    deaths.a_frozen_owner_is_thawed_after_another_took_over,
    deaths.told_to_stop_under_load,
)
ALONE = SCENARIOS[:2]
"""They start a process a second, and what they measure is how soon one is back."""
LONGEST_S = 1500
HEADS = ("fault", "times", "requests", "lost", "phoned twice", "unsure", "recovery s")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--slice", "in_slice", is_flag=True, help="Fewer times and shorter: five minutes.")
@click.option("--only", help="Only the scenarios with this in their name.")
@click.option("--jobs", default=3, show_default=True, help="How many scenarios at once.")
@click.option("--seed", default=4, show_default=True, help="Of all that is random.")
@click.option("--list", "listing", is_flag=True, help="Print the scenarios' names.")
def main(only: str | None, jobs: int, seed: int, *, in_slice: bool, listing: bool) -> None:
    """Run the fault suite and print its table."""
    wanted = [s for s in SCENARIOS if only is None or only in _name(s)]
    if listing:
        click.echo("\n".join(map(_name, wanted)))
        return
    if not wanted:
        raise click.UsageError(f"no scenario has {only!r} in its name")
    for name in ("aio_pika", "aiormq"):  # they log each link that we break
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    # A CI that loses patience must not leave brokers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    click.echo(f"logs and ledgers: {folder}", err=True)
    begun = time.monotonic()
    with PrivateNode() as node:
        stage = Stage(node, full=not in_slice, seed=seed, folder=folder)
        rows = asyncio.run(_play(stage, wanted, jobs))
    click.echo(table(rows))
    wrong = [(row.fault, text) for row in rows for text in row.wrong]
    for fault, text in wrong:
        click.echo(f"WRONG {fault}: {text[:1000]}")
    click.echo(f"{time.monotonic() - begun:.0f} s, {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)


def _name(scenario: Scenario) -> str:
    return getattr(scenario, "__name__", "").replace("_", " ")


async def _play(stage: Stage, scenarios: list[Scenario], jobs: int) -> list[Row]:
    places = asyncio.Semaphore(jobs)

    async def play(scenario: Scenario) -> list[Row]:
        async with places:
            begun = time.monotonic()
            try:
                async with asyncio.timeout(LONGEST_S):
                    rows = await scenario(stage)
            except Exception as error:  # noqa: BLE001 - the other scenarios go on
                wrong = "".join(traceback.format_exception(error))[-1000:]
                rows = [Row(_name(scenario), 0, 0, 0, 0, 0, None, [wrong])]
            verdict = "WRONG" if any(row.wrong for row in rows) else "good"
            took_s = time.monotonic() - begun
            click.echo(f"{verdict} after {took_s:.0f} s: {_name(scenario)}", err=True)
            return rows

    first = [await play(scenario) for scenario in scenarios if scenario in ALONE]
    rest = await asyncio.gather(
        *(play(scenario) for scenario in scenarios if scenario not in ALONE)
    )
    return [row for rows in [*first, *rest] for row in rows]


def table(rows: list[Row]) -> str:
    """Write *rows* as a table that Markdown can show too."""
    lines = [HEADS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    written = [
        " | ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    rule = " | ".join(
        "-" * width if not n else "-" * (width - 1) + ":" for n, width in enumerate(widths)
    )
    return "\n".join(f"| {line} |" for line in [written[0], rule, *written[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    recovery = "" if row.recovery_s is None else f"{row.recovery_s:.1f}"
    if row.recovery_s == NEVER:
        recovery = "never"
    numbers = (row.times, row.requests, row.lost, row.twice, row.unsure)
    return (row.fault, *map(str, numbers), recovery)


if __name__ == "__main__":
    main()

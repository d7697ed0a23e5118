"""``python -m tests.faults``: break everything around the worker, and account for each request.

Ends with a table; exit 1 if anything in it is wrong.
"""

import asyncio
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import click

from consumer.demo import broker as devbroker
from consumer.demo.broker import PrivateNode
from consumer.demo.installer import install
from tests import postgres
from tests.faults import (
    clocks,
    controls,
    deaths,
    doubts,
    full,
    histories,
    ledgers,
    nodes,
    operators,
    outages,
    refusals,
    replicas,
    stops,
)
from tests.faults.account import Row
from tests.faults.life import NEVER
from tests.faults.stage import Stage, Store

Scenario = Callable[[Stage], Awaitable[list[Row]]]
FILE: tuple[Store, ...] = ("SQLite",)
SERVER: tuple[Store, ...] = ("PostgreSQL",)
EITHER = FILE + SERVER
SCENARIOS: dict[Scenario, tuple[Store, ...]] = {
    deaths.killed_at_each_point: EITHER,
    replicas.three_processes_one_ledger_random_kills_and_restarts: FILE,
    replicas.three_hosts_one_database_random_kills_restarts_and_partitions: SERVER,
    replicas.the_rate_across_hand_overs: SERVER,
    replicas.handed_over_on_a_fresh_ledger: EITHER,
    replicas.the_link_cut_again_and_again: EITHER,
    outages.the_brokers_link_cut_in_mid_call: EITHER,
    doubts.a_hundred_copies_at_once: EITHER,
    doubts.lost_answers_with_a_readable_history: EITHER,
    doubts.lost_answers_without_the_right_to_the_history: EITHER,
    doubts.two_doubts_about_one_number_of_which_one_rang: EITHER,
    doubts.doubt_then_something_else: EITHER,
    histories.the_history_hidden_by_a_page: EITHER,
    histories.an_unsure_letter_replayed_within_the_lag: EITHER,
    clocks.the_portals_clocks_wrong: EITHER,
    clocks.the_workers_clock_set_during_a_doubt: EITHER,
    refusals.refusals_with_codes_by_turns: FILE,
    operators.two_operators_replay_and_are_killed: EITHER,
    controls.cancelled_at_each_point: EITHER,
    controls.paused_under_load: EITHER,
    outages.the_brokers_link_frozen: FILE,
    outages.the_portals_link_frozen: FILE,
    outages.a_memory_alarm: FILE,
    outages.a_listener_that_rejects: FILE,
    outages.the_queue_deleted: FILE,
    outages.connections_closed_by_an_operator: FILE,
    nodes.three_nodes_behind_a_balancer: EITHER,
    nodes.three_nodes_by_a_list_of_addresses: EITHER,
    ledgers.the_ledger_locked: EITHER,
    ledgers.the_ledger_out_of_reach: SERVER,
    ledgers.the_ledgers_server_down: SERVER,
    ledgers.the_ledgers_disk_full: FILE,
    deaths.a_frozen_owner_is_thawed_after_another_took_over: EITHER,
    deaths.the_active_one_is_cut_off_at_a_point_and_healed: SERVER,
    stops.told_to_stop_under_load: EITHER,
    stops.told_to_stop_while_requests_wait_for_their_turn: EITHER,
    stops.told_to_stop_while_the_broker_is_away: EITHER,
}
"""Each with the stores it is played on: on both where it depends on the ledger."""
BUSY = {
    deaths.killed_at_each_point,
    replicas.three_processes_one_ledger_random_kills_and_restarts,
    replicas.three_hosts_one_database_random_kills_restarts_and_partitions,
}
"""They start a process a second, and what they measure is how soon one is back."""
BUSY_JOBS = 2
LONGEST_S = 1500
SEED = 4
HEADS = ("fault", "ledger", "times", "requests", "lost", "phoned twice", "unsure", "recovery s")
WORDS = 2
"""So many columns are no numbers."""
Part = tuple[Scenario, Store]
NOT_IN_THE_SLICE: set[Part] = {
    (replicas.handed_over_on_a_fresh_ledger, "SQLite"),
    (nodes.three_nodes_by_a_list_of_addresses, "SQLite"),
    *(
        (scenario, "PostgreSQL")
        for scenario in (
            deaths.a_frozen_owner_is_thawed_after_another_took_over,
            nodes.three_nodes_behind_a_balancer,
            nodes.three_nodes_by_a_list_of_addresses,
            replicas.the_rate_across_hand_overs,
            replicas.the_link_cut_again_and_again,
            outages.the_brokers_link_cut_in_mid_call,
            doubts.a_hundred_copies_at_once,
            doubts.lost_answers_with_a_readable_history,
            doubts.lost_answers_without_the_right_to_the_history,
            doubts.two_doubts_about_one_number_of_which_one_rang,
            doubts.doubt_then_something_else,
            histories.the_history_hidden_by_a_page,
            histories.an_unsure_letter_replayed_within_the_lag,
            clocks.the_portals_clocks_wrong,
            clocks.the_workers_clock_set_during_a_doubt,
            ledgers.the_ledgers_server_down,
            operators.two_operators_replay_and_are_killed,
            controls.cancelled_at_each_point,
            controls.paused_under_load,
            stops.told_to_stop_under_load,
            stops.told_to_stop_while_requests_wait_for_their_turn,
            stops.told_to_stop_while_the_broker_is_away,
        )
    ),
}
"""Each fault is played once at least; where the ledger's kind matters, on both."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--slice", "in_slice", is_flag=True, help="Fewer times, shorter: eight minutes.")
@click.option("--only", help="Only the scenarios with this in their name, on each ledger.")
@click.option("--store", type=click.Choice(["sqlite", "postgres"]), help="Only on this ledger.")
@click.option("--jobs", default=3, show_default=True, help="How many scenarios at once.")
@click.option("--seed", type=int, help="Of all that is random; 4, and with --full any.")
@click.option("--full", "at_once", is_flag=True, help="All faults at once, at scale: hours.")
@click.option("--share", default=1.0, show_default=True, help="Which part of --full.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    default="faults-full.json",
    show_default=True,
    help="Where --full keeps how far it is: it goes on from there.",
)
@click.option("--list", "listing", is_flag=True, help="Print the scenarios' names.")
def main(  # one for each option
    only: str | None,
    store: str | None,
    jobs: int,
    seed: int | None,
    share: float,
    state: Path,
    *,
    in_slice: bool,
    at_once: bool,
    listing: bool,
) -> None:
    """Run the fault suite and print its table."""
    if at_once:
        _at_once(store, seed, share, state)
    parts = _parts(only, store, in_slice=in_slice)
    if listing:
        click.echo("\n".join(map(_title, parts)))
        return
    if not parts:
        raise click.UsageError("no scenario is like that: --list shows them")
    begun = time.monotonic()
    on_postgres = any(store == "PostgreSQL" for _, store in parts)
    folder = _prepare(on_postgres=on_postgres)
    with ExitStack() as stack:
        node = stack.enter_context(PrivateNode())
        cluster = stack.enter_context(postgres.PrivateCluster()) if on_postgres else None
        seed = SEED if seed is None else seed
        stage = Stage(node, cluster, full=not in_slice, seed=seed, folder=folder)
        rows = asyncio.run(_play(stage, parts, jobs))
    _tell(rows, begun)


def _prepare(*, on_postgres: bool) -> Path:
    """See that the servers are there, and return a folder for all that is written."""
    for name in ("aio_pika", "aiormq"):  # they log each link that we break
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    # A CI that loses patience must not leave brokers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    click.echo(f"logs and ledgers: {folder}", err=True)
    _need("rabbitmq-server", devbroker.find_server)
    if on_postgres:
        _need("postgresql", postgres.find_server)
    return folder


def _at_once(store: str | None, seed: int | None, share: float, state: Path) -> NoReturn:
    """Play the legs that are left, and print the table of all."""
    begun, stores = time.monotonic(), _stores(store)
    try:
        standing = full.Standing.read(state, seed)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(f"seed {standing.seed}; {len(standing.legs)} legs are played: {state}", err=True)
    folder = _prepare(on_postgres="PostgreSQL" in stores)
    with PrivateNode() as node:
        stage = Stage(node, None, full=True, seed=standing.seed, folder=folder)
        for number in range(1, max(1, round(full.LEGS * share)) + 1):
            for its in stores:
                title = f"leg {number} ({its})"
                if title not in standing.legs:
                    rows = asyncio.run(_guarded(title, its, full.play(stage.on(its), number)))
                    standing.note(title, rows)
    click.echo(f"seed {standing.seed}, {len(standing.legs)} legs")
    _tell(standing.rows(), begun)


def _tell(rows: list[Row], begun: float) -> NoReturn:
    click.echo(table(rows))
    wrong = [(f"{row.fault} ({row.store})", text) for row in rows for text in row.wrong]
    for fault, text in wrong:
        click.echo(f"WRONG {fault}: {text[:1000]}")
    click.echo(f"{time.monotonic() - begun:.0f} s, {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)


def _need(package: str, find: Callable[[], object]) -> None:
    """Install a server that is not there, where we may: what is to be broken must be our own."""
    if find() is not None:
        return
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise click.ClickException(f"{package} is not installed, and only root may with apt-get")
    click.echo(f"installing {package} with apt-get (some minutes)", err=True)
    install(apt, package)


def _parts(only: str | None, store: str | None, *, in_slice: bool) -> list[Part]:
    wanted = _stores(store)
    return [
        (scenario, its)
        for scenario, stores in SCENARIOS.items()
        for its in stores
        if its in wanted
        and (only is None or only in _name(scenario))
        and not (in_slice and only is None and (scenario, its) in NOT_IN_THE_SLICE)
    ]


def _stores(store: str | None) -> tuple[Store, ...]:
    return EITHER if store is None else FILE if store == "sqlite" else SERVER


def _title(part: Part) -> str:
    return f"{_name(part[0])} ({part[1]})"


def _name(scenario: Scenario) -> str:
    return getattr(scenario, "__name__", "").replace("_", " ")


async def _play(stage: Stage, parts: list[Part], jobs: int) -> list[Row]:
    async def play(part: Part, places: asyncio.Semaphore) -> list[Row]:
        scenario, store = part
        async with places:
            return await _guarded(_title(part), store, scenario(stage.on(store)))

    rows: dict[Part, list[Row]] = {}
    for busy, at_once in ((True, min(jobs, BUSY_JOBS)), (False, jobs)):
        places = asyncio.Semaphore(at_once)
        together = [part for part in parts if (part[0] in BUSY) is busy]
        played = await asyncio.gather(*(play(part, places) for part in together))
        rows |= dict(zip(together, played, strict=True))
    return [row for part in parts for row in rows[part]]


async def _guarded(title: str, store: Store, scenario: Awaitable[list[Row]]) -> list[Row]:
    """Play a scenario; whatever goes wrong with it, the others go on."""
    begun = time.monotonic()
    try:
        async with asyncio.timeout(LONGEST_S):
            rows = await scenario
    except Exception as error:  # noqa: BLE001  # the other scenarios go on
        wrong = "".join(traceback.format_exception(error))[-1000:]
        rows = [Row(title.rpartition(" (")[0], 0, wrong=[wrong])]
    verdict = "WRONG" if any(row.wrong for row in rows) else "good"
    click.echo(f"{verdict} after {time.monotonic() - begun:.0f} s: {title}", err=True)
    return [replace(row, store=store) for row in rows]


def table(rows: list[Row]) -> str:
    """Write *rows* as a table that Markdown can show too."""
    lines = [HEADS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    written = [
        " | ".join(
            cell.rjust(width) if place >= WORDS else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    rule = " | ".join(
        "-" * width if n < WORDS else "-" * (width - 1) + ":" for n, width in enumerate(widths)
    )
    return "\n".join(f"| {line} |" for line in [written[0], rule, *written[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    recovery = "" if row.recovery_s is None else f"{row.recovery_s:.1f}"
    if row.recovery_s == NEVER:
        recovery = "never"
    numbers = (row.times, row.requests, row.lost, row.twice, row.unsure)
    return (row.fault, row.store, *("" if n is None else str(n) for n in numbers), recovery)


if __name__ == "__main__":
    main()

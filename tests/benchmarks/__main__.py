"""``python -m tests.bench``: the worker against two that do less, and against what it promises.

Ends with two tables, `bench.json` and a picture; exit 1 if a bar is missed.
"""

import asyncio
import json
import logging
import os
import platform
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

import click

from consumer.demo.broker import PrivateNode
from tests.benchmarks import measures
from tests.benchmarks.measures import Plan
from tests.benchmarks.results import CAVEAT, Results, comparison, verdicts
from tests.benchmarks.scale import scale
from tests.benchmarks.stage import Stage, staged
from tests.postgres import postgres

Part = Literal["throughput", "latency", "rate", "start", "waiting", "postgres", "scale"]
PARTS: tuple[Part, ...] = get_args(Part)
USUAL = [part for part in PARTS if part != "scale"]
"""To fill a ledger with millions takes longer than all the rest."""


def _parts(_: click.Context, __: click.Parameter, value: str) -> list[Part]:
    wanted = {part.strip() for part in value.split(",")}
    if wrong := sorted(wanted.difference(PARTS)):
        raise click.BadParameter(f"no part is called {wrong[0]}: there are {', '.join(PARTS)}")
    return [part for part in PARTS if part in wanted]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--only",
    default=",".join(USUAL),
    show_default=True,
    callback=_parts,
    help="Parts; also: scale.",
)
@click.option("--rounds", default=7, show_default=True, help="How often everyone has a turn.")
@click.option("--quick", is_flag=True, help="Fewer calls and shorter: shows that it works.")
@click.option("--json", "report", default="bench.json", show_default=True, help="Where to.")
@click.option("--picture", default="bench.svg", show_default=True, help="Where to.")
def main(only: list[Part], rounds: int, report: str, picture: str, *, quick: bool) -> None:
    """Run the benchmark and print what it shows."""
    for name in ("aio_pika", "aiormq"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    # Whoever loses patience must not leave a broker behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    plan = Plan(rounds)
    results = Results()
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    click.echo(f"logs and ledgers: {folder}", err=True)
    with PrivateNode() as node:
        results.about = {
            "python": platform.python_version(),
            "rabbitmq": node.ctl("version").strip(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        }
        try:
            asyncio.run(_measure(node.url, folder, only, plan.quick() if quick else plan, results))
        finally:  # what was measured is not lost with what was not
            Path(report).write_text(json.dumps(asdict(results), indent=1) + "\n")
    if results.throughput is not None:
        from tests.benchmarks.picture import draw  # noqa: PLC0415  # takes a second to import

        draw(results.throughput, Path(picture))
        click.echo(comparison(results.throughput))
        click.echo(CAVEAT.format(rounds=rounds))
    findings = results.findings()
    click.echo(verdicts(findings))
    sys.exit(1 if any(finding.met is False for finding in findings) else 0)


async def _measure(url: str, folder: Path, only: list[Part], plan: Plan, results: Results) -> None:
    async with staged(url, folder) as stage:
        results.ceiling_per_s = await measures.ceiling(stage)
        click.echo(f"the API alone: {results.ceiling_per_s:.0f} calls/s", err=True)
        for part in only:
            begun = time.monotonic()
            await _one(part, stage, plan, results)
            click.echo(f"{part}: {time.monotonic() - begun:.0f} s", err=True)


async def _one(part: Part, stage: Stage, plan: Plan, results: Results) -> None:
    match part:
        case "throughput":
            results.throughput = await measures.throughput(stage, plan)
        case "latency":
            results.latency_s = await measures.latency(stage, plan)
        case "rate":
            results.shares = await measures.shares(stage, plan)
        case "start":
            results.starts_s = await measures.starts(stage, plan)
        case "waiting":
            results.waiting = await measures.waiting(stage, plan)
        case "postgres":
            with postgres() as url:
                results.with_postgres = await measures.with_postgres(stage, plan, url)
        case "scale":
            results.scale = await scale(stage, plan.settled, plan.queued)


if __name__ == "__main__":
    main()

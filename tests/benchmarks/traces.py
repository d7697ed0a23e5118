"""``python -m tests.benchmarks.traces``: what traces cost, one request in ten of them sampled.

The worker runs in turn with traces and without; the collector is in this process. Exit 1 if the
median of the paired ratios is below the bar.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import click

from consumer.demo.broker import PrivateNode
from tests.benchmarks.stage import Run, Stage, staged
from tests.benchmarks.subjects import OURS
from tests.collector import collecting

LEAST = 0.95
"""Calls a second with traces, of those without."""
CALLS = 3000
"""In a run, so that what comes once, as the first way to the collector, hardly counts."""
IN_FLIGHT = 10


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=7, show_default=True, help="How often each has a turn.")
def main(rounds: int) -> None:
    """Compare the worker with traces and without."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    with PrivateNode() as node, collecting() as collector:
        pairs = asyncio.run(_measure(node.url, folder, collector.url, rounds))
        click.echo(f"spans received: {len(collector.spans)}")
    speed = median(traced.calls_per_s / plain.calls_per_s for plain, traced in pairs)
    cost = median(traced.cpu_s_per_10k / plain.cpu_s_per_10k for plain, traced in pairs)
    click.echo(f"calls/s with traces / without: {speed:.2f} (>= {LEAST:g}); CPU: {cost:.2f}")
    sys.exit(1 if speed < LEAST else 0)


async def _measure(url: str, folder: Path, collector: str, rounds: int) -> list[tuple[Run, Run]]:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1",
    }
    async with staged(url, folder) as stage:
        return [await _pair(stage, variables, traced_first=n % 2 == 1) for n in range(rounds)]


async def _pair(
    stage: Stage, variables: Mapping[str, str], *, traced_first: bool
) -> tuple[Run, Run]:
    """Return a run without traces and one with them."""
    runs = {}
    for traced in (traced_first, not traced_first):
        with _environment(variables if traced else {}):
            runs[traced] = await stage.run(OURS, CALLS, IN_FLIGHT)
    click.echo(f"without: {runs[False]}; with: {runs[True]}", err=True)
    return runs[False], runs[True]


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    os.environ.update(variables)
    yield
    for name in variables:
        del os.environ[name]


if __name__ == "__main__":
    main()

"""`call-consumer check`: whether the worker has all that it needs."""

import json
from contextlib import aclosing
from dataclasses import asdict

import click

from consumer.cli.console import run, settings_or_exit
from consumer.operations.check import check as look_at
from consumer.operations.finding import Finding
from consumer.output import say
from consumer.rabbitmq.topology import topology_of
from consumer.settings import Settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def check(*, as_json: bool) -> None:
    """Look at everything the worker needs; changes nothing. Exit 1 if something is wrong."""
    settings = settings_or_exit()
    run(lambda: _check(settings, as_json=as_json))


async def _check(settings: Settings, *, as_json: bool) -> None:
    wrong = 0
    async with aclosing(look_at(settings, topology_of(settings))) as findings:
        async for finding in findings:
            wrong += finding.state == "wrong"
            _print(finding, as_json=as_json)
    if wrong:
        raise SystemExit(1)


def _print(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        say(json.dumps(asdict(finding), ensure_ascii=False))
        return
    say(f"{finding.state:7}  {finding.item}: {finding.detail}")
    if finding.state != "ok" and finding.fix:
        say(f"{'':7}  -> {finding.fix}")

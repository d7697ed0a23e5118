"""`call-consumer pause` and `resume`: an operator stops all calls, and lets them go on."""

import json

import click

from consumer.cli.console import run, settings_or_exit, who_and_where
from consumer.cli.orders import dry_run_option, json_option, reason_option, tell_doubts
from consumer.ledger.controls import Pause
from consumer.messages import rfc3339_at
from consumer.operations import controls
from consumer.output import say
from consumer.settings import Settings


@click.command()
@reason_option
@dry_run_option
@json_option
def pause(*, reason: str, dry_run: bool, as_json: bool) -> None:
    """Stop all calls now, of all workers, until `resume`; requests wait in their queue.

    Returns once no worker dials any more. It holds for workers that are started later, too.
    """
    settings = settings_or_exit()
    run(lambda: _pause(settings, reason, dry_run=dry_run, as_json=as_json))


async def _pause(settings: Settings, reason: str, *, dry_run: bool, as_json: bool) -> None:
    async with controls.existing_ledger(settings) as ledger:
        if dry_run:
            paused = (await ledger.controls.read()).pause
            _tell(paused, as_json=as_json)
            would = "would change nothing" if paused else "would pause all calls"
            say(f"{would} of {settings.queue}", err=True)
            return
        done = await controls.pause(ledger, reason, who_and_where())
        _tell(done.what, as_json=as_json, begun=done.begun, under_way=done.under_way)
        if not done.begun:
            say("it was paused before, and keeps that reason", err=True)
        await tell_doubts(ledger, settings, done.under_way)


@click.command()
@dry_run_option
@json_option
def resume(*, dry_run: bool, as_json: bool) -> None:
    """Let calls be placed again after `pause`; workers go on within two seconds."""
    settings = settings_or_exit()
    run(lambda: _resume(settings, dry_run=dry_run, as_json=as_json))


async def _resume(settings: Settings, *, dry_run: bool, as_json: bool) -> None:
    async with controls.existing_ledger(settings) as ledger:
        if dry_run:
            paused = (await ledger.controls.read()).pause
            _tell(paused, as_json=as_json)
            would = "would resume all calls" if paused else "would change nothing"
            say(f"{would} of {settings.queue}", err=True)
            return
        resumed = await ledger.controls.resume()
    if as_json:
        _tell(None, as_json=True, resumed=resumed)
    else:
        say("resumed" if resumed else "not paused")


def _tell(pause: Pause | None, *, as_json: bool, **more: object) -> None:
    if as_json:
        told = {}
        if pause is not None:
            told = {"since": rfc3339_at(pause.since), "by": pause.by, "reason": pause.reason}
        say(json.dumps({"paused": pause is not None} | told | more, ensure_ascii=False))
    elif pause is None:
        say("not paused")
    else:
        say(f"paused since {rfc3339_at(pause.since)} by {pause.by}: {pause.reason}")

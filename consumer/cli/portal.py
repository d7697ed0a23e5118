"""`call-consumer lines` and `voices`: what the portal can call with."""

import json

import click

from consumer.bitrix24.access import NoAccess
from consumer.bitrix24.lookup import advice_for
from consumer.bitrix24.portal import LINES, VOICES
from consumer.bitrix24.responses import error_of, read_names
from consumer.cli.console import Failed, run, settings_or_exit
from consumer.operations.portal import open_portal
from consumer.output import say, shown_id
from consumer.settings import Settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def lines(*, as_json: bool) -> None:
    """List the lines that the portal can call from."""
    settings = settings_or_exit("bitrix24_url")
    run(lambda: _names(settings, LINES, as_json=as_json))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def voices(*, as_json: bool) -> None:
    """List the voices that the portal can speak with."""
    settings = settings_or_exit("bitrix24_url")
    run(lambda: _names(settings, VOICES, as_json=as_json))


async def _names(settings: Settings, method: str, *, as_json: bool) -> None:
    async with open_portal(settings) as portal:
        try:
            answer = await portal.ask(method)
        except NoAccess as error:
            raise Failed(f"{portal.host} was not asked: {error}") from None
    if answer is None:
        raise Failed(f"{portal.host} does not answer ({portal.silence}): see CALLS_BITRIX24_URL")
    code, description = error_of(answer[1])
    names = read_names(answer[1])
    if code or names is None:
        told = f"{code} {description}".strip() or f"HTTP {answer[0]}"
        raise Failed(f"{portal.host} refuses: {told}; {advice_for(code, description)}".rstrip("; "))
    if as_json:
        say(json.dumps(names, ensure_ascii=False))
        return
    say(*(f"{shown_id(name)}  {title}" for name, title in names.items()))

"""The command line: stdout for data, stderr for people, exit 0 done, 1 failed, 2 wrong usage."""

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path

import click
import uvicorn

from consumer import log
from consumer.bitrix24.access import NoAccess
from consumer.bitrix24.lookup import advice_for
from consumer.bitrix24.portal import LINES, VOICES, read_names
from consumer.bitrix24.responses import error_of
from consumer.cli.blocks import block
from consumer.cli.cancel import cancel
from consumer.cli.console import Failed, Program, settings_or_exit
from consumer.cli.console import run as run_command
from consumer.cli.dead_letters import dlq
from consumer.cli.discard import discard
from consumer.cli.login import login
from consumer.cli.pause import pause, resume
from consumer.cli.replay import replay
from consumer.cli.run import run_worker
from consumer.cli.show import show
from consumer.cli.status import status
from consumer.cli.upstream import events, publish
from consumer.demo.tour import take_tour
from consumer.errors import OperatorError
from consumer.health import EVERYWHERE, LOOPBACK, listen
from consumer.operations.check import check as look_at
from consumer.operations.portal import open_portal
from consumer.output import say, shown_id
from consumer.rabbitmq.topology import topology_of
from consumer.sandbox import SandboxPortal, create_app
from consumer.settings import Settings
from consumer.unreachable import cause_of

SANDBOX_PORT = 8024
_PACKAGED = Path(__file__).parents[1] / "schemas"
SCHEMAS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "schemas"


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="call-consumer")
def main() -> None:
    """Place Bitrix24 automatic calls that are asked for over RabbitMQ.

    Settings are environment variables, CALLS_RABBITMQ_URL and CALLS_BITRIX24_URL above all;
    OPERATING.md lists them.
    """


@main.command()
@click.option(
    "--wait-s",
    type=click.FloatRange(min=0),
    default=math.inf,
    help="How long to wait for a broker or a ledger that is not there yet; else for ever.",
)
def run(wait_s: float) -> None:
    """Run the worker until it is told to stop (SIGTERM, Ctrl-C); told twice, it ends at once."""
    settings = settings_or_exit("rabbitmq_url", "bitrix24_url")
    secrets = [
        part
        for secret in (settings.rabbitmq_url, settings.webhook, settings.ledger_url)
        if secret is not None
        for part in log.secret_parts(secret.get_secret_value())
    ]
    if settings.oauth_client_secret is not None:
        secrets.append(settings.oauth_client_secret.get_secret_value())
    log.set_up(settings.log_level, secrets)
    run_command(lambda: run_worker(settings, wait_s))


@main.command()
@click.option(
    "--host",
    default="localhost",
    show_default=True,
    help="Address to listen at; :: for all, over IPv4 and IPv6.",
)
@click.option("--port", default=SANDBOX_PORT, show_default=True, help="Port; 0 takes a free one.")
def sandbox(host: str, port: int) -> None:
    """Run a stand-in portal, whose answer the called number decides (+1 202 555 01xx)."""
    portal = SandboxPortal()
    hosts = {"localhost": LOOPBACK, "::": EVERYWHERE}.get(host, (host,))
    try:
        listeners = listen(hosts, port)  # the address below may be used at once
    except OSError as error:
        text = f"cannot listen at {host} port {port} ({cause_of(error)}): name another --port"
        raise Failed(text) from None
    config = uvicorn.Config(
        create_app(portal),
        log_config=None,
        access_log=False,  # the secret is in the path
        date_header=False,  # the portal's clock may be set wrong on purpose
        timeout_graceful_shutdown=1,  # some numbers never answer
    )
    address, bound = listeners[0].getsockname()[:2]
    place = f"[{address}]" if ":" in address else address
    say(f"http://{place}:{bound}/rest/1/{portal.switches.secret}/")
    uvicorn.Server(config).run(sockets=listeners)


@main.command()
@click.option("--keep", is_flag=True, help="Leave all of it running until Ctrl-C.")
def demo(*, keep: bool) -> None:
    """Take a tour: start broker, sandbox and worker, place a dozen calls, account for each.

    Needs no settings, and reads only TEST_RABBITMQ_URL, which names a broker to use. Exit 1 if the
    account does not add up.
    """
    try:
        adds_up = take_tour(keep=keep)
    except OperatorError as error:
        raise Failed(*str(error).split("\n")) from None
    if not adds_up:
        sys.exit(1)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def check(*, as_json: bool) -> None:
    """Look at everything the worker needs; changes nothing. Exit 1 if something is wrong."""
    settings = settings_or_exit()
    run_command(lambda: _check(settings, as_json=as_json))


async def _check(settings: Settings, *, as_json: bool) -> None:
    wrong = 0
    async for finding in look_at(settings, topology_of(settings)):
        wrong += finding.state == "wrong"
        if as_json:
            say(json.dumps(asdict(finding), ensure_ascii=False))
            continue
        say(f"{finding.state:7}  {finding.item}: {finding.detail}")
        if finding.state != "ok" and finding.fix:
            say(f"{'':7}  -> {finding.fix}")
    if wrong:
        raise SystemExit(1)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def lines(*, as_json: bool) -> None:
    """List the lines that the portal can call from."""
    settings = settings_or_exit("bitrix24_url")
    run_command(lambda: _names(settings, LINES, as_json=as_json))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def voices(*, as_json: bool) -> None:
    """List the voices that the portal can speak with."""
    settings = settings_or_exit("bitrix24_url")
    run_command(lambda: _names(settings, VOICES, as_json=as_json))


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


@main.command()
@click.argument("name", required=False)
def schema(name: str | None) -> None:
    """Print a schema by NAME, as call.requested, or list their names."""
    names = sorted(path.name.removesuffix(".schema.json") for path in SCHEMAS.glob("*.schema.json"))
    if name is None:
        say(*names, "asyncapi")
    elif name in {*names, "asyncapi"}:
        suffix = ".yaml" if name == "asyncapi" else ".schema.json"
        text = (SCHEMAS / f"{name}{suffix}").read_text(encoding="utf-8")
        say(*text.removesuffix("\n").split("\n"))
    else:
        raise click.UsageError(f"there is no schema {name}: name {', '.join(names)} or asyncapi")


main.add_command(login)
main.add_command(publish)
main.add_command(events)
main.add_command(cancel)
main.add_command(block)
main.add_command(pause)
main.add_command(resume)
main.add_command(show)
main.add_command(status)
dlq.add_command(replay)
dlq.add_command(discard)
main.add_command(dlq)

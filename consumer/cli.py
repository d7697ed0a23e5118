"""The command line: stdout for data, stderr for people, exit 0 done, 1 failed, 2 wrong usage."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import click
import uvicorn

from consumer import app as worker_app
from consumer import devbroker, log
from consumer.answers import advice_for, error_of
from consumer.broker import NoBroker
from consumer.check import check as look_at
from consumer.client import BadRequest, check_request, listening, outcome_of, publish_requests
from consumer.deadletters import NoSuchDeadLetter, list_letters, replay_letters, to_line
from consumer.demo import DemoFailed, take_tour
from consumer.ledger import LedgerDown
from consumer.portal import LINES, VOICES, Portal, read_names
from consumer.publisher import NotPublished
from consumer.sandbox import SandboxPortal, create_app
from consumer.settings import Settings, WrongSettings, read_settings
from consumer.topology import WrongTopology

SANDBOX_PORT = 8024
_PACKAGED = Path(__file__).with_name("schemas")
SCHEMAS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[1] / "schemas"


STOPPERS = (NoBroker, WrongTopology, LedgerDown, NoSuchDeadLetter, worker_app.NoConsumer)


class Failed(click.ClickException):
    """Ends a command with one line and exit code 1."""


def _settings() -> Settings:
    try:
        return read_settings()
    except WrongSettings as error:
        _wrong_settings(error)


def _wrong_settings(error: WrongSettings) -> NoReturn:
    for mistake in error.mistakes:
        click.echo(mistake, err=True)
    sys.exit(2)


def _run(start: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a command to its end; whatever stops it is one line."""
    try:
        asyncio.run(start())
    except WrongSettings as error:
        _wrong_settings(error)
    except STOPPERS as error:
        raise Failed(str(error)) from None
    except NotPublished as error:
        hints = {
            "unroutable": "no queue takes requests yet: start the worker once, it declares them",
            "nacked": "the queue is full or refuses it: see the broker",
            "timed_out": "the broker did not confirm in time: it may have arrived all the same",
            "disconnected": "the link to the broker broke: it may have arrived all the same",
        }
        raise Failed(f"not published ({error}): {hints[error.why]}") from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="call-consumer")
def main() -> None:
    """Place Bitrix24 automatic calls that are asked for over RabbitMQ.

    Settings are environment variables, CALLS_RABBITMQ_URL and CALLS_BITRIX24_URL above all; the
    README lists them.
    """


@main.command()
def run() -> None:
    """Run the worker until it is told to stop (SIGTERM, Ctrl-C)."""
    settings = _settings()
    secrets = [
        part
        for secret in (settings.rabbitmq_url, settings.bitrix24_url)
        if secret is not None
        for part in log.secret_parts(secret.get_secret_value())
    ]
    log.set_up(settings.log_level, secrets)
    _run(lambda: worker_app.run(settings))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=SANDBOX_PORT, show_default=True, help="Port; 0 takes a free one.")
def sandbox(host: str, port: int) -> None:
    """Run a stand-in portal, whose answer the called number decides (+1 202 555 01xx)."""
    portal = SandboxPortal()
    config = uvicorn.Config(
        create_app(portal),
        host=host,
        port=port,
        log_config=None,
        access_log=False,  # the secret is in the path
        date_header=False,  # the portal's clock may be set wrong on purpose
        timeout_graceful_shutdown=1,  # some numbers never answer
    )
    socket = config.bind_socket()
    bound = socket.getsockname()[1]
    click.echo(f"http://{host}:{bound}/rest/1/{portal.switches.secret}/")
    uvicorn.Server(config).run(sockets=[socket])


@main.command()
@click.option("--keep", is_flag=True, help="Leave all of it running until Ctrl-C.")
def demo(*, keep: bool) -> None:
    """Take a tour: start broker, sandbox and worker, place a dozen calls, account for each.

    Needs no settings and heeds none but TEST_RABBITMQ_URL, which names a broker to use. Exit 1 if
    the account does not add up.
    """
    try:
        adds_up = take_tour(keep=keep)
    except (DemoFailed, devbroker.NoBroker, *STOPPERS) as error:
        raise Failed(str(error)) from None
    if not adds_up:
        sys.exit(1)


@main.command()
@click.argument("to", metavar="TO|FILE")
@click.argument("text", required=False)
@click.option("--line", "from_line", help="The line to call from; else the worker's default.")
@click.option("--voice", help="The voice to speak with; else the worker's or the portal's default.")
@click.option("--request-id", help="The request's id; else a new one.")
@click.option("--not-before", help="Do not call before this time, as 2026-01-31T09:00:00Z.")
@click.option("--expires-at", help="Do not call from this time on.")
@click.option("--wait", is_flag=True, help="Wait for the event and print it; exit 1 if it failed.")
@click.option("--within", default=120.0, show_default=True, help="Seconds to wait at most.")
def publish(to: str, text: str | None, *, wait: bool, within: float, **fields: str | None) -> None:
    """Publish a request: publish TO TEXT. Or many: publish FILE, JSON lines; - is stdin.

    Prints the ids of what was published.
    """
    settings = _settings()
    if text is None:
        if wait or any(fields.values()):
            raise click.UsageError(
                "with a FILE each line says all: name TO and TEXT, or no options"
            )
        _publish_lines(settings, to)
        return
    request_id = fields.pop("request_id") or str(uuid4())
    request = {"request_id": request_id, "to_number": to, "text_to_pronounce": text} | fields
    body = json.dumps({k: v for k, v in request.items() if v is not None}).encode()
    try:
        check_request(body, worker_app.defaults_of(settings))
    except BadRequest as error:
        raise click.UsageError(str(error)) from None
    if wait:
        _run(lambda: _publish_and_wait(settings, body, request_id, within))
    else:
        _run(lambda: publish_requests(settings.needed("rabbitmq_url"), settings.exchange, [body]))
        click.echo(request_id)


def _publish_lines(settings: Settings, name: str) -> None:
    url = settings.needed("rabbitmq_url")
    try:
        lines = (sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()).splitlines()
    except OSError as error:
        raise click.UsageError(f"{name}: cannot be read: {error.strerror}") from None
    bodies = [line for line in lines if line.strip()]
    ids, mistakes = [], []
    for number, body in enumerate(bodies, 1):
        try:
            ids.append(check_request(body, worker_app.defaults_of(settings)).request_id)
        except BadRequest as error:
            mistakes.append(f"line {number}: {error}")
    if mistakes:
        raise Failed("nothing was published\n" + "\n".join(mistakes))
    _run(lambda: publish_requests(url, settings.exchange, bodies))
    for request_id in ids:
        click.echo(request_id)


async def _publish_and_wait(
    settings: Settings, body: bytes, request_id: str, within_s: float
) -> None:
    url = settings.needed("rabbitmq_url")
    async with listening(url, settings.exchange) as events:
        await publish_requests(url, settings.exchange, [body])
        try:
            event = await outcome_of(events, request_id, within_s)
        except TimeoutError:
            text = f"no event within {within_s:g} s: it may wait in a queue; `events` shows more"
            raise Failed(f"{request_id}: {text}") from None
    click.echo(json.dumps(event, ensure_ascii=False))
    if event["type"] == "call.failed":
        raise SystemExit(1)


@main.command()
def events() -> None:
    """Print events as they come, as JSON lines, until Ctrl-C."""
    settings = _settings()
    _run(lambda: _print_events(settings))


async def _print_events(settings: Settings) -> None:
    async with listening(settings.needed("rabbitmq_url"), settings.exchange) as coming:
        click.echo("listening", err=True)
        async for event in coming:
            click.echo(json.dumps(event, ensure_ascii=False))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def check(*, as_json: bool) -> None:
    """Look at everything the worker needs; changes nothing. Exit 1 if something is wrong."""
    settings = _settings()
    _run(lambda: _check(settings, as_json=as_json))


async def _check(settings: Settings, *, as_json: bool) -> None:
    wrong = 0
    async for finding in look_at(settings, worker_app.topology_of(settings)):
        wrong += finding.state == "wrong"
        if as_json:
            click.echo(json.dumps(asdict(finding), ensure_ascii=False))
            continue
        click.echo(f"{finding.state:7}  {finding.item}: {finding.detail}")
        if finding.state != "ok" and finding.mend:
            click.echo(f"{'':7}  -> {finding.mend}")
    if wrong:
        raise SystemExit(1)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def lines(*, as_json: bool) -> None:
    """List the lines that the portal can call from."""
    settings = _settings()
    _run(lambda: _names(settings, LINES, as_json=as_json))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def voices(*, as_json: bool) -> None:
    """List the voices that the portal can speak with."""
    settings = _settings()
    _run(lambda: _names(settings, VOICES, as_json=as_json))


async def _names(settings: Settings, method: str, *, as_json: bool) -> None:
    portal = Portal(settings.needed("bitrix24_url"))
    try:
        answer = await portal.ask(method)
    finally:
        await portal.close()
    if answer is None:
        raise Failed(f"{portal.host} does not answer: see CALLS_BITRIX24_URL; `check` tells more")
    code, description = error_of(answer[1])
    names = read_names(answer[1])
    if code or names is None:
        told = f"{code} {description}".strip() or f"HTTP {answer[0]}"
        raise Failed(f"{portal.host} refuses: {told}; {advice_for(code, description)}".rstrip("; "))
    if as_json:
        click.echo(json.dumps(names, ensure_ascii=False))
        return
    for name, title in names.items():
        click.echo(f"{name}  {title}")


@main.command()
@click.argument("name", required=False)
def schema(name: str | None) -> None:
    """Print a schema by NAME, as call.requested, or list their names."""
    names = sorted(path.name.removesuffix(".schema.json") for path in SCHEMAS.glob("*.schema.json"))
    if name is None:
        click.echo("\n".join([*names, "asyncapi"]))
    elif name == "asyncapi":
        click.echo((SCHEMAS / "asyncapi.yaml").read_text(encoding="utf-8"), nl=False)
    elif name in names:
        click.echo((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"), nl=False)
    else:
        raise click.UsageError(f"there is no schema {name}: name {', '.join(names)} or asyncapi")


@main.group()
def dlq() -> None:
    """Look at dead letters and send them back."""


@dlq.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def list_(*, as_json: bool) -> None:
    """List the dead letters, in the order in which they failed; nothing changes."""
    settings = _settings()
    _run(lambda: _list_letters(settings, as_json=as_json))


async def _list_letters(settings: Settings, *, as_json: bool) -> None:
    url, topology = settings.needed("rabbitmq_url"), worker_app.topology_of(settings)
    letters = await list_letters(url, topology)
    if as_json:
        for letter in letters:
            click.echo(to_line(letter))
        return
    columns = ("dead_letter", "failed_at", "reason", "code", "description")
    rows = [[str(getattr(letter, name) or "") for name in columns] for letter in letters]
    heads = ["DEAD LETTER", "FAILED AT", "REASON", "CODE", "DESCRIPTION"]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in [heads, *rows]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


@dlq.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Replay every dead letter there is now.")
@click.option("--dry-run", is_flag=True, help="Say what would be replayed and change nothing.")
def replay(ids: tuple[str, ...], *, everything: bool, dry_run: bool) -> None:
    """Send dead letters back as new requests; prints their ids.

    A request that was started meanwhile is announced again, not dialled.
    """
    if bool(ids) == everything:
        raise click.UsageError("name some IDs, or say --all")
    settings = _settings()
    _run(lambda: _replay(settings, None if everything else set(ids), dry_run=dry_run))


async def _replay(settings: Settings, wanted: set[str] | None, *, dry_run: bool) -> None:
    url, topology = settings.needed("rabbitmq_url"), worker_app.topology_of(settings)
    if dry_run:
        letters = await list_letters(url, topology)
        done = [x.dead_letter for x in letters if wanted is None or x.dead_letter in wanted]
    else:
        done = await replay_letters(url, topology, wanted)
    for dead_letter in done:
        click.echo(dead_letter)
    click.echo(f"{'would replay' if dry_run else 'replayed'} {len(done)}", err=True)

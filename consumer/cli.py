"""The command line: stdout for data, stderr for people, exit 0 done, 1 failed, 2 wrong usage."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import click
import uvicorn

from consumer import app as worker_app
from consumer import log
from consumer.broker import NoBroker
from consumer.client import BadRequest, check_request, listening, outcome_of, publish_requests
from consumer.ledger import LedgerDown
from consumer.publisher import NotPublished
from consumer.sandbox import SandboxPortal, create_app
from consumer.settings import Settings, WrongSettings, read_settings
from consumer.topology import WrongTopology

SANDBOX_PORT = 8024


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
    except (NoBroker, WrongTopology, LedgerDown, worker_app.NoConsumer) as error:
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

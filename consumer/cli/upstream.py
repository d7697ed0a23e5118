"""`call-consumer publish` and `events`: what an upstream system does, by hand."""

import asyncio
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from consumer.cli.console import Failed, run, settings_or_exit
from consumer.cli.filters import pairs_of
from consumer.operations.upstream import (
    BadRequest,
    check_request,
    listening,
    outcome_of,
    publish_requests,
)
from consumer.output import say, shown_id
from consumer.settings import Settings

NUMBER_LIKE = re.compile(r"\+?[\d ()-]{5,}")
"""What is a number rather than a file; an error is not to show it."""
MOST_MISTAKES = 10
"""So many wrong lines are named."""


@click.command()
@click.argument("to", metavar="TO|FILE")
@click.argument("text", required=False)
@click.option("--line", "from_line", help="The line to call from; else the worker's default.")
@click.option("--voice", help="The voice to speak with; else the worker's or the portal's default.")
@click.option("--request-id", help="The request's id; else a new one.")
@click.option("--not-before", help="Do not call before this time, as 2026-01-31T09:00:00Z.")
@click.option("--expires-at", help="Do not call from this time on.")
@click.option("--time-zone", help="Whose calling hours count, as Europe/Berlin.")
@click.option("--urgent", is_flag=True, default=None, help="Do not wait for calling hours.")
@click.option(
    "--metadata",
    metavar="KEY=VALUE",
    multiple=True,
    callback=pairs_of,
    help="Comes back with the event, and blocks may name it; repeatable.",
)
@click.option("--wait", is_flag=True, help="Wait for the event and print it; exit 1 if it failed.")
@click.option("--within", default=120.0, show_default=True, help="Seconds to wait at most.")
def publish(
    to: str,
    text: str | None,
    *,
    wait: bool,
    within: float,
    **fields: Any,  # noqa: ANN401  # the request's, of several types
) -> None:
    """Publish a request: publish TO TEXT. Or many: publish FILE, JSON lines; - is stdin.

    A line is as {"request_id": "a-1", "to_number": "+12025550100", "text_to_pronounce": "…"}; all
    fields: call-consumer schema call.requested. Prints the ids of what was published.
    """
    settings = settings_or_exit("rabbitmq_url")
    if text is None:
        if NUMBER_LIKE.fullmatch(to):
            raise click.UsageError(
                "the text is missing: publish TO TEXT; a file of that name is ./FILE"
            )
        if wait or any(fields.values()):
            raise click.UsageError(
                "with a FILE each line says all: name TO and TEXT, or no options"
            )
        run(lambda: _publish_lines(settings, to))
        return
    fields["metadata"] = _metadata(fields["metadata"])
    request_id = fields.pop("request_id") or str(uuid4())
    request = {"request_id": request_id, "to_number": to, "text_to_pronounce": text} | fields
    body = json.dumps({k: v for k, v in request.items() if v is not None}).encode()
    try:
        check_request(body, settings.request_defaults)
    except BadRequest as error:
        raise click.UsageError(str(error)) from None
    if wait:
        run(lambda: _publish_and_wait(settings, body, request_id, within))
    else:
        run(lambda: publish_requests(settings.needed("rabbitmq_url"), settings.exchange, [body]))
        say(shown_id(request_id))


def _metadata(pairs: Sequence[tuple[str, str]]) -> dict[str, str] | None:
    metadata = dict(pairs)
    if len(metadata) < len(pairs):
        raise click.BadParameter("names a key twice: keep one", param_hint="--metadata")
    return metadata or None


async def _publish_lines(settings: Settings, name: str) -> None:
    url = settings.needed("rabbitmq_url")
    lines = await asyncio.to_thread(_read_lines, name)
    bodies = {number: line for number, line in enumerate(lines, 1) if line.strip()}
    ids, mistakes = [], []
    for number, body in bodies.items():
        try:
            ids.append(check_request(body, settings.request_defaults).request_id)
        except BadRequest as error:
            mistakes.append(f"line {number}: {error}")
    if mistakes:
        more = len(mistakes) - MOST_MISTAKES
        rest = [f"… and {more} lines more"] if more > 0 else []
        raise Failed("nothing was published", *mistakes[:MOST_MISTAKES], *rest)
    await publish_requests(url, settings.exchange, bodies.values())
    say(*map(shown_id, ids))


def _read_lines(name: str) -> list[bytes]:
    """Read lines as ``dlq discard --to`` wrote them: a bare CR is a blank in JSON and ends none."""
    try:
        read = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return [line.removesuffix(b"\r") for line in read.split(b"\n")]
    except OSError as error:
        raise click.UsageError(f"{name}: cannot be read: {error.strerror}") from None


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
    say(json.dumps(event, ensure_ascii=False))
    if event["type"] == "call.failed":
        raise SystemExit(1)


@click.command()
def events() -> None:
    """Print events as they come, as JSON lines, until Ctrl-C."""
    settings = settings_or_exit("rabbitmq_url")
    run(lambda: _print_events(settings))


async def _print_events(settings: Settings) -> None:
    async with listening(settings.needed("rabbitmq_url"), settings.exchange) as coming:
        say("listening", err=True)
        async for event in coming:
            say(json.dumps(event, ensure_ascii=False))

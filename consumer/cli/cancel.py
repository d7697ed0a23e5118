"""`call-consumer cancel`: an upstream system takes requests back, by hand."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import click

from consumer.cli.console import Failed, run, settings_or_exit
from consumer.cli.ids import NamesIds, read_ids
from consumer.cli.orders import readable
from consumer.cli.plan import ids_argument, ids_file_option
from consumer.cli.progress import Progress
from consumer.operations.upstream import (
    BadRequest,
    cancellation,
    listening,
    outcomes_of,
    publish_cancellations,
)
from consumer.output import ids_of, say, shown_id
from consumer.settings import Settings

STDIN = "-"
EPILOG = """\b
Ids are never taken for options. First the options, then --, then the ids:
  call-consumer cancel --reason TEXT -- ID ID
or all from a file or a pipe, one a line, or JSON lines with a request_id:
  call-consumer cancel --ids requests.jsonl
"""


@click.command(cls=NamesIds, epilog=EPILOG)
@ids_argument
@ids_file_option
@click.option("--reason", metavar="TEXT", callback=readable, help="Why, for people: see the event.")
@click.option("--wait", is_flag=True, help="Wait for the events and print them.")
@click.option("--within", default=30.0, show_default=True, help="Seconds to wait at most.")
@click.option("--dry-run", is_flag=True, help="Print the ids, and take nothing back.")
def cancel(  # noqa: PLR0913  # each is an option of the command
    ids_: tuple[str, ...],
    *,
    file: str | None,
    reason: str | None,
    wait: bool,
    within: float,
    dry_run: bool,
) -> None:
    """Take requests back that are not dialled yet; prints their ids. - reads ids from stdin.

    What waits, or has not come yet, is never dialled. What is started stays so. With --wait exit 1
    unless all end as cancelled.
    """
    words = [*_from_stdin(ids_), *(read_ids(file) if file is not None else ())]
    if not words and file is None and STDIN not in ids_:
        raise click.UsageError("name IDs, or a file with --ids")
    bodies = _bodies(words, reason)
    if dry_run or not bodies:
        say(*map(shown_id, bodies))
        say(f"would take back {len(bodies)}" if bodies else "nothing to take back", err=True)
        return
    settings = settings_or_exit("rabbitmq_url")
    if wait:
        run(lambda: _cancel_and_wait(settings, bodies, within))
    else:
        run(lambda: _cancel(settings, bodies, each=lambda id_: say(shown_id(id_))))


def _from_stdin(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        yield from read_ids(STDIN) if word == STDIN else (word,)


def _bodies(words: Sequence[str], reason: str | None) -> dict[str, bytes]:
    """Return the messages to publish, by request id.

    Raises:
        Failed: A word names no request; nothing is published then.
    """
    bodies: dict[str, bytes] = {}
    mistakes = []
    for word in words:
        id_ = next(iter(ids_of(word) - {word}), word)
        try:
            bodies[id_] = cancellation(id_, reason)
        except BadRequest as error:
            mistakes.append(f"{shown_id(word)}: {error}")
    if mistakes:
        text = "nothing was taken back; options come before the ids, with -- between"
        raise Failed(text, *dict.fromkeys(mistakes))
    return bodies


async def _cancel(
    settings: Settings, bodies: Mapping[str, bytes], each: Callable[[str], None]
) -> None:
    """Publish all, and call *each* with the ids of those that the broker has."""
    url = settings.needed("rabbitmq_url")

    def done(id_: str) -> None:
        with progress.one_more():
            each(id_)

    async with Progress("taking back", len(bodies)) as progress:
        await publish_cancellations(url, settings.exchange, bodies, done)


async def _cancel_and_wait(
    settings: Settings, bodies: Mapping[str, bytes], within_s: float
) -> None:
    missing, left = set(bodies), 0
    async with listening(settings.needed("rabbitmq_url"), settings.exchange) as events:
        await _cancel(settings, bodies, each=lambda _: None)
        with suppress(TimeoutError):
            async for event in outcomes_of(events, bodies, within_s):
                missing.remove(event["request_id"])
                left += event.get("reason") != "cancelled"
                say(json.dumps(event, ensure_ascii=False))
    if missing:
        text = "it may have ended before, or its doubt lasts: `call-consumer show` tells"
        lines = [f"{shown_id(id_)}: no event within {within_s:g} s" for id_ in sorted(missing)]
        raise Failed(f"{len(missing)} without an event: {text}", *lines)
    if left:
        raise Failed(f"{left} ended otherwise than cancelled")

"""The options that choose dead letters, the same for each command, and what they mean."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar, get_args

import click

from consumer.cli.ids import Chooser
from consumer.messages import Defaults, Invalid, Reason, read_number
from consumer.operations.choice import Choice
from consumer.operations.moments import MOMENTS, moment_of
from consumer.output import ids_of
from consumer.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

chooser = partial(click.option, cls=Chooser)


def _moment(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    if (moment := moment_of(value)) is None:
        raise click.BadParameter(MOMENTS)
    return moment


def _part(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.BadParameter("is empty, so it would choose all")
    return value


def pairs_of(
    _: click.Context, __: click.Parameter, values: Sequence[str]
) -> Sequence[tuple[str, str]]:
    """Read pairs that are written as KEY=VALUE.

    Raises:
        BadParameter: One is not.
    """
    parts = [value.partition("=") for value in values]
    if not all(key and equals for key, equals, _ in parts):
        raise click.BadParameter("write KEY=VALUE, as campaign=42")
    return tuple((key, value) for key, _, value in parts)


_FILTERS = (
    chooser(
        "--reason",
        "reasons",
        type=click.Choice([*get_args(Reason), "broker"]),
        multiple=True,
        help="Only with this reason; repeatable.",
    ),
    chooser("--code", "codes", multiple=True, help="Only with this code; repeatable."),
    chooser(
        "--description",
        metavar="PART",
        callback=_part,
        help="Only if the description holds this.",
    ),
    chooser("--line", help="Only those that ask for this line."),
    chooser(
        "--metadata",
        metavar="KEY=VALUE",
        multiple=True,
        callback=pairs_of,
        help="Only with this in the metadata; repeatable, all must be there.",
    ),
    chooser("--number", help="Only those to this number, written as in a request."),
    chooser("--request-id", "ids", multiple=True, help="Only this request; repeatable."),
    chooser(
        "--since",
        metavar="WHEN",
        callback=_moment,
        help="Only those that failed from then on: 7d, 12h or 30m ago, a day here as 2026-01-31, "
        "or 2026-01-31T09:00:00Z.",
    ),
    chooser(
        "--until",
        metavar="WHEN",
        callback=_moment,
        help="Only those that failed before then; a day means its beginning.",
    ),
    chooser(
        "--replayed/--not-replayed", default=None, help="Only those that came back, or did not."
    ),
)


def filters(command: F) -> F:
    """Give a command the options that choose dead letters."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def choice_of(settings: Settings, chosen: dict[str, Any], words: Collection[str]) -> Choice:
    """Return the choice of what has one of the ids that *words* may name, and fits the filters.

    Args:
        settings: How to read a number.
        chosen: What the options of `filters` hold.
        words: Ids as a person wrote them.

    Raises:
        BadParameter: The number is none.
    """
    defaults, number = settings.request_defaults, chosen["number"]
    fields = {
        "ids": tuple(id_ for word in words for id_ in ids_of(word)),
        "number": number_of(number, defaults) if number is not None else None,
        "defaults": defaults,
    }
    return Choice(**chosen | fields)


def number_of(text: str, defaults: Defaults) -> str:
    """Read the number that --number names, in E.164.

    Raises:
        BadParameter: It is none.
    """
    read = read_number(text, defaults)
    if isinstance(read, Invalid):
        raise click.BadParameter(read.description, param_hint="--number")
    return read

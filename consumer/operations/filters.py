"""A filter of dead letters as a form has it, and in words. Pure."""

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime

from consumer.errors import OperatorError
from consumer.messages import Defaults, Invalid, read_number
from consumer.operations.choice import Choice
from consumer.operations.dead_letter import Kind, masked
from consumer.operations.moments import MOMENTS, moment_of

REPLAYED = {"yes": True, "no": False}


class BadFilter(OperatorError):
    """Raised for a filter that cannot be read; says what to write."""


def read_filter(told: Mapping[str, str], ids: Collection[str], defaults: Defaults) -> Choice:
    """Return the choice that a form tells: of each field its text, empty for any.

    Raises:
        BadFilter: A field cannot be read.
    """
    number = told.get("number")
    return Choice(
        ids=frozenset(ids) or (),
        reasons=_one(told.get("reason")),
        codes=_one(told.get("code")),
        description=told.get("description") or None,
        line=told.get("line") or None,
        metadata=_pairs(told.get("metadata")),
        number=number_of(number, defaults) if number else None,
        since=_moment("Since", told.get("since")),
        until=_moment("Until", told.get("until")),
        replayed=REPLAYED.get(told.get("replayed", "")),
        defaults=defaults if number else Defaults(),
    )


def read_kind(text: str) -> Kind:
    """Read reason, code and description, as a JSON list.

    Raises:
        BadFilter: It is none.
    """
    try:
        reason, code, description = words = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        words = [None]
    if not all(isinstance(each, str | None) for each in words) or words[0] is None:
        raise BadFilter("That group cannot be read: look again")
    return reason, code, description


def number_of(text: str, defaults: Defaults) -> str:
    """Read a number, in E.164.

    Raises:
        BadFilter: It is none.
    """
    read = read_number(text, defaults)
    if isinstance(read, Invalid):
        raise BadFilter(f"Number: {read.description}")
    return read


def pair_of(text: str) -> tuple[str, str]:
    """Read a pair of the metadata.

    Raises:
        BadFilter: It is none.
    """
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise BadFilter("Metadata: write KEY=VALUE, as campaign=42")
    return key, value


def _one(text: str | None) -> tuple[str, ...]:
    return (text,) if text else ()


def _pairs(text: str | None) -> tuple[tuple[str, str], ...]:
    return (pair_of(text),) if text else ()


def _moment(name: str, text: str | None) -> datetime | None:
    moment = moment_of(text) if text else None
    if text and moment is None:
        raise BadFilter(f"{name}: {MOMENTS}")
    return moment


def in_words(choice: Choice) -> str:
    """Say which dead letters a choice names; a number is masked."""
    return ", ".join(_words(choice)) or "all dead letters"


def _words(choice: Choice) -> Iterator[str]:
    if choice.kind is not None:
        reason, code, description = choice.kind
        yield f"{reason} {code or ''}: {description or ''}"
    if choice.ids:
        yield next(iter(choice.ids)) if len(choice.ids) == 1 else f"{len(choice.ids):,} requests"
    told = {
        "reason": ", ".join(choice.reasons),
        "code": ", ".join(choice.codes),
        "description with": choice.description,
        "line": choice.line,
        "metadata": ", ".join("=".join(pair) for pair in choice.metadata),
        "number": masked(choice.number),
        "since": choice.since and f"{choice.since:%Y-%m-%d %H:%M} UTC",
        "until": choice.until and f"{choice.until:%Y-%m-%d %H:%M} UTC",
    }
    yield from (f"{name} {text}" for name, text in told.items() if text)
    if choice.replayed is not None:
        yield "after a replay" if choice.replayed else "never replayed"

"""Which dead letters a command is about."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from consumer.messages import Defaults, read_moment, read_number
from consumer.operations.dead_letter import DeadLetter, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which dead letters are chosen; an empty choice means all.

    Attributes:
        kind: Exactly what a letter must have failed of.
        metadata: Pairs, all of which a letter must have.
        number: In E.164.
        defaults: How to read the number of a letter.
    """

    ids: Collection[str] = ()
    kind: Kind | None = None
    reasons: Collection[str] = ()
    codes: Collection[str] = ()
    description: str | None = None
    line: str | None = None
    metadata: Collection[tuple[str, str]] = ()
    number: str | None = field(default=None, repr=False)
    since: datetime | None = None
    until: datetime | None = None
    replayed: bool | None = None
    defaults: Defaults = field(default=Defaults(), compare=False)

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self == Choice()

    def holds(self, letter: DeadLetter) -> bool:
        """Tell whether *letter* is chosen."""
        return (
            (not self.ids or letter.id in self.ids)
            and (self.kind is None or letter.kind == self.kind)
            and (not self.reasons or letter.reason in self.reasons)
            and (not self.codes or (letter.code or "").upper() in {c.upper() for c in self.codes})
            and (self.description or "").lower() in (letter.description or "").lower()
            and (self.line is None or letter.line == self.line)
            and (self.replayed is None or (letter.replay > 0) == self.replayed)
            and self._holds_time(letter)
            and self._holds_metadata(letter)
            and self._holds_number(letter)
        )

    def _holds_time(self, letter: DeadLetter) -> bool:
        failed_at = read_moment(letter.failed_at)
        return (self.since is None or (failed_at is not None and failed_at >= self.since)) and (
            self.until is None or (failed_at is not None and failed_at < self.until)
        )

    def _holds_metadata(self, letter: DeadLetter) -> bool:
        held = letter.fields.get("metadata")
        pairs = held.items() if isinstance(held, dict) else ()
        return {(key, _word(value)) for key, value in pairs}.issuperset(self.metadata)

    def _holds_number(self, letter: DeadLetter) -> bool:
        return self.number is None or read_number(letter.number, self.defaults) == self.number


def _word(value: object) -> str:
    """Write a value as on the command line: a request may be invalid because it is no string."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

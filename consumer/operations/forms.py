"""What a person has written into a form, read. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consumer.errors import OperatorError
from consumer.messages import Defaults
from consumer.operations.choice import Choice
from consumer.operations.controls import Target, read_target
from consumer.operations.edits import FIELDS, BadEdit, read_edit
from consumer.operations.filters import read_filter, read_kind

LONGEST_REASON = 200
SLOWEST_PER_S = 0.001


class BadForm(OperatorError):
    """Raised for a form that cannot be carried out; says what to change."""


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form, each with all its values."""

    fields: Mapping[str, Sequence[str]]

    def text(self, name: str) -> str:
        """Return what a field holds, empty if nothing."""
        return self.fields.get(name, [""])[0].strip()

    @property
    def reason(self) -> str:
        """Why it is sent.

        Raises:
            BadForm: That is missing, or too long.
        """
        reason = self.text("reason")
        if not reason or len(reason) > LONGEST_REASON:
            raise BadForm(f"Say in a few words why, {LONGEST_REASON} characters at most")
        return reason

    @property
    def ids(self) -> list[str]:
        """The ids in it, each once: one on a line, or one for each ticked box."""
        lines = [line.strip() for text in self.fields.get("ids", []) for line in text.split("\n")]
        return list(dict.fromkeys(line for line in lines if line))

    @property
    def rate_per_s(self) -> float | None:
        """How many may go in a second; None for as many as can be.

        Raises:
            BadForm: That is no such number.
        """
        text = self.text("rate")
        try:
            rate = float(text) if text else None
        except ValueError:
            rate = math.nan
        if rate is not None and not SLOWEST_PER_S <= rate < math.inf:
            raise BadForm(f"At most so many a second: write {SLOWEST_PER_S} or more, as 0.5")
        return rate

    @property
    def edits(self) -> dict[str, Any]:
        """New values for a request's fields.

        Raises:
            BadForm: One cannot be read.
        """
        edits = {}
        for name in FIELDS:
            try:
                if text := self.text(f"set-{name}"):
                    edits[name] = read_edit(name, text)
            except BadEdit as error:
                raise BadForm(f"{name} {error}") from None
        return edits

    def choice(self, defaults: Defaults) -> Choice:
        """Return which dead letters it chooses.

        Raises:
            BadForm: None.
            BadFilter: A field cannot be read.
        """
        if self.text("group"):
            return Choice(kind=read_kind(self.text("group")))
        choice = read_filter({name: self.text(name) for name in self.fields}, self.ids, defaults)
        if choice.everything and not self.text("all"):
            raise BadForm("Nothing is chosen: fill in a field, or tick a letter")
        return choice

    def target(self, defaults: Defaults) -> Target:
        """Return what it blocks.

        Raises:
            BadFilter: That cannot be read.
        """
        return read_target(self.text("kind"), self.text("value"), defaults)

"""What `dlq replay` and `dlq discard` share: what is chosen, the plan, the question, the count."""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import click

from consumer.cli.console import Failed
from consumer.cli.dead_letters import look_at_each
from consumer.cli.filters import F, choice_of, chooser, filters
from consumer.cli.ids import OPTIONS, read_ids
from consumer.operations.choice import Choice
from consumer.operations.dead_letter import DeadLetter, Groups
from consumer.operations.dead_letters import NoSuchDeadLetter
from consumer.output import ids_of, is_terminal, say, shown_id
from consumer.settings import Settings

ids_argument = click.argument("ids_", nargs=-1, metavar="[[--] ID]...")
ids_file_option = chooser(
    "--ids", "file", metavar="FILE", help="Only the ids in this file, one a line; - is stdin."
)
_all_option = chooser("--all", "everything", is_flag=True, help="Every dead letter there is now.")


def letter_options(command: F) -> F:
    """Give a command its ids, and the options that choose among the dead letters."""
    for option in (_all_option, ids_file_option, filters, ids_argument):
        command = option(command)
    return command


HOW_TO_NAME_IDS = """\b
Ids are never taken for options. First the options, then --, then the ids:
  call-consumer dlq {0} -- ID ID
or all from a file or a pipe, JSON or one a line:
  call-consumer dlq list --json | call-consumer dlq {1}
"""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which dead letters a command is about.

    Attributes:
        words: The ids, as `ids_of` reads them.
        choice: Ids and filters.
        options: What was taken for an option.
    """

    words: Collection[str]
    choice: Choice
    options: Collection[str]

    def stumbles_over(self, letter: DeadLetter) -> bool:
        """Tell whether an option, with no id named, may have been meant as this one's id."""
        return not self.words and letter.id in self.options

    def see_all_named(self, letters: Sequence[DeadLetter]) -> None:
        """See that each word names one id.

        Raises:
            NoSuchDeadLetter: One names none.
            Failed: One names two.
        """
        found = {letter.id for letter in letters}
        counts = {word: len(ids_of(word) & found) for word in self.words}
        if missing := sorted(word for word, count in counts.items() if count == 0):
            alone = self.choice == Choice(ids=self.choice.ids)
            which = "no dead letter has the id" if alone else "none matches"
            raise NoSuchDeadLetter(
                f"{which} {', '.join(map(shown_id, missing))}: see dlq list"
                + ("; options come before the ids" if missing[0].startswith("-") else "")
            )
        if twice := [word for word, count in counts.items() if count > 1]:
            raise Failed(f"{shown_id(twice[0])} may be two ids: name it in JSON, with --ids")


def chosen_of(
    settings: Settings,
    ids: Sequence[str],
    file: str | None,
    filters: dict[str, Any],
    *,
    everything: bool,
) -> Chosen | None:
    """Return what is chosen, by ids, their *file*, filters, or --all; None for an empty file.

    Raises:
        UsageError: Nothing is, or all and something, or a filter is wrong.
    """
    words = {*ids, *filters["ids"], *(read_ids(file) if file is not None else ())}
    choice = choice_of(settings, filters, words)
    if everything and (file is not None or not choice.everything):
        raise click.UsageError("IDs or a filter, or --all: not both")
    if not everything and file is None and choice.everything:
        raise click.UsageError("name IDs or a filter, or say --all")
    if file is not None and not words:
        return None
    return Chosen(words, choice, click.get_current_context().meta[OPTIONS])


async def chosen_letters(settings: Settings, what: Chosen) -> list[DeadLetter]:
    """Look up what is chosen, by time of failure.

    Raises:
        Failed: An option may have been meant as an id, or an id may be two.
        NoSuchDeadLetter: An id names none.
    """
    letters = []

    def each(letter: DeadLetter) -> None:
        if what.stumbles_over(letter):
            raise Failed(
                f"{shown_id(letter.id)} is a dead letter's id too: see it with "
                f"`dlq show -- {letter.id}`, and name it behind --, before you choose like this"
            )
        if what.choice.holds(letter):
            letters.append(letter)

    await look_at_each(settings, Choice(), each)
    what.see_all_named(letters)
    return sorted(letters, key=lambda x: x.failed_at or "")


def goes_on(act: str, letters: Sequence[DeadLetter], *, dry_run: bool, yes: bool) -> bool:
    """Tell whether to go on; ask only a person at a terminal.

    This runs outside of any event loop, so that Ctrl-C ends the question.
    """
    if not letters:
        say(f"nothing to {act}", err=True)
        return False
    if dry_run:
        say(*(shown_id(letter.id) for letter in letters))
        say(f"would {act} {len(letters)}", err=True)
        return False
    if not yes and is_terminal(sys.stdin):
        click.confirm(f"{act} {len(letters)}?", abort=True, err=True)
    return True


def tell(done: str, count: int, chosen: int) -> None:
    """Say how many were done, and what became of the others."""
    left = f" of {chosen}; the others are still dead letters" if count < chosen else ""
    say(f"{done} {count}{left}", err=True)


def see_all_done(count: int, chosen: int) -> None:
    """See that all were done.

    Raises:
        Failed: Some were not.
    """
    if count < chosen:
        raise Failed(f"{chosen - count} were in somebody else's hands: look again")


def counted(letters: int) -> str:
    return f"{letters} dead letter{'s' if letters != 1 else ''}"


def causes(letters: Sequence[DeadLetter]) -> list[str]:
    return [f"  {found.count} {found.title}" for found in Groups(letters).largest_first]

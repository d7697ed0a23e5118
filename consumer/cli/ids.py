"""Ids on the command line are data: none is ever taken for an option."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

OPTIONS = "consumer.cli.ids.options"
"""Where a command keeps which words it took for options."""


class Chooser(click.Option):
    """An option that chooses dead letters without naming one behind ``--``."""


class NamesIds(click.Command):
    """A command whose ids are never taken for options.

    The first word decides. If it is no option, all words are ids. If it is one, ids may follow only
    behind ``--``: whatever pipes ids to a command puts them last, and an id may look like
    ``--redial``. For the same reason, what chooses without an id has to come first.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Separate the ids, then parse as usual."""
        many = any(each.nargs < 0 for each in self.params if isinstance(each, click.Argument))
        known = self.get_params(ctx)
        if args and args[0] != "--" and not _is_among(known, args[0]):
            # A command that takes one id cannot mistake what follows it for another.
            one = not many and all(_is_among(known, word) for word in args[1:])
            args = [*args[1:], "--", args[0]] if one else ["--", *args]
        elif many:
            self._see_order(ctx, args)
        options = args[: args.index("--")] if "--" in args else args
        if len(args) > 1 and set(options) & set(ctx.help_option_names):
            text = "for help name the command and no more; ids come behind --"
            raise click.UsageError(text, ctx)
        ctx.meta[OPTIONS] = {word for word in options if word.startswith("-")}
        return super().parse_args(ctx, args)

    def _see_order(self, ctx: click.Context, args: list[str]) -> None:
        parser = self.make_parser(ctx)
        parser.allow_interspersed_args = False
        try:
            given, _, _ = parser.parse_args(list(args))
        except click.NoSuchOption as error:
            text = f"{error.format_message()} An id comes behind --"
            raise click.UsageError(text, ctx) from None
        arguments = [each.name for each in self.params if isinstance(each, click.Argument)]
        # Where nothing is given, click has a value of its own instead of a tuple.
        found = [given[name] for name in arguments if isinstance(given.get(name), tuple)]
        ids = [id_ for words in found for id_ in words]
        choosers = [each for each in self.params if isinstance(each, Chooser)]
        if ids and args[-len(ids) - 1] != "--":
            raise click.UsageError("write -- before the ids, and every option before the --", ctx)
        chooses = any(each.name in given for each in choosers)
        if not ids and chooses and not _is_among(choosers, args[0]):
            text = "what chooses (a filter, --ids, --all) comes first, before other options"
            raise click.UsageError(text, ctx)


def _is_among(parameters: Sequence[click.Parameter], word: str) -> bool:
    names = {name for each in parameters for name in (*each.opts, *each.secondary_opts)}
    return word.startswith("-") and word.partition("=")[0] in names


def read_ids(name: str) -> list[str]:
    """Read ids, one a line, from a file or, if its name is a dash, from stdin.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        text = (sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()).decode(
            "utf-8-sig"
        )
    except OSError as error:
        raise click.UsageError(f"--ids {name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"--ids {name}: is not UTF-8") from None
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]

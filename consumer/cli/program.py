"""All commands as one program."""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from consumer import output
from consumer.cli.console import told


class Program(click.Group):
    """All commands: whatever ends one is one line without a traceback, and an exit code.

    Args:
        modules: By a command's name the module that has it, loaded when it is called, and its help.
    """

    def __init__(self, *args: Any, modules: Mapping[str, tuple[str, str]], **extra: Any) -> None:  # noqa: ANN401  # as click has it
        super().__init__(*args, **extra)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted([*super().list_commands(ctx), *self._modules])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, and load it first if need be."""
        if cmd_name not in self._modules:
            return super().get_command(ctx, cmd_name)
        module = import_module(f"consumer.cli.{self._modules[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Write all commands with their help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._modules.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command, or an option, without loading any command."""
        named = [
            CompletionItem(name, help=text)
            for name, (_, text) in self._modules.items()
            if name.startswith(incomplete)
        ]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]

    def main(self, *args: Any, **extra: Any) -> NoReturn:  # noqa: ANN401  # as click has it
        """Run the command that the arguments name, and exit."""
        output.set_up()
        try:
            with told():
                code = super().main(*args, **extra | {"standalone_mode": False})
        except SystemExit as error:
            code = error.code
        finally:
            output.close()
        sys.exit(code if isinstance(code, int) else 0)

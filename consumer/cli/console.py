"""What all commands share: settings or exit 2, one line for what ends a command, tables."""

import asyncio
import getpass
import logging
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from consumer.environment import read_settings
from consumer.errors import OperatorError
from consumer.output import OutputFailed, escaped, say
from consumer.settings import Secret, Settings, WrongSettings

P = ParamSpec("P")
T = TypeVar("T")


class Failed(click.ClickException):
    """Ends a command with one line, or one for each thing that is wrong, and exit code 1."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@contextmanager
def told() -> Iterator[None]:
    """Say what ended a command, where that can still be said."""
    try:
        yield
    except Failed as error:
        _exit(f"Error: {error.lines[0]}", *error.lines[1:])
    except click.ClickException as error:
        _exit(*_usage(error), f"Error: {error.format_message()}", code=error.exit_code)
    except click.Abort:
        _exit("Aborted!")
    except OutputFailed as error:
        # Who reads `… | head` has seen enough.
        _exit(*[] if error.broken_pipe else [f"Error: {error}"])
    except OSError as error:  # click's own output: help, a question
        _exit(f"Error: {error}")


def _usage(error: click.ClickException) -> list[str]:
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    if ctx is None:
        return []
    help_ = f"Try '{ctx.command_path} {ctx.help_option_names[0]}' for help."
    return [*ctx.get_usage().split("\n"), help_, ""]


def _exit(*lines: str, code: int = 1) -> NoReturn:
    with suppress(OutputFailed):
        say(*lines, err=True)
    raise SystemExit(code)


def settings_or_exit(*needed: Secret) -> Settings:
    """Read the settings; with a mistake in them, or one of *needed* missing, say all and exit 2."""
    try:
        return read_settings(needed=needed, ca_file=os.environ.get("SSL_CERT_FILE"))
    except WrongSettings as error:
        _wrong_settings(error)


def _wrong_settings(error: WrongSettings) -> NoReturn:
    say(*error.mistakes, err=True)
    sys.exit(2)


def run(start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a command, or a part of it, to its end; whatever stops it is one line."""
    # What a library says of a lost link would come on top. The worker has a handler of its own.
    logging.getLogger("aiormq").addHandler(logging.NullHandler())
    try:
        with asyncio.Runner() as runner:
            runner.get_loop().set_default_executor(Threads())
            return runner.run(start())
    except WrongSettings as error:
        _wrong_settings(error)
    except OperatorError as error:
        raise Failed(str(error)) from None
    except KeyboardInterrupt:
        raise click.Abort from None


class Threads(ThreadPoolExecutor):
    """A thread for each task, which nobody waits for at the end.

    To look a name up may take half a minute where no name server answers, and cannot be cancelled.
    """

    def submit(self, task: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> "Future[T]":
        """Run *task* in a thread of its own."""
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(task(*args, **options))
            except BaseException as error:  # noqa: BLE001  # it is the caller's
                future.set_exception(error)

        Thread(target=work, daemon=True).start()
        return future


def who() -> str:
    """Return the user's name, or number: in a container that may be all there is."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def who_and_where() -> str:
    """Return the user and the host, for what other people will read there."""
    return f"{who()}@{socket.gethostname()}"


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns as wide as they need be."""
    cells = [[("" if cell is None else escaped(str(cell))) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for row in [list(heads), *cells]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say(line.rstrip())

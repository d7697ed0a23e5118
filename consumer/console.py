"""What all commands share: settings or exit 2, one line for what stops a command, tables."""

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from consumer.app import NoConsumer
from consumer.broker import NoBroker
from consumer.deadletters import NoSuchDeadLetter
from consumer.hand import InOtherHands
from consumer.ledger import LedgerDown
from consumer.publisher import NotPublished
from consumer.settings import Secret, Settings, WrongSettings, read_settings
from consumer.topology import WrongTopology

STOPPERS = (NoBroker, WrongTopology, LedgerDown, NoSuchDeadLetter, InOtherHands, NoConsumer)
P = ParamSpec("P")
T = TypeVar("T")
HINTS = {
    "unroutable": "no queue takes it yet: start the worker once, it declares them",
    "nacked": "the queue is full or refuses it: see the broker",
    "timed_out": "the broker did not confirm in time: it may have arrived all the same",
    "disconnected": "the link to the broker broke: it may have arrived all the same",
}


class Failed(click.ClickException):
    """Ends a command with one line and exit code 1."""


def settings_or_exit(*needed: Secret) -> Settings:
    """Read the settings; with a mistake in them, or one of *needed* missing, say all and exit 2."""
    try:
        return read_settings(needed=needed)
    except WrongSettings as error:
        _wrong_settings(error)


def _wrong_settings(error: WrongSettings) -> NoReturn:
    for mistake in error.mistakes:
        click.echo(mistake, err=True)
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
    except STOPPERS as error:
        raise Failed(str(error)) from None
    except NotPublished as error:
        raise Failed(f"not published ({error}): {HINTS[error.why]}") from None
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


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns as wide as they need be."""
    cells = [[("" if cell is None else str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for row in [list(heads), *cells]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())

"""Where the demo shows what happens: a live table on a terminal, lines elsewhere."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from consumer.demo.requests import Request
from consumer.messages import COMPLETED, FAILED
from consumer.output import escaped, say

if TYPE_CHECKING:
    from rich.console import Console

Show = Callable[[Request, str, str], None]
"""Shows of a request the type of an event and what it means."""


@contextmanager
def showing(asked: Sequence[Request]) -> Iterator[Show]:
    """Show events in a live table on a terminal, if rich is installed, and in lines elsewhere."""
    if console := _terminal():
        with _live_table(console, asked) as show:
            yield show
    else:
        yield _show_line


def _show_line(request: Request, event: str, what: str) -> None:
    say(f"{request.name:<12} {request.oddity:<34} {event}  {what}")


def _terminal() -> "Console | None":
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console  # noqa: PLC0415  # an optional extra
    except ImportError:
        return None
    console = Console()
    return console if console.is_interactive else None  # a dumb terminal is not


@contextmanager
def _live_table(console: "Console", asked: Sequence[Request]) -> Iterator[Show]:
    """Show a row per request; what is printed meanwhile appears above."""
    from rich.live import Live  # noqa: PLC0415  # an optional extra
    from rich.table import Column, Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    # While it is live nothing wraps, so that the table is not higher than the screen.
    happened = {request: Text(no_wrap=True) for request in asked}

    def drawn() -> Table:
        names = (Column("request", no_wrap=True), Column("what is special", no_wrap=True))
        table = Table(*names, "what happened", box=None, padding=(0, 2, 0, 0))
        for request, what in happened.items():
            table.add_row(request.name, request.oddity, what or "…")
        return table

    with Live(get_renderable=drawn, console=console, auto_refresh=False) as live:

        def show(request: Request, event: str, what: str) -> None:
            cell = happened[request]
            beside = ", " if event == COMPLETED else "\n"
            cell.append(beside if cell else "").append(
                escaped(what), "red" if event == FAILED else "green"
            )
            live.refresh()

        live.refresh()
        yield show
        for cell in happened.values():
            cell.no_wrap = False

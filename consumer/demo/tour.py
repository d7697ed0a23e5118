"""The demo: a dozen requests, what happens to each, and an account of all.

`play` publishes the `requests`, follows the events, and has the `account` drawn up.
`consumer.demo.environment` starts what it needs.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx

from consumer.demo.account import draw_up
from consumer.demo.environment import DemoEnvironment, DemoFailed, demo_environment, end_of, stay
from consumer.demo.requests import MISSING_LINE, Request, requests
from consumer.messages import COMPLETED, FAILED, STARTED
from consumer.messages.endings import in_words
from consumer.operations.choice import Choice
from consumer.operations.dead_letter import DeadLetter
from consumer.operations.dead_letters import Replay, look, send_back
from consumer.operations.upstream import listening, publish_requests
from consumer.output import escaped, say
from consumer.sandbox.switches import LINES

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["DemoFailed", "take_tour"]

EVENTS_WITHIN_S = 30.0
ENDS_WITHIN_S = 60.0
"""The worker reads the call history twice a minute."""
QUICK_PORTAL = {"call_duration_s": 12, "call_speed": 30, "rate_per_s": 5}

Tell = Callable[[dict[str, Any]], None]

Show = Callable[[Request, str, str], None]
"""Shows of a request the type of an event and what it means."""


def take_tour(*, keep: bool) -> bool:
    """Take the tour and return whether all requests are accounted for.

    Args:
        keep: Leave everything running until Ctrl-C.

    Raises:
        BrokerUnavailable, DemoFailed, KeyboardInterrupt: As `demo_environment`.
    """
    with demo_environment() as stage:
        adds_up = asyncio.run(play(stage))
        if not adds_up:
            say(*f"This does not add up. {end_of(stage.log)}".split("\n"))
        if keep:
            stay(stage)
    return adds_up


async def play(stage: DemoEnvironment) -> bool:
    """Publish the requests, tell what becomes of each, replay one, and account for all."""
    # Ctrl-C cancels aio-pika's own tasks too, which would complain at length.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    asked = requests(datetime.now(UTC))
    async with httpx.AsyncClient(trust_env=False) as http:
        await _patch(http, stage, QUICK_PORTAL)
        async with listening(stage.broker, stage.topology.exchange) as events:
            missing = await tell_all(stage, http, asked, events)
        drawn_up = await draw_up(stage, http, asked)
    if missing:
        say("", f"No event within {EVENTS_WITHIN_S:g} s about: {', '.join(missing)}")
    say("", str(drawn_up), "(counted in the broker's queues and the sandbox's list of calls)")
    return drawn_up.adds_up and not missing


async def tell_all(
    stage: DemoEnvironment,
    http: httpx.AsyncClient,
    asked: Sequence[Request],
    events: AsyncIterator[dict[str, Any]],
) -> list[str]:
    """Publish the requests and replay one; return the ids of those that had no event in time."""
    url, topology = stage.broker, stage.topology

    async def fix(_: DeadLetter) -> None:
        say("", f"The portal gets the line {MISSING_LINE}, and the dead letter is replayed:", "")
        await _patch(http, stage, {"lines": LINES | {MISSING_LINE: "no longer missing"}})

    say("", f"Publishing {len(asked)} requests; what comes of them, as the events come in:", "")
    with showing(asked) as show:
        tell, open_calls = _teller(asked, show)
        bodies = [request.body for request in asked for _ in range(request.copies)]
        await publish_requests(url, topology.exchange, bodies)
        copies = Counter({request.id: request.copies for request in asked})
        if missing := await follow(events, copies, tell):
            return missing

        letters = look(url, topology, Choice(ids={"no-line"}))
        await send_back(url, topology, [each.key async for each in letters], Replay(), fix)
        if missing := await follow(events, Counter(["no-line"]), tell):
            return missing

        say("", "What came of the calls, as the portal's call history shows it:", "")
        return await follow_to_the_end(events, open_calls, tell)


async def _patch(http: httpx.AsyncClient, stage: DemoEnvironment, switches: dict[str, Any]) -> None:
    (await http.patch(stage.sandbox("/sandbox"), json=switches)).raise_for_status()


async def follow(
    events: AsyncIterator[dict[str, Any]], wanted: Counter[str | None], tell: Tell
) -> list[str]:
    """Tell of events until each of *wanted* has come; return the ids that had none in time."""
    missing = Counter(wanted)
    with suppress(TimeoutError):
        async with asyncio.timeout(EVENTS_WITHIN_S):
            while missing.total():
                event = await anext(events)
                if event.get("type") != COMPLETED:
                    missing -= Counter([event["request_id"]])
                tell(event)
    return [request_id or "(no id)" for request_id in missing]


async def follow_to_the_end(
    events: AsyncIterator[dict[str, Any]], open_calls: set[str], tell: Tell
) -> list[str]:
    """Tell of events until each of *open_calls* has ended; return those that have not in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(ENDS_WITHIN_S):
            while open_calls:
                tell(await anext(events))
    return sorted(open_calls)


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


def _teller(asked: Sequence[Request], show: Show) -> tuple[Tell, set[str]]:
    """Return what shows whose event came and what it means, and which calls have not ended."""
    by_id = {request.id: request for request in asked}
    seen: set[str] = set()
    open_calls: set[str] = set()

    def tell(event: dict[str, Any]) -> None:
        again = event["event_id"] in seen
        seen.add(event["event_id"])
        if event["type"] == STARTED and event["call_id"] and not again:
            open_calls.add(event["request_id"])
        elif event["type"] == COMPLETED:
            open_calls.discard(event["request_id"])
        what = "the same event again: not dialled again" if again else meaning_of(event)
        show(by_id[event["request_id"]], event["type"], what)

    return tell, open_calls


def meaning_of(event: dict[str, Any]) -> str:
    """Say in plain words what an event means."""
    if event["type"] == COMPLETED:
        return in_words(event["outcome"], event["duration_s"])
    tries, replayed = event["attempt"], " on replay" if event["replay"] else ""
    if event["type"] == STARTED:
        if event["confirmed_by"] == "history":
            return "found in the portal's call history, so not dialled again"
        return f"placed{replayed}" + (f" at attempt {tries}" if tries > 1 else "")
    after = f" after {tries} attempts" if tries > 1 else ""
    return f"{event['reason']}{after}{replayed}: {event['description']}"

"""The demo: some requests, what happens to each, and an account of all.

`play` publishes the `requests`, follows the events, and has the `account` drawn up.
`consumer.demo.environment` starts what it needs.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from consumer.demo.account import draw_up
from consumer.demo.environment import DemoEnvironment, DemoFailed, demo_environment, end_of, stay
from consumer.demo.requests import MISSING_LINE, Request, requests
from consumer.demo.screen import Show, showing
from consumer.messages import COMPLETED, STARTED
from consumer.messages.endings import in_words
from consumer.operations.choice import Choice
from consumer.operations.dead_letter import DeadLetter
from consumer.operations.dead_letters import Replay, look, send_back
from consumer.operations.upstream import (
    cancellation,
    listening,
    publish_cancellations,
    publish_requests,
)
from consumer.output import say
from consumer.sandbox.switches import LINES

__all__ = ["DemoFailed", "take_tour"]

EVENTS_WITHIN_S = 30.0
ENDS_WITHIN_S = 60.0
"""The worker reads the call history twice a minute."""
QUICK_PORTAL = {"call_duration_s": 12, "call_speed": 30, "rate_per_s": 5}
COUNTED = "counted in the broker's queues, the sandbox's calls, and the events"

Tell = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Told:
    """What the events have told so far.

    Attributes:
        missing: The requests about which none came in time.
        open_calls: The requests whose calls have not ended.
        cancelled: The requests that were taken back.
    """

    missing: list[str] = field(default_factory=list)
    open_calls: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)


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
            told = await tell_all(stage, http, asked, events)
        drawn_up = await draw_up(stage, http, asked, told.cancelled)
    if told.missing:
        say("", f"No event within {EVENTS_WITHIN_S:g} s about: {', '.join(told.missing)}")
    say("", str(drawn_up), f"({COUNTED})")
    return drawn_up.adds_up and not told.missing


async def tell_all(
    stage: DemoEnvironment,
    http: httpx.AsyncClient,
    asked: Sequence[Request],
    events: AsyncIterator[dict[str, Any]],
) -> Told:
    """Publish the requests, take one back, replay one; return what the events told."""
    url, topology, told = stage.broker, stage.topology, Told()

    async def fix(_: DeadLetter) -> None:
        say("", f"The portal gets the line {MISSING_LINE}, and the dead letter is replayed:", "")
        await _patch(http, stage, {"lines": LINES | {MISSING_LINE: "no longer missing"}})

    say("", f"Publishing {len(asked)} requests; what comes of them, as the events come in:", "")
    with showing(asked) as show:
        tell = _teller(asked, show, told)
        await _publish(stage, asked)
        copies = Counter({request.id: request.copies for request in asked})
        told.missing = await follow(events, copies, tell)
        if told.missing:
            return told

        letters = look(url, topology, Choice(ids={"no-line"}))
        await send_back(url, topology, [each.key async for each in letters], Replay(), fix)
        told.missing = await follow(events, Counter(["no-line"]), tell)
        if told.missing:
            return told

        say("", "What came of the calls, as the portal's call history shows it:", "")
        told.missing = await follow_to_the_end(events, told.open_calls, tell)
    return told


async def _publish(stage: DemoEnvironment, asked: Sequence[Request]) -> None:
    """Publish the requests, then take back those that are to be."""
    url, exchange = stage.broker, stage.topology.exchange
    bodies = [request.body for request in asked for _ in range(request.copies)]
    await publish_requests(url, exchange, bodies)
    back = {each.id: cancellation(each.id, None) for each in asked if each.id and each.taken_back}
    await publish_cancellations(url, exchange, back, lambda _: None)


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


def _teller(asked: Sequence[Request], show: Show, told: Told) -> Tell:
    """Return what shows whose event came and what it means, and notes it."""
    by_id = {request.id: request for request in asked}
    seen: set[str] = set()

    def tell(event: dict[str, Any]) -> None:
        request = by_id[event["request_id"]]
        again = event["event_id"] in seen
        if again and request.taken_back:
            return  # its message has come: the event is repeated, and nothing else happens
        seen.add(event["event_id"])
        if event["type"] == STARTED and event["call_id"] and not again:
            told.open_calls.add(event["request_id"])
        elif event["type"] == COMPLETED:
            told.open_calls.discard(event["request_id"])
        elif event.get("reason") == "cancelled":
            told.cancelled.add(event["request_id"])
        what = "the same event again: not dialled again" if again else meaning_of(event)
        show(request, event["type"], what)

    return tell


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

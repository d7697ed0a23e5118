"""``python -m tests.faults.launcher``: `call-consumer run`, ended or frozen at a named point.

The points are planted here, from outside: the product has no hook for them.
"""

import asyncio
import json
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import aio_pika
import aiohttp
import click

from consumer.app import App
from consumer.bitrix24.portal import PLACE, Portal
from consumer.cli import main as cli
from consumer.decision import Outcome
from consumer.ledger import Entry, Ledger
from consumer.ledger.published import PublishedMarks
from consumer.limits import circuit_breaker
from consumer.messages import CallRequested
from consumer.rabbitmq.publisher import DEADLINE_S, Publisher

Point = Literal[
    "before the claim",
    "claimed",
    "request sent",
    "answer read",
    "recorded",
    "published",
    "marked out",
]
POINTS: tuple[Point, ...] = get_args(Point)
CANCELLED = "fault.call_cancelled"
TRAPPED = "fault.trapped"
DIALS = "fault.dials"
SLOW_PUBLISH = "fault.slow_publish"
TASKS = "fault.tasks"
GRACE_S = 2.5
"""A publish that fails closes its connection, which may take a second, on a busy machine."""


class Trap:
    """Sends this process a signal when it passes *point* for the *passing*-th time."""

    def __init__(self, point: str | None, passing: int, number: signal.Signals) -> None:
        self._point = point
        self._left = passing
        self._number = number

    def passed(self, point: Point, answered: str | None = None) -> None:
        """Spring, if it is time; *answered* is the request whose answer is on record."""
        if point != self._point:
            return
        self._left -= 1
        if self._left == 0:
            report(TRAPPED, answered=answered)
            os.kill(os.getpid(), self._number)


def watch_ledger(trap: Trap) -> None:
    put, claim, write = Ledger.put, Ledger.claim, PublishedMarks.write

    async def watched_claim(
        self: Ledger, entry: Entry, was: Entry | None, controls: bytes
    ) -> Entry | None:
        trap.passed("before the claim")
        written = await claim(self, entry, was, controls)
        if written is not None:
            trap.passed("claimed")
        return written

    async def watched_put(self: Ledger, entry: Entry, was: Entry | None) -> Entry | None:
        written = await put(self, entry, was)
        if written is None:
            return None
        answered = written.request_id if written.confirmed_by == "answer" else None
        if written.unsure_since is None:
            trap.passed("marked out" if written.published else "recorded", answered)
        return written

    async def watched_marks(self: PublishedMarks, entries: Sequence[Entry]) -> None:
        await write(self, entries)
        for entry in entries:
            trap.passed("marked out", entry.request_id)

    PublishedMarks.write = watched_marks  # type: ignore[method-assign]
    Ledger.claim = watched_claim  # type: ignore[method-assign]
    Ledger.put = watched_put  # type: ignore[method-assign]


def watch_portal(trap: Trap) -> None:
    write, place = aiohttp.ClientRequest.write_bytes, Portal.place

    async def watched_write(self: aiohttp.ClientRequest, *arguments: Any) -> None:  # noqa: ANN401
        await write(self, *arguments)
        if self.url.path.endswith(PLACE):
            trap.passed("request sent")

    async def watched_place(
        self: Portal, call: CallRequested, *, send_before: float = math.inf
    ) -> Outcome:
        report(DIALS, request_id=call.request_id)
        try:
            outcome = await place(self, call, send_before=send_before)
        except asyncio.CancelledError:
            report(CANCELLED)
            raise
        trap.passed("answer read")
        return outcome

    aiohttp.ClientRequest.write_bytes = watched_write  # type: ignore[assignment,method-assign]
    Portal.place = watched_place  # type: ignore[method-assign]


def watch_publisher(trap: Trap) -> None:
    publish = Publisher.publish

    async def watched(
        self: Publisher,
        message: aio_pika.Message,
        exchange: str,
        routing_key: str,
        *,
        mandatory: bool | None = None,
    ) -> None:
        begun = time.monotonic()
        try:
            await publish(self, message, exchange, routing_key, mandatory=mandatory)
        finally:
            took_s = time.monotonic() - begun
            if took_s > DEADLINE_S + GRACE_S:
                report(SLOW_PUBLISH, took_s=took_s)
        if exchange or routing_key.endswith(".dlq"):
            by_answer = b'"confirmed_by":"answer"' in message.body
            trap.passed("published", message.correlation_id if by_answer else None)

    Publisher.publish = watched  # type: ignore[method-assign]


def slow_down_ledger(delay_s: float) -> None:
    """Let each reading of an entry take so long, as at a busy database."""
    get = Ledger.get

    async def slow(self: Ledger, request_id: str) -> Entry | None:
        await asyncio.sleep(delay_s)
        return await get(self, request_id)

    Ledger.get = slow  # type: ignore[method-assign]


def report_tasks() -> None:
    """Say once a second how many tasks there are."""
    run = App.run

    async def tell() -> None:
        while True:
            report(TASKS, number=len(asyncio.all_tasks()))
            await asyncio.sleep(1)

    async def watched(self: App, wait_s: float = math.inf) -> None:
        telling = asyncio.create_task(tell())
        try:
            await run(self, wait_s)
        finally:
            telling.cancel()

    App.run = watched  # type: ignore[method-assign]


def set_wall_clock(by: Path) -> None:
    """Let this process's wall clock be ahead by so many seconds as the file *by* says now."""
    right = time.time
    time.time = lambda: right() + float(by.read_text())


def report(event: str, **fields: float | str | None) -> None:
    line = {"event": event, "timestamp": datetime.now(UTC).isoformat(), **fields}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


@click.command()
@click.option("--at", "point", type=click.Choice(POINTS), help="Where; nowhere if unsaid.")
@click.option("--passing", default=1, help="At which passing.")
@click.option("--signal", "name", default="SIGKILL", help="What to send this process there.")
@click.option("--slow-ledger", "ledger_s", default=0.0, help="Seconds to read one entry.")
@click.option("--wall-clock", type=Path, help="A file that says how far it is ahead, in seconds.")
@click.option("--report-tasks", "tells_tasks", is_flag=True, help="Say how many tasks there are.")
@click.option("--probe-after", "probe_s", type=float, help="The breaker's first wait, in seconds.")
def main(  # one for each fault
    point: str | None,
    passing: int,
    name: str,
    ledger_s: float,
    wall_clock: Path | None,
    probe_s: float | None,
    *,
    tells_tasks: bool,
) -> None:
    """Run the worker, and send it a signal at a named point."""
    if ledger_s:
        slow_down_ledger(ledger_s)
    if tells_tasks:
        report_tasks()
    if wall_clock is not None:
        set_wall_clock(wall_clock)
    if probe_s is not None:
        circuit_breaker.OTHER_WAITS_S = circuit_breaker.CONNECTION_WAITS_S = (probe_s, 4 * probe_s)
    trap = Trap(point, passing, signal.Signals[name])
    watch_ledger(trap)
    watch_portal(trap)
    watch_publisher(trap)
    cli.main(["run"])


if __name__ == "__main__":
    main()

"""The steps of a stop: each has a limit, since client libraries may never end."""

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any

import structlog

END_TRIES = 4
END_S = 0.25
LAST_S = 0.5
"""How long a stopped process may take to end; see `consumer.cli.run`."""

log = structlog.get_logger(__name__)


async def within(limit_s: float, part: str, step: Coroutine[Any, Any, object]) -> bool:
    """Take a step of the stop, and tell whether it went well; go on after *limit_s* in any case."""
    task = asyncio.create_task(step)
    await asyncio.wait([task], timeout=limit_s)
    if not task.done():
        task.cancel()  # client libraries may swallow that, so nothing waits for it
        log.info("stop.cut_short", part=part, limit_s=limit_s)
        return False
    if task.cancelled() or task.exception() is not None:
        error = None if task.cancelled() else task.exception()
        log.info("stop.cut_short", part=part, error=type(error).__name__)
        return False
    return True


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel *tasks* until they have ended: a client library may swallow a cancellation."""
    pending = set(tasks)
    for _ in range(END_TRIES):
        if not pending:
            return
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=END_S)


async def until(stop: asyncio.Event, *coroutines: Coroutine[Any, Any, object]) -> None:
    """Run *coroutines* until one is done, or *stop* is set."""
    tasks = [asyncio.create_task(each) for each in (*coroutines, stop.wait())]
    try:
        done, _ = await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
        for task in done:
            task.result()
    finally:
        await end(tasks)

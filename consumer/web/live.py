"""Jobs; and what a page shows while it changes, sent as it is, over server-sent events."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from consumer.errors import OperatorError
from consumer.operations.jobs import Job, proof_of
from consumer.operations.rights import see_may_look, see_may_send_back, see_may_still_look
from consumer.web.visit import Visit, go_to

EVERY_S = 1.5
MOST_STREAMS = 8
"""Of one session."""


def live(part: Callable[[Visit], Awaitable[str]]) -> Callable[[Visit], Awaitable[Response]]:
    """Serve a part of a page anew, from time to time, until its session has ended."""

    async def serve(visit: Visit) -> Response:
        if visit.session.streams >= MOST_STREAMS:
            raise HTTPException(429)
        return StreamingResponse(_events(visit, part), media_type="text/event-stream")

    return serve


async def _events(visit: Visit, part: Callable[[Visit], Awaitable[str]]) -> AsyncIterator[str]:
    if visit.session.streams >= MOST_STREAMS:  # many were asked for at once
        return
    visit.session.streams += 1
    try:
        while visit.desk.sessions.find(visit.session.token, used=False) is not None:
            await see_may_still_look(visit.settings)
            html = await part(visit)
            yield "".join(f"data: {line}\n" for line in html.splitlines()) + "\n"
            with suppress(TimeoutError):
                await asyncio.wait_for(visit.session.ended.wait(), EVERY_S)
    except (OperatorError, HTTPException):
        pass
    finally:
        visit.session.streams -= 1
    yield "event: over\ndata:\n\n"


def _job(visit: Visit) -> Job:
    if (job := visit.desk.jobs.find(visit.word)) is None:
        raise HTTPException(404)
    return job


async def job(visit: Visit) -> Response:
    """Show how far a job is, and once it is over what its requests came to."""
    found = _job(visit)
    proof = await proof_of(visit.settings, found, visit.desk.looking)
    return visit.page("job", job=found, proof=proof)


async def job_live(visit: Visit) -> str:
    """Write the part of it that changes."""
    found = _job(visit)
    return visit.write("job_live", job=found, proof=await proof_of(visit.settings, found))


async def stop_job(visit: Visit) -> Response:
    """Stop a job, whoever began it: it takes the right to begin it."""
    found = _job(visit)
    await (see_may_send_back if found.verb == "replayed" else see_may_look)(visit.settings)
    found.stop(visit.session.who)
    return go_to(f"/jobs/{visit.word}")

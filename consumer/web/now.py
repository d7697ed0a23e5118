"""How things are now, what waits, what is blocked."""

from starlette.responses import Response

from consumer.ledger.workers import roles
from consumer.operations.controls import existing_ledger
from consumer.operations.last_day import last_day
from consumer.operations.status import status_of
from consumer.web.visit import Visit

SHOWN = 200


async def _told(visit: Visit) -> dict[str, object]:
    found = await status_of(visit.settings)
    hours = [] if found.ledger_trouble else await last_day(visit.settings)
    most = max([hour.started + hour.failed for hour in hours] + [1])
    workers = list(zip(found.workers, roles(found.workers), strict=True))
    return {"now": found, "hours": hours, "most": most, "workers": workers}


async def now(visit: Visit) -> Response:
    """Show how things are."""
    return visit.page("now", **await _told(visit))


async def now_live(visit: Visit) -> str:
    """Write the part of it that changes."""
    return visit.write("now_live", **await _told(visit))


async def waiting(visit: Visit) -> Response:
    """Show what waits for a later moment."""
    async with existing_ledger(visit.settings) as ledger:
        entries = await ledger.search.next_due(SHOWN)
    return visit.page("waiting", entries=entries, now=await status_of(visit.settings))


async def blocks(visit: Visit) -> Response:
    """Show the blocks in force."""
    async with existing_ledger(visit.settings) as ledger:
        return visit.page("blocks", blocks=(await ledger.controls.read()).blocks)

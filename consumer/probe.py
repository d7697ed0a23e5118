"""A harmless question to the portal: does the fault for which the worker is paused still show?"""

import structlog

from consumer.bitrix24.access import NoAccess
from consumer.bitrix24.portal import Portal
from consumer.bitrix24.responses import read_response
from consumer.decision import Refused, Unavailable
from consumer.limits.fault import Kind
from consumer.limits.rate_limiter import RateLimiter

METHOD = "server.time"

log = structlog.get_logger(__name__)


class Probe:
    """Asks the portal for the time, within the rate limit."""

    def __init__(self, portal: Portal, rate_limiter: RateLimiter) -> None:
        self._portal = portal
        self._rate_limiter = rate_limiter

    async def still_shows(self, kind: Kind, codes: set[str]) -> bool:
        """Tell whether the portal still answers with a fault of *kind*, by one of *codes*."""
        await self._rate_limiter.acquire()
        try:
            answer = await self._portal.ask(METHOD)
        except NoAccess:
            return True
        if answer is None:
            return True
        status, body = answer
        if kind == "doubt":
            return status in {502, 504}
        try:
            outcome = read_response(status, body)
        except Exception:
            # It is an answer, and none of the codes was read in it: one call will tell.
            log.exception("probe.bug")
            return False
        return isinstance(outcome, Refused | Unavailable) and outcome.failure.code.upper() in codes

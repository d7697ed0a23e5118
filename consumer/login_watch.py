"""Sees while the worker runs whether somebody must log in, and whether somebody has."""

import asyncio

import structlog

from consumer.bitrix24.access import NoAccess
from consumer.decision import Refused
from consumer.limits.circuit_breaker import CircuitBreaker
from consumer.oauth import OAuth

LOOK_S = 2.0

log = structlog.get_logger(__name__)


class LoginWatch:
    """Reads the tokens of the ledger again and again.

    Args:
        oauth: The way in.
        breaker: Opened while there are no tokens that can be used; told of new ones.
    """

    def __init__(self, oauth: OAuth, breaker: CircuitBreaker) -> None:
        self._oauth = oauth
        self._breaker = breaker
        self._missing = ""
        self._generation = 0

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Look once."""
        try:
            held = await self._oauth.read()
        except NoAccess as error:
            if isinstance(error.outcome, Refused):
                self._note_missing(error.outcome)
            return
        self._missing = ""
        if held.generation != self._generation:
            if self._generation:
                log.info("tokens.renewed", generation=held.generation)
            self._generation = held.generation
            self._breaker.probe_now()

    def _note_missing(self, refused: Refused) -> None:
        failure = refused.failure
        if failure.code != self._missing:
            self._missing = failure.code
            log.error("tokens.missing", code=failure.code, advice=failure.description)
        self._breaker.wait_for_login(failure.code)

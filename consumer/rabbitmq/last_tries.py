"""How long what is being published may go on trying, once the worker is to stop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LAST_TRIES_S = 2.0
"""How long a message may try to get through once the worker is to stop."""


class LastTries:
    """Limits the tries of all messages as soon as the worker is to stop."""

    def __init__(self) -> None:
        self._limits: set[asyncio.Timeout] = set()
        self._stopping = False

    def begin(self) -> None:
        """Let no message wait longer than `LAST_TRIES_S` from now on."""
        self._stopping = True
        for limit in self._limits:
            limit.reschedule(asyncio.get_running_loop().time() + LAST_TRIES_S)

    @asynccontextmanager
    async def limited(self) -> AsyncIterator[None]:
        """Try without a limit until `begin` is called.

        Raises:
            CancelledError: The last tries are over.
        """
        limit = asyncio.timeout(LAST_TRIES_S if self._stopping else None)
        self._limits.add(limit)
        try:
            async with limit:
                yield
        except TimeoutError:
            raise asyncio.CancelledError from None
        finally:
            self._limits.discard(limit)

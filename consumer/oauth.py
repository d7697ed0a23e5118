"""The way in by OAuth: tokens that all workers of a ledger share, and renew once for all."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from consumer.bitrix24.access import Credential, NoAccess
from consumer.bitrix24.errors import NO_TOKENS, NOT_LOGGED_IN, OTHER_SECRET, TOKENS_UNREADABLE
from consumer.bitrix24.known_words import SERVER_AWAY, TOKENS_AWAY
from consumer.bitrix24.seal import Seal, Unreadable
from consumer.bitrix24.token_server import ANSWER_WITHIN_S, TokenServer
from consumer.bitrix24.tokens import Tokens, login_needed
from consumer.decision import Failure, Refused, Unavailable
from consumer.ledger import LedgerDown
from consumer.ledger.tokens import TokenRow, TokenRows

SEND_WITHIN_S = 5.0
"""A process that was frozen for longer must not use a token that another may have used since."""
RENEWAL_LASTS_S = SEND_WITHIN_S + ANSWER_WITHIN_S + 5.0
"""For how long another process's renewal is believed to go on."""
LOOK_S = 0.05
CLOSE_WITHIN_S = 30.0
WRITE_AGAIN_S = 0.5
SECRETS_KEPT = 8


@dataclass(frozen=True, slots=True)
class Held:
    """Tokens, and which ones they are: *generation* grows with each login and each renewal."""

    generation: int
    tokens: Tokens

    def credential(self, *, renewable: bool = True) -> Credential:
        """Return what a request must show."""
        return Credential({"auth": self.tokens.access}, renewable)


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of the ledger, opened."""

    row: TokenRow
    held: Held


@dataclass(slots=True)
class Watched:
    """Another process's renewal, and since when it is seen, by the monotonic clock."""

    who: str = ""
    since: float = field(default_factory=time.monotonic)

    def is_dead(self, who: str) -> bool:
        """Tell whether *who* has been seen renewing for longer than that may last."""
        if who != self.who:
            self.who, self.since = who, time.monotonic()
        return time.monotonic() - self.since > RENEWAL_LASTS_S


class OAuth:
    """See `Access`. Clocks do not matter: tokens are renewed when the portal says they are over.

    Args:
        url: The portal, up to where the names of methods are appended.
        rows: Where the tokens are.
        seal: Opens them.
        server: Renews them.
        client_secret: Must not be repeated.
    """

    def __init__(
        self, url: str, rows: TokenRows, seal: Seal, server: TokenServer, client_secret: str
    ) -> None:
        self.url = url
        self._rows = rows
        self._seal = seal
        self._server = server
        self._client_secret = client_secret
        self._seen: deque[str] = deque(maxlen=SECRETS_KEPT)
        self._held: Held | None = None
        self._renewal: asyncio.Task[Credential] | None = None
        self._lease = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return what must not be repeated: the client secret, and the latest tokens."""
        return (self._client_secret, *self._seen)

    async def credential(self) -> Credential:
        """Return the access token; where none was usable, as the ledger has it by now.

        Raises:
            NoAccess: Somebody must log in, or the ledger cannot be read.
        """
        held = self._held or await self.read()
        return held.credential()

    async def read(self) -> Held:
        """Take over what the ledger holds.

        Raises:
            NoAccess: No tokens that can be used, or the ledger cannot be read.
        """
        return (await self._read()).held

    async def renew(self, refused: Credential) -> Credential:
        """Return another access token than the *refused* one; who asks meanwhile shares it.

        Raises:
            NoAccess: The authorisation server refuses, or is away.
        """
        held = self._held
        if held is not None and held.credential() != refused:
            return held.credential(renewable=False)
        if self._renewal is None or self._renewal.done():
            # Nobody's task: whoever waits may give up, a rotated token must still be kept.
            self._renewal = asyncio.create_task(self._renew(refused))
            self._renewal.add_done_callback(_forget_error)
        return await asyncio.shield(self._renewal)

    async def close(self) -> None:
        """Let a renewal end."""
        if self._renewal is not None:
            await asyncio.wait({self._renewal}, timeout=CLOSE_WITHIN_S)

    async def _renew(self, refused: Credential) -> Credential:
        watched = Watched()
        while True:
            stored = await self._read()
            if stored.held.credential() != refused:
                # Another process has renewed it; how long ago, nobody knows.
                return stored.held.credential()
            if stored.row.renewing in {"", self._lease} or watched.is_dead(stored.row.renewing):
                if await self._begin(stored.row):
                    return await self._refresh(stored.held)
            else:
                await asyncio.sleep(LOOK_S)

    async def _begin(self, row: TokenRow) -> bool:
        self._lease = uuid4().hex
        with _ledger_errors():
            return await self._rows.begin_renewal(row, self._lease)

    async def _refresh(self, held: Held) -> Credential:
        answer = await self._server.refresh(held.tokens, time.monotonic() + SEND_WITHIN_S)
        if isinstance(answer, Tokens):
            self._note_secrets(answer)
            self._held = await self._keep(held.generation, answer)
            return self._held.credential(renewable=False)
        lasting = isinstance(answer, Refused) and answer.scope == "login"
        if lasting:
            self._held = None
        with _ledger_errors():
            code = answer.failure.code if lasting else ""
            ours = await self._rows.give_up(held.generation, self._lease, code)
        if lasting and not ours:  # somebody has logged in meanwhile
            return (await self.read()).credential()
        raise NoAccess(answer)

    async def _keep(self, generation: int, tokens: Tokens) -> Held:
        """Write new tokens, however long that takes: nobody else has them.

        Raises:
            NoAccess: A login came in between, and its tokens cannot be used.
        """
        sealed = self._seal.close(tokens)
        while True:
            try:
                if await self._rows.renew(generation, sealed):
                    return Held(generation + 1, tokens)
                break
            except LedgerDown:
                await asyncio.sleep(WRITE_AGAIN_S)
        return await self.read()

    async def _read(self) -> Stored:
        with _ledger_errors():
            row = await self._rows.read()
        try:
            stored = self._open(row)
        except NoAccess:
            self._held = None
            raise
        self._held = stored.held
        return stored

    def _open(self, row: TokenRow | None) -> Stored:
        if row is None:
            raise NoAccess(login_needed(NOT_LOGGED_IN, NO_TOKENS))
        if row.refused:
            text = f"{SERVER_AWAY} has refused to renew the tokens"
            raise NoAccess(login_needed(row.refused, text))
        try:
            tokens = self._seal.open(row.sealed)
        except Unreadable:
            raise NoAccess(login_needed(TOKENS_UNREADABLE, OTHER_SECRET)) from None
        self._note_secrets(tokens)
        return Stored(row, Held(row.generation, tokens))

    def _note_secrets(self, tokens: Tokens) -> None:
        self._seen.extend(s for s in (tokens.access, tokens.refresh) if s not in self._seen)


@contextmanager
def _ledger_errors() -> Iterator[None]:
    try:
        yield
    except LedgerDown as error:
        raise NoAccess(Unavailable(Failure("LEDGER_DOWN", TOKENS_AWAY))) from error


def _forget_error(task: asyncio.Task[Credential]) -> None:
    """Take note of an error that nobody may be waiting for any more."""
    if not task.cancelled():
        task.exception()

"""Sealed tokens, one row for a portal, which all workers of a ledger share.

A refresh token is good for one exchange. So a row says who is exchanging it, and counts how often
it was.
"""

from dataclasses import dataclass, field

from consumer.ledger.store import Store


@dataclass(frozen=True, slots=True)
class TokenRow:
    """What the ledger holds for a portal.

    Attributes:
        generation: Grows with each login and each renewal.
        sealed: The tokens.
        renewing: Who is renewing them now; empty for nobody.
        refused: The code with which they were refused for good; empty while they are usable.
    """

    generation: int
    sealed: bytes = field(repr=False)
    renewing: str
    refused: str


class TokenRows:
    """The row of one portal. Every method raises `LedgerDown` where the store cannot be used.

    Args:
        store: Where it is.
        portal: The key.
    """

    def __init__(self, store: Store, portal: str) -> None:
        self._store = store
        self._portal = portal

    async def read(self) -> TokenRow | None:
        """Return the row, if there is one."""
        rows = await self._store.fetch(
            "SELECT generation, sealed, renewing, refused FROM tokens WHERE portal = $1",
            self._portal,
        )
        return TokenRow(rows[0][0], bytes(rows[0][1]), *rows[0][2:]) if rows else None

    async def log_in(self, sealed: bytes) -> None:
        """Write the tokens of a login over whatever was there."""
        await self._store.execute(
            "INSERT INTO tokens VALUES ($1, 1, $2, '', '') ON CONFLICT (portal) DO UPDATE SET"
            " generation = tokens.generation + 1, sealed = $2, renewing = '', refused = ''",
            self._portal,
            sealed,
        )

    async def begin_renewal(self, row: TokenRow, who: str) -> bool:
        """Note that *who* renews the tokens of *row*; tell whether the row was still like that."""
        done = await self._store.execute(
            "UPDATE tokens SET renewing = $1"
            " WHERE portal = $2 AND generation = $3 AND renewing = $4 AND refused = ''",
            who,
            self._portal,
            row.generation,
            row.renewing,
        )
        return done == 1

    async def renew(self, generation: int, sealed: bytes) -> bool:
        """Write new tokens over those of *generation*; tell whether they were still there.

        Whoever has new tokens may write them, even if another has begun to renew since: the old
        ones are worth nothing any more.
        """
        done = await self._store.execute(
            "UPDATE tokens SET generation = generation + 1, sealed = $1, renewing = '',"
            " refused = '' WHERE portal = $2 AND generation = $3",
            sealed,
            self._portal,
            generation,
        )
        return done == 1

    async def give_up(self, generation: int, who: str, refused: str = "") -> bool:
        """Note that *who* did not renew them, and with which code that was refused for good.

        Returns:
            Whether nobody else has written since.
        """
        done = await self._store.execute(
            "UPDATE tokens SET renewing = '', refused = $1"
            " WHERE portal = $2 AND generation = $3 AND renewing = $4",
            refused,
            self._portal,
            generation,
            who,
        )
        return done == 1

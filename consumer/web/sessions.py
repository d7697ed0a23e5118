"""Who is signed in: in the memory of this process alone, passwords too."""

import asyncio
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from time import monotonic

from starlette.exceptions import HTTPException

from consumer.operations.survey import Selection, Survey
from consumer.rabbitmq.connection import forget
from consumer.settings import Settings

MOST_SESSIONS = 200
MOST_OF_ONE = 20
"""Sessions of one user, who else could end those of all others by signing in again and again."""
MOST_KEPT = 12
"""Things one session remembers; each may hold dead letters of `survey.MOST_BYTES`."""
LONGEST_S = 12 * 3600.0


@dataclass(eq=False)
class Session:
    """One person at one browser.

    Attributes:
        settings: Those of the process, with the broker's user that signed in.
        csrf: What every form of this session sends back.
        kept: What its pages are about, by words that tell nothing: no id is in an address.
        ended: Set once it has ended.
    """

    user: str
    settings: Settings = field(repr=False)
    token: str = field(default_factory=secrets.token_urlsafe, repr=False)
    csrf: str = field(default_factory=secrets.token_urlsafe, repr=False)
    began_at: float = field(default_factory=monotonic)
    seen_at: float = field(default_factory=monotonic)
    kept: OrderedDict[str, object] = field(default_factory=OrderedDict, repr=False)
    streams: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def see_own(self, csrf: str) -> None:
        """See that a form is one of this session.

        Raises:
            HTTPException: It is not.
        """
        if not secrets.compare_digest(csrf.encode(), self.csrf.encode()):
            raise HTTPException(403)

    @property
    def who(self) -> str:
        """What the ledger and the log call this person."""
        return f"{self.user} (web)"

    def keep(self, thing: object, word: str = "") -> str:
        """Remember something, and return the word for it; what was known by it is forgotten."""
        word = word or secrets.token_urlsafe(9)
        _stop(self.kept.pop(word, None))
        self.kept[word] = thing
        if len(self.kept) > MOST_KEPT:
            _stop(self.kept.popitem(last=False)[1])
        return word


def _stop(thing: object) -> None:
    if isinstance(thing, Survey | Selection):
        thing.stop()


class Sessions:
    """All sessions; one that is not used for *idle_s* seconds has ended."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._open: OrderedDict[str, Session] = OrderedDict()

    def add(self, session: Session) -> None:
        """Begin a session; where there are too many, the oldest ends: of that user, or of all."""
        self._open[session.token] = session
        every = list(self._open.values())
        own = [each for each in every if each.user == session.user]
        if len(own) > MOST_OF_ONE or len(every) > MOST_SESSIONS:
            self.end((own if len(own) > MOST_OF_ONE else every)[0])

    def find(self, token: str, *, used: bool = True) -> Session | None:
        """Return the session of a token, if it has not ended; *used* lets it live on."""
        now = monotonic()
        for session in list(self._open.values()):
            if now - session.seen_at > self._idle_s or now - session.began_at > LONGEST_S:
                self.end(session)
        found = self._open.get(token)
        if found is not None and used:
            found.seen_at = now
        return found

    def end(self, session: Session) -> None:
        """End a session, and forget its password."""
        self._open.pop(session.token, None)
        session.ended.set()
        for thing in session.kept.values():
            _stop(thing)
        session.kept.clear()
        forget(session.settings.needed("rabbitmq_url"))

    def end_all(self) -> None:
        """End all sessions, and what is sent to them."""
        for session in list(self._open.values()):
            self.end(session)

"""Who is signed in: in the memory of this process alone, passwords too."""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from consumer.rabbitmq.connection import forget
from consumer.settings import Settings

MOST_SESSIONS = 200
MOST_KEPT = 24
"""Things one session remembers; each may hold some thousands of dead letters."""
LONGEST_S = 12 * 3600.0
SLOWEST_S = {"client": 30.0, "user": 2.0}
"""Between two attempts to sign in; who guesses a user's password must not lock the user out."""
MOST_ATTEMPTS = 10_000


@dataclass(eq=False)
class Session:
    """One person at one browser.

    Attributes:
        settings: Those of the process, with the broker's user that signed in.
        csrf: What every form of this session sends back.
        kept: What its pages are about, by words that tell nothing: no id is in an address.
    """

    user: str
    settings: Settings = field(repr=False)
    token: str = field(default_factory=secrets.token_urlsafe, repr=False)
    csrf: str = field(default_factory=secrets.token_urlsafe, repr=False)
    began_at: float = field(default_factory=monotonic)
    seen_at: float = field(default_factory=monotonic)
    kept: OrderedDict[str, object] = field(default_factory=OrderedDict, repr=False)
    streams: int = 0

    @property
    def who(self) -> str:
        """What the ledger and the log call this person."""
        return f"{self.user} (web)"

    def keep(self, thing: object) -> str:
        """Remember something, and return the word for it."""
        word = secrets.token_urlsafe(9)
        self.kept[word] = thing
        if len(self.kept) > MOST_KEPT:
            self.kept.popitem(last=False)
        return word


class Sessions:
    """All sessions; one that is not used for *idle_s* seconds has ended."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._open: OrderedDict[str, Session] = OrderedDict()

    def add(self, session: Session) -> None:
        """Begin a session; where there are too many, the oldest ends."""
        self._open[session.token] = session
        if len(self._open) > MOST_SESSIONS:
            self.end(next(iter(self._open.values())))

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
        session.kept.clear()
        forget(session.settings.needed("rabbitmq_url"))


class Attempts:
    """Slows down who tries passwords: the wait doubles for the client, and for the user."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def begin(self, **tried: str) -> float:
        """Note an attempt before it is made; return for how many seconds it has to wait."""
        now = self._clock()
        known = {key: self._failed.get(key, (0, now)) for key in tried.items()}
        if (wait_s := max(until for _, until in known.values()) - now) > 0:
            return wait_s
        for key, (count, _) in known.items():
            self._failed[key] = count + 1, now + min(2.0 ** min(count - 2, 9), SLOWEST_S[key[0]])
            self._failed.move_to_end(key)
        while len(self._failed) > MOST_ATTEMPTS:
            self._failed.popitem(last=False)
        return 0.0

    def succeeded(self, **tried: str) -> None:
        """Forget the failures of both."""
        for key in tried.items():
            self._failed.pop(key, None)

"""Sign in as a user of the broker, who may read the dead letters; guessing is slowed."""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

import structlog
from pydantic import SecretStr

from consumer.errors import OperatorError
from consumer.operations.rights import see_may_look
from consumer.rabbitmq.connection import forget
from consumer.rabbitmq.refusals import LoginRefused
from consumer.rabbitmq.rights import NotAllowed, signed_in_as
from consumer.settings import Settings

LONGEST = 255
SLOWEST_S = {"client": 30.0, "user": 2.0}
"""Between two attempts to sign in; who guesses a user's password must not lock the user out."""
MOST_ATTEMPTS = 10_000

log = structlog.get_logger(__name__)


class NotSignedIn(OperatorError):
    """Raised where somebody does not get in; *status* is HTTP's for it."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


async def signed_in(settings: Settings, user: str, password: str) -> Settings:
    """Return the settings with another user of the broker, if that lets it in.

    Raises:
        NotSignedIn: It does not.
    """
    readable = user.isprintable() and "\0" not in password  # that would part user and password
    # With no password aiormq would try "guest".
    if not (user and password and readable) or max(len(user), len(password)) > LONGEST:
        raise NotSignedIn("Write name and password of a user of the broker.", 400)
    url = signed_in_as(settings.needed("rabbitmq_url"), user, password)
    theirs = settings.model_copy(update={"rabbitmq_url": SecretStr(url)})
    try:
        await see_may_look(theirs)
    except OperatorError as error:
        forget(url)
        raise NotSignedIn(*_refusal(error)) from None
    return theirs


def _refusal(error: OperatorError) -> tuple[str, int]:
    match error:
        case LoginRefused():
            return "The broker refuses this name or this password.", 403
        case NotAllowed():
            return f"This user may not read the dead letters: {error}", 403
        case _:
            log.warning("web.broker_unavailable", reason=str(error))
            return "The broker cannot be asked now: the log of the pages says why.", 503


class Attempts:
    """Slows down who tries passwords: the wait doubles for the client, and for the user."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def begin(self, **tried: str) -> float:
        """Note an attempt before it is made; return for how many seconds it has to wait."""
        now = self._clock()
        keys = ((kind, tried_by[:LONGEST]) for kind, tried_by in tried.items())
        known = {key: self._failed.get(key, (0, now)) for key in keys}
        if (wait_s := max(until for _, until in known.values()) - now) > 0:
            return wait_s
        for key, (count, _) in known.items():
            self._failed[key] = count + 1, now + min(2.0 ** min(count - 2, 9), SLOWEST_S[key[0]])
            self._failed.move_to_end(key)
        while len(self._failed) > MOST_ATTEMPTS:
            self._failed.popitem(last=False)
        return 0.0

    def succeeded(self, *, user: str, client: str) -> None:
        """Forget the user's failures, and that the client had to wait.

        Not how often it failed: who has a password of his own may be guessing another's.
        """
        self._failed.pop(("user", user), None)
        count, _ = self._failed.pop(("client", client), (0, 0.0))
        if count > 1:
            self._failed["client", client] = count - 1, self._clock()

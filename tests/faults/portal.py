"""The portal of a scenario: the sandbox, with a memory for who was asked about whom."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

import uvicorn

from consumer.sandbox import NUMBERS, Answer, Number, SandboxPortal, Switches, create_app
from consumer.sandbox.replies import Reply
from consumer.sandbox.request import RestRequest
from tests.canary import SECRET, TEXT

CALL_S = 1.0
DIAL = "voximplant.infocall.startwithtext"
LOOK_UP = "voximplant.statistic.get"

_special = count()


def special_number(answer: Answer, times: int | None = None) -> str:
    """Return a number of its own that is answered with *answer*, the first *times* it is called."""
    number = f"+1202557{next(_special):04}"
    NUMBERS[number] = Number(number, answer.name, answer, times)
    return number


def answer_from_now_on(number: str, answer: Answer) -> None:
    NUMBERS[number] = Number(number, answer.name, answer)


def text_of(request_id: str) -> str:
    """Return what the request has spoken: it tells calls apart."""
    return f"{TEXT} Request {request_id}."


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came to the portal."""

    at: float
    method: str
    number: str


class WatchedPortal(SandboxPortal):
    """A sandbox that also remembers what it was asked, and in which order.

    Attributes:
        pages: What the next look-ups are answered with instead of the history, in turn.
    """

    def __init__(self) -> None:
        super().__init__(
            Switches(
                secret=SECRET, rate_per_s=0, call_duration_s=CALL_S, operating_s=0.001, hold_s=10
            )
        )
        self.asked: list[Asked] = []
        self.pages: list[Reply] = []

    def answer(self, request: RestRequest) -> Reply:
        wanted = request.params.get("FILTER")
        number = request.digits
        if isinstance(wanted, Mapping):
            number = str(wanted.get("%PHONE_NUMBER", ""))
        self.asked.append(Asked(time.time(), request.method, number))
        if request.method == LOOK_UP and self.pages:
            return self.pages.pop(0)
        return super().answer(request)

    def asked_about(self, number: str) -> list[str]:
        """Return the methods asked for *number*, in order."""
        tail = number[-10:]
        return [asked.method for asked in list(self.asked) if asked.number[-10:] == tail]

    def dialled_at(self, number: str) -> list[float]:
        """Return when it was asked to dial *number*, in Unix seconds."""
        tail = number[-10:]
        asked = [a for a in list(self.asked) if a.method == DIAL]
        return [a.at for a in asked if a.number[-10:] == tail]

    def dials_since(self, at: float) -> int:
        """Return how often it was asked to dial since then."""
        return sum(a.method == DIAL and a.at > at for a in list(self.asked))

    def phoned(self) -> Counter[str]:
        """Return how often each request's text was spoken."""
        return Counter(call.text for call in list(self.calls))

    def calls_between(self, begun: float, ended: float) -> int:
        return sum(begun < call.placed_at <= ended for call in list(self.calls))


@asynccontextmanager
async def served(portal: SandboxPortal) -> AsyncIterator[int]:
    """Serve *portal* from a thread, so that the scenarios do not slow it down; yield its port."""
    config = uvicorn.Config(
        create_app(portal),
        port=0,
        log_config=None,
        access_log=False,
        date_header=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    socket = config.bind_socket()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    try:
        yield socket.getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.to_thread(thread.join, 10)
        socket.close()

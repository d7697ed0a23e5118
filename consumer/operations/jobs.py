"""What takes longer than a page may: it can be watched, and stopped half-way."""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import structlog

from consumer.errors import OperatorError
from consumer.ledger import LedgerDown
from consumer.operations.dead_letter import DeadLetter
from consumer.operations.ledger_at_hand import ledger_at_hand
from consumer.operations.proof import total
from consumer.operations.reports import known_to_ledger, report_on
from consumer.settings import Settings

MOST = 50
"""Jobs that are remembered once they are over."""

log = structlog.get_logger(__name__)


class Work(Protocol):
    """What a job does; it tells of each dead letter that is done."""

    def __call__(self, *, done: Callable[[DeadLetter], None]) -> Awaitable[None]: ...


@dataclass(eq=False)
class Job:
    """A replay or a discard of the requests *ids*."""

    verb: Literal["replayed", "discarded"]
    who: str
    ids: Sequence[str]
    done: int = 0
    state: Literal["running", "done", "stopped", "failed"] = "running"
    error: str = ""
    stopped_by: str = ""
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def stop(self, by: str) -> None:
        """Stop it; what is done stays so."""
        if self.task is not None and self.state == "running":
            self.stopped_by = by
            self.task.cancel()

    def one_more(self, _: DeadLetter) -> None:
        """Count one that is done."""
        self.done += 1


class Jobs:
    """All jobs of this process, whoever began them."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Job] = OrderedDict()

    @property
    def running(self) -> dict[str, Job]:
        """Those that are under way, by their words."""
        return {word: job for word, job in self._known.items() if job.state == "running"}

    def find(self, word: str) -> Job | None:
        """Return a job by its word."""
        return self._known.get(word)

    def begin(self, job: Job, work: Work) -> str:
        """Begin a job, and return the word for it, which tells nothing."""
        over = [word for word, each in self._known.items() if each.state != "running"]
        for word in over[:-MOST]:
            del self._known[word]
        word = secrets.token_urlsafe(9)
        self._known[word] = job
        job.task = asyncio.create_task(_run(job, work))
        return word

    async def stop_all(self) -> None:
        """Stop all, and return once they have let go of what they held."""
        running = list(self.running.values())
        for job in running:
            job.stop("the end of the process")
        await asyncio.gather(*(job.task for job in running if job.task), return_exceptions=True)


async def _run(job: Job, work: Work) -> None:
    try:
        await work(done=job.one_more)
        job.state = "done"
    except asyncio.CancelledError:
        job.state = "stopped"
    except OperatorError as error:
        job.state, job.error = "failed", str(error)
    except Exception:
        log.exception("web.bug")
        job.state, job.error = "failed", "an unexpected error: see the log"
    finally:
        told: dict[str, object] = {"done": job.done, "planned": len(job.ids)}
        told |= {"stopped_by": job.stopped_by} if job.stopped_by else {}
        log.warning("job.ended", verb=job.verb, who=job.who, **told)


async def proof_of(settings: Settings, job: Job, looking: asyncio.Lock | None = None) -> str:
    """Say what the requests of a replay came to; empty where there is nothing to say yet.

    Args:
        settings: Where ledger and broker are.
        job: The replay.
        looking: Held while requests without an entry in the ledger are looked for among the dead
            letters; without it, or while it is held, they are not.
    """
    if job.verb != "replayed" or (job.state == "running" and not job.done):
        return ""
    try:
        async with ledger_at_hand(settings) as ledger:
            reports = await known_to_ledger(ledger, list(dict.fromkeys(job.ids)))
            unseen = [each.request_id for each in reports if each.entry is None]
            if unseen and job.state != "running" and looking is not None and not looking.locked():
                async with looking:
                    looked, _ = await report_on(settings, ledger, unseen)
                reports = [each for each in reports if each.entry is not None] + looked
    except LedgerDown as error:
        return f"cannot be told: {error}"
    return total(reports)

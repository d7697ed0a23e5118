"""Replicas that are kept running, as a platform would, and what is done to them."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGKILL

from tests.faults.bench import Bench, Host
from tests.faults.life import NEVER, POLL_S, Worker
from tests.faults.traffic import CONCURRENCY

DIALS_NOW_S = 1.0
KILLED = "killed"


@dataclass(frozen=True, slots=True)
class Blow:
    """Something done to a crowd, from *begun* to *over* (Unix seconds); *on* one worker, or all."""

    kind: str
    begun: float
    over: float
    on: Worker | None = None


class Slot:
    """Keeps one worker running on a host.

    Attributes:
        clock: The file by which its worker's wall clock can be set, if it can.
        spared: Whether it is not to be killed just now.
    """

    def __init__(
        self,
        bench: Bench,
        host: Host | None,
        settings: Mapping[str, float],
        clock: Path | None = None,
    ) -> None:
        self._bench = bench
        self._host = host
        self._settings = settings
        self._flags = ("--wall-clock", str(clock)) if clock else ()
        self.clock = clock
        self.worker: Worker | None = None
        self.spared = False

    @property
    def host(self) -> Host:
        return self._host or self._bench.home

    async def keep(self) -> None:
        while True:
            self.worker = await self._bench.start(
                on=self._host, settings=self._settings, flags=self._flags
            )
            await self.worker.process.wait()

    @property
    def is_up(self) -> bool:
        worker = self.worker
        return worker is not None and worker.runs and bool(worker.said("worker.ready"))

    @property
    def dialled_at(self) -> float:
        """When the worker it has now last dialled, 0 if it has not."""
        return max(self.worker.dials(), default=0.0) if self.worker is not None else 0.0


class Crowd:
    """Replicas, and all blows they were dealt."""

    def __init__(self, bench: Bench, slots: Sequence[Slot]) -> None:
        self.bench = bench
        self.slots = slots
        self.blows: list[Blow] = []

    def kill(self, slot: Slot) -> None:
        if slot.worker is not None:
            now = time.time()
            slot.worker.send(SIGKILL)
            self.deal(Blow(KILLED, now, now, slot.worker))

    def deal(self, blow: Blow) -> None:
        """Count a blow, and write it down beside the workers' logs."""
        self.blows.append(blow)
        begun, over = (
            datetime.fromtimestamp(at, UTC).isoformat() for at in (blow.begun, blow.over)
        )
        with (self.bench.folder / "blows.log").open("a") as log:
            log.write(f"{begun} to {over}: {blow.kind} {blow.on.log.stem if blow.on else ''}\n")

    async def kill_one_a_second(self) -> None:
        """Kill one of those that are up, as long as another is: on a slow machine none would be."""
        while True:
            await asyncio.sleep(1)
            up = [slot for slot in self.slots if slot.is_up and not slot.spared]
            if len(up) > 1:
                self.kill(self.bench.rng.choice(up))

    async def active(self, within_s: float = 30.0) -> Slot:
        """Return the one that dials, as soon as there is one."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            latest = max(self.slots, key=lambda slot: slot.dialled_at)
            if latest.is_up and time.time() - latest.dialled_at < DIALS_NOW_S:
                return latest
            await asyncio.sleep(POLL_S)
        raise AssertionError("none of them dials")

    def recoveries_s(self, kind: str) -> list[float]:
        """Return for each blow of a kind how long it took until another dialled.

        Counted from its begin where it fell on one worker, else from its end, or from when the
        portal took calls again. A blow after the last dial shows nothing; of the kills only those
        of the active one count, while enough was left to dial and nothing else was broken.
        """
        dials = sorted((at, n) for n, w in enumerate(self.bench.workers) for at in w.dials())
        recoveries = []
        for blow in [blow for blow in self.blows if blow.kind == kind]:
            since = self._unblocked(blow.begun if blow.on else blow.over)
            before = [n for at, n in dials if at <= since]
            resumed = next(
                (at for at, n in dials if at > since and self.bench.workers[n] is not blow.on),
                NEVER,
            )
            if kind == KILLED and (
                not before
                or self.bench.workers[before[-1]] is not blow.on
                or len(before) > len(self.bench.ids) - 3 * CONCURRENCY
                or self._broken(since, resumed)
            ):
                continue
            if kind == KILLED or resumed < NEVER:  # else the account tells whether more was to dial
                recoveries.append(resumed - since)
        return recoveries

    def _unblocked(self, since: float) -> float:
        """Return when the portal takes calls, at the earliest *since*."""
        blocks = [block for worker in self.bench.workers for block in worker.blocks()]
        return max([over for begun, over in blocks if begun <= since < over], default=since)

    def _broken(self, since: float, until: float) -> bool:
        return any(
            blow.kind != KILLED and blow.begun <= until and blow.over >= since
            for blow in self.blows
        )


@asynccontextmanager
async def crowd_of(
    bench: Bench,
    settings: Mapping[str, float],
    *,
    hosts: int = 0,
    heartbeat_s: int | None = None,
    clocks: bool = False,
) -> AsyncIterator[Crowd]:
    """Keep three replicas running: on so many *hosts* of their own, or all at home.

    With *clocks* each has a clock that can be set.
    """
    async with AsyncExitStack() as stack:
        own: list[Host | None] = [
            await stack.enter_async_context(bench.host(late=True, heartbeat_s=heartbeat_s))
            for _ in range(hosts)
        ]
        slots = [
            Slot(bench, host, settings, _clock(bench, n) if clocks else None)
            for n, host in enumerate(own or [None] * 3)
        ]
        keeping = [asyncio.create_task(slot.keep()) for slot in slots]
        try:
            yield Crowd(bench, slots)
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
            await bench.stop_all()


def _clock(bench: Bench, number: int) -> Path:
    """Make the file that sets a worker's clock; it is right at first."""
    clock = bench.folder / f"clock-{number}"
    clock.write_text("0")
    return clock

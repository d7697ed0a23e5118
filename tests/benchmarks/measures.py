"""The measures: what is run, how often, and what is taken down. What it means is in `results`."""

import asyncio
import re
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import urljoin

import httpx

from tests.benchmarks.api import ROOT
from tests.benchmarks.stage import Run, Stage, free_port, until_ready
from tests.benchmarks.subjects import BY_HAND, OURS, SUBJECTS, Subject, request_id_in

RATES = (2, 5, 50)
"""The portal's limits, ordinary and Enterprise, and one that no portal allows."""
PACE = 2
INTERVAL_S = 0.55
"""Between publishes when latency is measured: a little under the pace, so that none must wait."""
WARM_UP_S = 2.0
SANDBOX_POLL_S = 0.5
PIPELINED = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """How often and for how long.

    Attributes:
        calls: How many calls a run places, by concurrency.
        samples: Latencies taken in each round.
        window_s: For how long the share of the allowed rate is watched.
        starts: How often the worker is started.
        waiting: How many requests wait, from few to many.
        settled: How many requests a large ledger knows.
        queued: How many wait then.
    """

    rounds: int = 7
    calls: dict[int, int] = field(default_factory=lambda: {1: 400, 10: 1000, 50: 1000})
    samples: int = 15
    window_s: int = 60
    starts: int = 10
    waiting: tuple[int, int] = (1_000, 100_000)
    settled: int = 10_000_000
    queued: int = 1_000_000

    def quick(self) -> "Plan":
        """Return a plan that shows whether all of it works."""
        fewer = {concurrency: calls // 3 for concurrency, calls in self.calls.items()}
        return Plan(self.rounds, fewer, 5, 10, 3, (1_000, 10_000), 100_000, 10_000)


@dataclass(frozen=True, slots=True)
class Share:
    """What was made of the allowed rate: 1 is all of it; and how often the portal refused."""

    rate_per_s: int
    share: float
    refused: int


Throughput = dict[int, dict[str, list[Run]]]


def in_turn(subjects: Sequence[Subject], rounds: int) -> Iterator[list[Subject]]:
    """Yield the order of each round: everyone is first, and last, as often as the others."""
    for n in range(rounds):
        first = n % len(subjects)
        yield [*subjects[first:], *subjects[:first]]


async def throughput(stage: Stage, plan: Plan) -> Throughput:
    """Measure calls a second, and what they cost, of everyone at every concurrency."""
    runs: Throughput = {c: {s.name: [] for s in SUBJECTS} for c in plan.calls}
    for order in in_turn(SUBJECTS, plan.rounds):
        for concurrency, calls in plan.calls.items():
            for subject in order:
                run = await stage.run(subject, calls, concurrency)
                runs[concurrency][subject.name].append(run)
    return runs


async def with_postgres(stage: Stage, plan: Plan, url: str) -> Throughput:
    """Measure the same with our ledger in PostgreSQL, beside the worker written by hand."""
    runs: Throughput = {c: {OURS.name: [], BY_HAND.name: []} for c in plan.calls}
    for order in in_turn((OURS, BY_HAND), plan.rounds):
        for concurrency, calls in plan.calls.items():
            for subject in order:
                run = await stage.run(subject, calls, concurrency, settings={"ledger_url": url})
                runs[concurrency][subject.name].append(run)
    return runs


async def latency(stage: Stage, plan: Plan) -> dict[str, list[list[float]]]:
    """Measure seconds from a publish to the API's call, where nothing need wait; a list a round."""
    taken: dict[str, list[list[float]]] = {s.name: [] for s in (OURS, BY_HAND)}
    for order in in_turn((OURS, BY_HAND), plan.rounds):
        for subject in order:
            taken[subject.name].append(await _latencies(stage, subject, plan.samples))
    return taken


async def _latencies(stage: Stage, subject: Subject, samples: int) -> list[float]:
    ids = [f"r-{n}" for n in range(samples)]
    published: dict[str, float] = {}
    async with stage.queues(subject) as names:
        await stage.api.expect(1 + samples)
        async with stage.working(subject, names, 10, {"rate_per_s": PACE}):
            await stage.publish(subject, names, ["warm-up"])
            async with asyncio.timeout(60):
                await stage.api.began()
            await asyncio.sleep(WARM_UP_S)  # the pace begins with no allowance
            for request_id in ids:
                published[request_id] = time.monotonic()
                await stage.publish(subject, names, [request_id])
                await asyncio.sleep(INTERVAL_S)
            async with asyncio.timeout(60):
                calls = await stage.api.all_calls()
    called = {request_id_in(text): at for at, text in calls}
    return [called[request_id] - published[request_id] for request_id in ids]


async def shares(stage: Stage, plan: Plan) -> list[Share]:
    """Measure what is made of each rate that a strict portal allows; all at once, each is slow."""
    async with asyncio.TaskGroup() as group:
        watched = [group.create_task(_share(stage, rate, plan.window_s)) for rate in RATES]
    return [task.result() for task in watched]


async def _share(stage: Stage, rate: int, window_s: int) -> Share:
    strict = {"rate_per_s": rate, "threshold": 25 * rate, "operating_s": 0}
    async with _sandbox() as url, httpx.AsyncClient(trust_env=False) as portal:
        (await portal.patch(urljoin(url, "/sandbox"), json=strict)).raise_for_status()
        async with stage.queues(OURS) as names:
            enough = rate * (window_s + 5)
            await stage.publish(OURS, names, (f"r-{n}" for n in range(enough)))
            settings = {"bitrix24_url": url, "rate_per_s": rate}
            async with stage.working(OURS, names, 10, settings):
                tally = urljoin(url, "/sandbox/requests")
                async with asyncio.timeout(60):
                    while not (await portal.get(tally)).json()["arrivals"]:  # noqa: ASYNC110
                        await asyncio.sleep(SANDBOX_POLL_S)
                await asyncio.sleep(window_s + 1)
                seen = (await portal.get(tally)).json()
    first = seen["arrivals"][0]
    # The window begins with the first call, which therefore does not count.
    within = sum(first < at <= first + window_s for at in seen["arrivals"])
    return Share(rate, within / (rate * window_s), seen["refused_by_rate"])


@asynccontextmanager
async def _sandbox() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "consumer", "sandbox", "--port", "0"),
        cwd=ROOT,
        stdin=DEVNULL,
        stdout=PIPE,
    )
    try:
        if process.stdout is None:
            raise AssertionError("the sandbox has a pipe for its stdout")
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()


async def starts(stage: Stage, plan: Plan) -> list[float]:
    """Measure seconds from the start of the process until `/readyz` says yes."""
    async with stage.queues(OURS) as names:
        taken = []
        for _ in range(plan.starts):
            port = free_port()
            begun = time.monotonic()
            async with stage.working(OURS, names, 10, {"http_port": port}):
                await until_ready(port)
                taken.append(time.monotonic() - begun)
        return taken


async def waiting(stage: Stage, plan: Plan) -> dict[int, Run]:
    """Measure what it costs when few or many requests wait; as many calls are placed either way."""
    calls = min(plan.waiting)
    return {many: await stage.run(OURS, calls, 10, waiting=many) for many in plan.waiting}


async def ceiling(stage: Stage, calls: int = 20_000) -> float:
    """Measure how many calls a second the API can take: it must not be what is measured."""
    body = b'{"TEXT_TO_PRONOUNCE":"Your appointment is at nine."}'
    request = b"POST /m HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    await stage.api.expect(calls)
    numbers = count(PIPELINED, PIPELINED)

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.api.port)
        while next(numbers) <= calls:
            writer.write(request * PIPELINED)
            for _ in range(PIPELINED):
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                if length is None:
                    raise AssertionError("the API says how long its answers are")
                await reader.readexactly(int(length[1]))
        writer.close()

    begun = time.monotonic()
    await asyncio.gather(*(ask() for _ in range(10)))
    took_s = time.monotonic() - begun
    await stage.api.all_calls()
    return calls / took_s

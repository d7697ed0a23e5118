"""Workers that die, are frozen or are told to stop, at the worst moments."""

import asyncio
import signal
import time
from collections import Counter, defaultdict
from contextlib import suppress

from consumer.sandbox import ANSWERS
from tests.faults.bench import (
    DRAIN_S,
    NEVER,
    UNDECIDED_S,
    Bench,
    Row,
    Stage,
    Worker,
    special_number,
)
from tests.faults.launcher import POINTS, TRAPPED, Point
from tests.faults.proxy import Proxy

AFTER_THE_RECORD: tuple[Point, ...] = ("recorded", "published", "marked out")
BACK_WITHIN_S = 10.0


async def killed_at_each_point(stage: Stage) -> list[Row]:
    """One after the other, lives that end at a point, with a handful of fresh requests each."""
    lives = stage.times(30, 3)
    refused, later = ANSWERS["bad number"], ANSWERS["CONNECTION_ERROR"]
    ids: defaultdict[Point, list[str]] = defaultdict(list)
    killed: Counter[Point] = Counter()
    answered: defaultdict[Point, set[object]] = defaultdict(set)
    back_s: defaultdict[Point, float] = defaultdict(float)
    async with stage.bench("killed") as bench:
        await bench.start_trusted()
        await bench.stop_all()
        for _ in range(lives):
            for point in POINTS:
                for to in (None, None, None, special_number(refused), special_number(later, 1)):
                    ids[point] += await bench.publish(prefix=point.replace(" ", "-"), to=to)
                worker = await bench.start(point, bench.rng.randint(1, 4))
                killed[point] += await worker.ended(60) == -signal.SIGKILL
                worker.send(signal.SIGKILL)
                back_s[point] = max(back_s[point], worker.ready_s())
                answered[point] |= {line["answered"] for line in worker.said(TRAPPED)}
        await bench.start()
        await bench.settled(240)
        await bench.close_books()
        rows = []
        for point in POINTS:
            row = bench.row(
                f"SIGKILL: {point}",
                killed[point],
                back_s[point],
                ids=ids[point],
                bar_s=BACK_WITHIN_S,
            )
            if killed[point] < lives:
                row.wrong.append(f"only {killed[point]} of {lives} lives ended there")
            if point in AFTER_THE_RECORD:
                row.wrong += [
                    f"{i} was recorded, and forgotten" for i in _looked_up(bench, answered[point])
                ]
            rows.append(row)
        return rows


def _looked_up(bench: Bench, ids: set[object]) -> list[str]:
    return [
        i
        for i in bench.ids
        if i in ids and any(event.confirmed_by == "history" for event in bench.finals(i))
    ]


async def three_processes_one_ledger_random_kills_and_restarts(stage: Stage) -> list[Row]:
    requests, restarts = stage.times(1000, 150), stage.times(3, 1)
    settings: dict[str, float] = {"rate_per_s": stage.times(20, 10), "burst": 1}
    async with stage.own_node() as node, stage.bench("crowd", node) as bench:
        await bench.start_trusted()
        await bench.stop_all()
        await bench.publish(requests)
        slots = [Slot(bench, settings) for _ in range(3)]
        keeping = [asyncio.create_task(slot.keep()) for slot in slots]
        killing = asyncio.create_task(_kill_one_a_second(bench, slots))
        back_s = []
        for restart in range(1, restarts + 1):
            share = len(bench.ids) * restart // (restarts + 1)
            await bench.told_of(share)
            await asyncio.to_thread(node.stop)
            await asyncio.to_thread(node.start)
            back_s.append(await bench.consuming())
        await bench.told_of(len(bench.ids), 300)
        killing.cancel()
        await bench.settled()
        for task in keeping:
            task.cancel()
        await bench.close_books()
        kills = sum(slot.kills for slot in slots)
        fault = f"3 processes, one ledger: SIGKILL a second, {restarts} broker restarts"
        return [bench.row(fault, kills, max(back_s), bar_s=BACK_WITHIN_S)]


class Slot:
    """Keeps one worker running, as a platform would."""

    def __init__(self, bench: Bench, settings: dict[str, float]) -> None:
        self._bench = bench
        self._settings = settings
        self._worker: Worker | None = None
        self.kills = 0

    async def keep(self) -> None:
        while True:
            self._worker = await self._bench.start(settings=self._settings)
            await self._worker.process.wait()

    @property
    def is_up(self) -> bool:
        worker = self._worker
        return worker is not None and worker.runs and bool(worker.said("worker.ready"))

    def kill(self) -> None:
        if self._worker is not None:
            self._worker.send(signal.SIGKILL)
            self.kills += 1


async def _kill_one_a_second(bench: Bench, slots: list[Slot]) -> None:
    while True:
        await asyncio.sleep(1)
        if up := [slot for slot in slots if slot.is_up]:
            bench.rng.choice(up).kill()


async def a_frozen_owner_is_thawed_after_another_took_over(stage: Stage) -> list[Row]:
    frozen_s = stage.times(90, UNDECIDED_S + 13)
    placed, refused = "placed", "bad number"
    owners: list[tuple[Point, str]] = [
        ("claimed", placed),
        ("request sent", placed),
        ("answer read", placed),
        ("answer read", refused),
        ("recorded", placed),
    ]
    rows = await asyncio.gather(*(_late(stage, frozen_s, *owner) for owner in owners))
    return [
        Row(
            f"owner frozen {frozen_s} s, then thawed",
            len(rows),
            sum(row.requests for row in rows),
            sum(row.lost for row in rows),
            sum(row.twice for row in rows),
            sum(row.unsure for row in rows),
            None,
            [
                f"frozen at {owner}: {wrong}"
                for owner, row in zip(owners, rows, strict=True)
                for wrong in row.wrong
            ],
        )
    ]


async def _late(stage: Stage, frozen_s: float, point: Point, answer: str) -> Row:
    async with stage.bench("late") as bench, Proxy(_port(bench)) as its_link:
        await bench.start_trusted()
        await bench.stop_all()
        to = None if answer == "placed" else special_number(ANSWERS[answer])
        late = await bench.start(point, number=signal.SIGSTOP, through=its_link)
        (request_id,) = await bench.publish(to=to)
        if not await late.frozen(30):
            bench.wrong.append("it never got there")
        begun = time.monotonic()
        its_link.cut()
        await bench.start()
        await bench.told([request_id], 60)
        await asyncio.sleep(max(0.0, begun + frozen_s - time.monotonic()))
        known = {event.event_id for event in bench.finals(request_id)}
        late.send(signal.SIGCONT)
        await asyncio.sleep(5)
        new = [event for event in bench.finals(request_id) if event.event_id not in known]
        if any(event.kind != "call.started" for event in new):
            bench.wrong.append(f"thawed, it published another outcome than started: {new}")
        await bench.settled(30)
        await bench.close_books()
        return bench.row("", 1)


def _port(bench: Bench) -> int:
    return int(bench.node.url.rsplit(":", 1)[1].strip("/"))


async def told_to_stop_under_load(stage: Stage) -> list[Row]:
    times, longest_s = stage.times(30, 3), 0.0
    async with stage.bench("stopped") as bench:
        await bench.start_trusted()
        await bench.stop_all()
        bench.portal_link.delay_s = 0.3
        for _ in range(times):
            await bench.publish(20)
            worker, placed = await bench.start(), len(bench.portal.calls)
            await bench.called(placed + 3)
            await asyncio.sleep(bench.rng.uniform(0, 0.3))
            begun = time.monotonic()
            code = await worker.terminated(DRAIN_S + 10)
            longest_s = max(longest_s, time.monotonic() - begun)
            if code != 0:
                bench.wrong.append(f"exit {code} on SIGTERM")
            with suppress(ProcessLookupError):
                worker.send(signal.SIGKILL)
        await bench.start()
        await bench.settled()
        await bench.close_books()
        if any(event.confirmed_by == "history" for i in bench.ids for event in bench.finals(i)):
            bench.wrong.append("an answer was not recorded, and had to be looked up")
        fault = "SIGTERM under load (recovery: until the exit)"
        return [bench.row(fault, times, longest_s or NEVER, bar_s=DRAIN_S + 1)]

"""Workers that die, are frozen or are told to stop, at the worst moments."""

import asyncio
import signal
import time
from collections import Counter, defaultdict
from dataclasses import dataclass

from consumer.sandbox import ANSWERS
from tests.faults.account import Row, summed
from tests.faults.bench import UNDECIDED_S, Bench
from tests.faults.launcher import POINTS, TRAPPED, Point
from tests.faults.life import until
from tests.faults.portal import special_number
from tests.faults.stage import Stage

AFTER_THE_RECORD: tuple[Point, ...] = ("recorded", "published", "marked out")
BACK_WITHIN_S = 10.0


async def killed_at_each_point(stage: Stage) -> list[Row]:
    """One after the other, lives that end at a point, with a handful of fresh requests each."""
    lives = stage.times(30, 2)
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


async def a_frozen_owner_is_thawed_after_another_took_over(stage: Stage) -> list[Row]:
    long_s, short_s = stage.times(90, UNDECIDED_S + 13), 4
    placed, refused = "placed", "bad number"
    owners: list[tuple[Point, str, int]] = [
        ("claimed", placed, long_s),
        ("request sent", placed, long_s),
        ("answer read", placed, long_s),
        ("answer read", refused, long_s),
        ("recorded", placed, long_s),
        ("claimed", placed, short_s),  # it may still dial then, and the other may not yet
    ]
    rows = await asyncio.gather(*(_late(stage, *owner) for owner in owners))
    return [summed(f"owner frozen {long_s} s, or {short_s}, then thawed", owners, rows)]


async def _late(stage: Stage, point: Point, answer: str, frozen_s: float) -> Row:
    async with stage.bench("late") as bench, bench.host() as its_host:
        await bench.start_trusted()
        await bench.stop_all()
        to = None if answer == "placed" else special_number(ANSWERS[answer])
        late = await bench.start(point, number=signal.SIGSTOP, on=its_host)
        await late.up()
        await (await bench.start()).up()
        (request_id,) = await bench.publish(to=to)
        if not await late.frozen(30):
            bench.wrong.append("it never got there")
        begun = time.monotonic()
        its_host.broker.cut()
        if frozen_s > UNDECIDED_S:
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


async def the_active_one_is_cut_off_at_a_point_and_healed(stage: Stage) -> list[Row]:
    """It lives on without broker and ledger while another takes its request over."""
    cases = [
        Cut("before the claim"),
        Cut("before the claim", only_answers=True),
        Cut("before the claim", passing=2, answer="CONNECTION_ERROR", times=1),
        Cut("claimed"),
        Cut("request sent"),
        Cut("answer read"),
        Cut("answer read", answer="bad number", times=1),
        Cut("recorded"),
    ]
    few = asyncio.Semaphore(4)

    async def play(case: Cut) -> Row:
        async with few:
            return await _cut_off(stage, case)

    rows = await asyncio.gather(*map(play, cases))
    return [summed("active one cut off at a point, then healed", cases, rows)]


@dataclass(frozen=True, slots=True)
class Cut:
    """Where one worker is cut off: at the *passing*-th passing of a point.

    Attributes:
        answer: What the portal says: the first *times* it is called, or always.
        only_answers: Whether the ledger still hears it, and it no longer the ledger.
    """

    at: Point
    passing: int = 1
    answer: str = "placed"
    times: int | None = None
    only_answers: bool = False


async def _cut_off(stage: Stage, case: Cut) -> Row:
    async with stage.bench("cutoff") as bench, bench.host(late=True, heartbeat_s=2) as its_host:
        await bench.start_trusted()
        await bench.stop_all()
        worker = await bench.start(case.at, case.passing, signal.SIGSTOP, its_host)
        (request_id,) = await bench.publish(to=special_number(ANSWERS[case.answer], case.times))
        if its_host.ledger is None or not await worker.frozen(30):
            raise AssertionError("it never got there")
        its_host.broker.freeze()
        its_host.ledger.freeze(only_answers=case.only_answers)
        worker.send(signal.SIGCONT)
        standby = await bench.start()
        if not await bench.told([request_id], 60):
            bench.wrong.append("nobody took it over")
        if worker.said("call.started") or worker.said("call.failed"):
            bench.wrong.append("it said something without a link to say it over")
        its_host.broker.thaw()
        its_host.ledger.thaw()
        healed = time.time()
        if not await until(lambda: bool(worker.said("broker.back", healed)), 30):
            bench.wrong.append("healed, it never came back to the broker")
        await bench.settled(30)
        standby.send(signal.SIGKILL)
        if (back_s := await bench.going_on()) > BACK_WITHIN_S:
            bench.wrong.append(f"healed and alone, it took {back_s:.1f} s to go on")
        await bench.settled(30)
        await bench.close_books()
        return bench.row("", 1)

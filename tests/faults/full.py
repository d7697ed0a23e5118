"""All faults at once, in legs: each leg has a broker, a ledger and a portal of its own.

Three workers are killed once a second. Meanwhile the broker is restarted, PostgreSQL's primary is
lost and its replica promoted, the workers' clocks step, and operators replay, take back, pause and
block. The portal gives every answer that is documented, each to some of the requests, once.
"""

import asyncio
import json
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path

from consumer.demo.broker import PrivateNode
from consumer.sandbox import ANSWERS
from tests.faults.account import Row
from tests.faults.bench import Bench
from tests.faults.clocks import set_clock
from tests.faults.crowd import KILLED, Blow, Crowd, crowd_of
from tests.faults.life import until
from tests.faults.portal import special_number
from tests.faults.stage import Stage
from tests.postgres import PrivateCluster

LEGS = 50
REQUESTS = 200
KILLS = 20
FAILOVERS = 20
"""Of all legs together; the other figures are those of one leg."""
OPERATORS = 2
RATE_PER_S = 8.0
STEPS_S = (0, 200, -200, 3600, -3600)
PAUSED_S = 2.0
LAST_REPLAYS = 8
SETTLED_S = 300
"""A portal that is out of operating time lets nothing through for 60 s; several in a row may."""
UNACKNOWLEDGED = "messages_unacknowledged"
BACK_WITHIN_S = 30.0
"""Others are killed meanwhile, and the clocks are wrong."""
NOTHING_LEFT = b"nothing to replay"
RESTARTED, PROMOTED, STEPPED = "broker restarted", "primary lost, replica promoted", "clock set"
REPLAYED, TAKEN_BACK, PAUSED, BLOCKED = "replayed", "taken back", "paused", "blocked"
ORDER = (KILLED, RESTARTED, PROMOTED, STEPPED, REPLAYED, TAKEN_BACK, PAUSED, BLOCKED)
WITH_RECOVERY = (RESTARTED, PROMOTED)

Act = Callable[["Leg"], Awaitable[None]]


@dataclass
class Leg:
    """One leg: where it is played, and what was done so far."""

    number: int
    bench: Bench
    crowd: Crowd
    node: PrivateNode
    cluster: PrivateCluster | None
    done: Counter[str] = field(default_factory=Counter)

    @property
    def clocks(self) -> list[Path]:
        return [slot.clock for slot in self.crowd.slots if slot.clock is not None]

    @property
    def some_ids(self) -> list[str]:
        """Some requests that have no event yet, or any."""
        rng, ids = self.bench.rng, self.bench.ids
        open_ = [i for i in ids if not self.bench.finals(i)]
        return rng.sample(open_ or ids, min(2, len(open_ or ids)))

    async def deal(self, kind: str, change: Callable[[], None]) -> None:
        """Do something to a server."""
        begun = time.time()
        await asyncio.to_thread(change)
        self.crowd.deal(Blow(kind, begun, time.time()))
        self.done[kind] += 1


async def restart_broker(leg: Leg) -> None:
    def change() -> None:
        leg.node.stop()
        leg.node.start()

    await leg.deal(RESTARTED, change)


async def promote_replica(leg: Leg) -> None:
    cluster = leg.cluster
    if cluster is not None:
        await leg.deal(PROMOTED, cluster.fail_over)


async def step_clock(leg: Leg) -> None:
    for clock in leg.clocks:
        set_clock(clock, leg.bench.rng.choice(STEPS_S))
    leg.done[STEPPED] += 1


async def replay(leg: Leg) -> None:
    await command(leg.bench, "dlq", "replay", "--all", "--yes")
    leg.done[REPLAYED] += 1


async def take_back(leg: Leg) -> None:
    await leg.bench.cancel(leg.some_ids)
    leg.done[TAKEN_BACK] += 1


async def pause(leg: Leg) -> None:
    await command(leg.bench, "pause", "--reason", "a trial", until_done=True)
    since = time.time()
    await asyncio.sleep(PAUSED_S)
    leg.bench.forbidden.append((since, time.time()))
    await command(leg.bench, "resume", until_done=True)
    leg.done[PAUSED] += 1


async def block(leg: Leg) -> None:
    """Block a campaign of which two requests are published only then."""
    campaign = f"campaign-{leg.done[BLOCKED]}"
    add = ("block", "add", "--metadata", f"campaign={campaign}", "--reason", "a trial", "--json")
    told = await command(leg.bench, *add, until_done=True)
    since = time.time()
    ids = await leg.bench.publish(2, metadata={"campaign": campaign})
    leg.bench.note_cause("blocked", ids)
    await leg.bench.told(ids, 20)
    leg.bench.forbidden_for.update({i: [(since, time.time())] for i in ids})
    await command(leg.bench, "block", "remove", json.loads(told)["id"], until_done=True)
    leg.done[BLOCKED] += 1


async def command(bench: Bench, *words: str, until_done: bool = False) -> bytes:
    """Run one of our commands, perhaps again until it succeeds; return all it printed."""
    for _ in range(20):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "consumer", *words),
            cwd=bench.folder,
            env=bench.environment(bench.home),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        out, err = await process.communicate()
        if process.returncode == 0 or not until_done:
            return out if out.strip() else err
        await asyncio.sleep(1)  # broker or ledger is away just now
    bench.wrong.append(f"`{' '.join(words[:2])}` failed: {err[-200:]!r}")
    return out or b"{}"


async def play(stage: Stage, number: int) -> list[Row]:
    """Play leg *number*, and account for it."""
    on_server = stage.store == "PostgreSQL"
    promotes = on_server and (number - 1) * FAILOVERS % LEGS < FAILOVERS
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(stage.own_node())
        cluster = await stack.enter_async_context(stage.own_cluster()) if on_server else None
        bench = await stack.enter_async_context(stage.bench("leg", node, cluster=cluster))
        bench.rng.seed(f"{stage.seed} {number}")
        await bench.start_trusted()
        await bench.stop_all()
        if cluster is not None and promotes:
            await asyncio.to_thread(cluster.add_replica)
        await _publish(bench, number)
        acts: list[Act] = [restart_broker, *[promote_replica] * promotes]
        acts += [replay, take_back, pause, block, step_clock] * OPERATORS
        bench.rng.shuffle(acts)
        hosts = 3 if on_server else 0
        async with crowd_of(bench, {"rate_per_s": RATE_PER_S}, hosts=hosts, clocks=True) as crowd:
            leg = Leg(number, bench, crowd, node, cluster)
            await _act(leg, acts)
            await _settle(leg)
        await bench.close_books()
        return _rows(leg)


async def _publish(bench: Bench, number: int) -> None:
    """Publish requests, of which every second one meets one of the answers there are."""
    names = sorted(ANSWERS)
    turn = count(number * REQUESTS // 2)
    for _ in range(REQUESTS // 2):
        answer = ANSWERS[names[next(turn) % len(names)]]
        await bench.publish(prefix="ok")
        await bench.publish(prefix="odd", to=special_number(answer, bench.rng.randint(1, 2)))


async def _act(leg: Leg, acts: list[Act]) -> None:
    """Do all that is to be done, spread over the kills."""
    crowd = leg.crowd
    killing = asyncio.create_task(crowd.kill_one_a_second())

    def killed() -> int:
        return sum(blow.kind == KILLED for blow in crowd.blows)

    for place, act in enumerate(acts):
        due = KILLS * place // len(acts)
        await until(lambda due=due: killed() >= due)  # type: ignore[misc]
        await act(leg)
    await until(lambda: killed() >= KILLS)
    killing.cancel()
    leg.done[KILLED] = killed()


async def _settle(leg: Leg) -> None:
    """Let the rest go on, and replay what is left to a person until nothing is."""
    bench = leg.bench
    for clock in leg.clocks:
        set_clock(clock, 0)
    for _ in range(LAST_REPLAYS):
        settled = await bench.settled(SETTLED_S) and await _until_nothing_in_hand(leg)
        told = await command(bench, "dlq", "replay", "--all", "--yes")
        if settled and NOTHING_LEFT in told:
            return
    await bench.settled(SETTLED_S)


async def _until_nothing_in_hand(leg: Leg) -> bool:
    """Wait until the workers have acknowledged all: what is replayed had an event before."""
    for _ in range(SETTLED_S):
        listed = await asyncio.to_thread(leg.node.ctl, "list_queues", "name", UNACKNOWLEDGED)
        if not any(line.split()[-1] not in {"0", UNACKNOWLEDGED} for line in listed.splitlines()):
            return True
        await asyncio.sleep(1)
    return False


def _rows(leg: Leg) -> list[Row]:
    whole = leg.bench.row("all at once", 1)
    whole.wrong = [f"leg {leg.number}: {text}" for text in whole.wrong]
    rows = [whole]
    for kind in ORDER:
        if times := leg.done[kind]:
            taken_s = leg.crowd.recoveries_s(kind) if kind in WITH_RECOVERY else []
            rows.append(Row(f"... {kind}", times, recovery_s=max(taken_s, default=None)))
    return rows


# --- many legs, and where they stand


@dataclass
class Standing:
    """Which legs have been played, kept in a file, so that a run goes on where it was ended."""

    file: Path
    seed: int
    legs: dict[str, list[Row]] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path, seed: int | None) -> "Standing":
        """Read it; *seed* None is the file's, or a new one.

        Raises:
            ValueError: The file is of another seed.
        """
        if not file.exists():
            return cls(file, seed if seed is not None else time.time_ns() % 1_000_000)
        kept = json.loads(file.read_text())
        if seed not in {None, kept["seed"]}:
            raise ValueError(f"{file} is of seed {kept['seed']}: remove it, or leave --seed out")
        legs = {leg: [Row(**row) for row in rows] for leg, rows in kept["legs"].items()}
        return cls(file, kept["seed"], legs)

    def note(self, leg: str, rows: list[Row]) -> None:
        self.legs[leg] = rows
        kept = {leg: [asdict(row) for row in rows] for leg, rows in self.legs.items()}
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps({"seed": self.seed, "legs": kept}, indent=1))
        new.replace(self.file)

    def rows(self) -> list[Row]:
        """Sum up all legs, by ledger and by what was done."""
        found: dict[tuple[str, str], list[Row]] = {}
        for rows in self.legs.values():
            for row in rows:
                found.setdefault((row.store, row.fault), []).append(row)
        order = {f"... {kind}": place for place, kind in enumerate(ORDER)}
        keys = sorted(found, key=lambda key: (key[0] != "SQLite", order.get(key[1], -1)))
        return [_summed(found[key]) for key in keys]


def _summed(rows: list[Row]) -> Row:
    def total(name: str) -> int | None:
        numbers = [getattr(row, name) for row in rows]
        return None if None in numbers else sum(numbers)

    taken_s = [row.recovery_s for row in rows if row.recovery_s is not None]
    summed = replace(
        rows[0],
        times=sum(row.times for row in rows),
        requests=total("requests"),
        lost=total("lost"),
        twice=total("twice"),
        unsure=total("unsure"),
        recovery_s=max(taken_s, default=None),
        wrong=[text for row in rows for text in row.wrong],
    )
    summed.expect(BACK_WITHIN_S)
    return summed

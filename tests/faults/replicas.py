"""Replicas that share a queue and a ledger: they die, are parted and hand over, under load."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import cycle, islice
from signal import SIGKILL

from consumer.demo.broker import PrivateNode
from consumer.rabbitmq.connection import HEARTBEAT_S
from consumer.sandbox import ANSWERS
from tests.faults.account import Row, summed
from tests.faults.bench import Bench
from tests.faults.crowd import KILLED, Blow, Crowd, crowd_of
from tests.faults.life import NEVER, until
from tests.faults.portal import special_number
from tests.faults.stage import Stage
from tests.faults.traffic import CONCURRENCY
from tests.postgres import PrivateCluster

BACK_WITHIN_S = 10.0
PARTED = "active one cut off from"
BROKER, LEDGER, BOTH = f"{PARTED} broker", f"{PARTED} PostgreSQL", f"{PARTED} both"
RATE_PER_S = 2
BURST = 20
SLOW = {"rate_per_s": RATE_PER_S, "burst": 1}
CUT_EVERY_S = 0.7
OF_THE_RATE = 0.95
KINDS = (("bad number", None), ("CONNECTION_ERROR", 1), ("reset, placed", 1))
"""What the portal says to one request in ten, and how often; it places the others at once."""

Strike = Callable[[Crowd], Awaitable[None]]


async def three_processes_one_ledger_random_kills_and_restarts(stage: Stage) -> list[Row]:
    requests, restarts = stage.times(1000, 120), stage.times(3, 1)
    settings: dict[str, float] = {"rate_per_s": stage.times(20, 10), "burst": 1}
    async with stage.own_node() as node, stage.bench("crowd", node) as bench:
        await bench.start_trusted()
        await bench.stop_all()
        await bench.publish(requests)
        async with crowd_of(bench, settings) as crowd:
            await _struck(crowd, [restarted("broker", node)] * restarts)
        await bench.close_books()
        fault = "3 processes, one ledger: SIGKILL a second"
        return _rows(crowd, fault, {"broker restarted": BACK_WITHIN_S})


async def three_hosts_one_database_random_kills_restarts_and_partitions(stage: Stage) -> list[Row]:
    heartbeat_s = stage.times(HEARTBEAT_S, 2)
    noticed_s = 3.5 * heartbeat_s
    bars_s = {
        "broker restarted": BACK_WITHIN_S,
        "PostgreSQL restarted": BACK_WITHIN_S,
        BROKER: noticed_s + BACK_WITHIN_S,
        LEDGER: BACK_WITHIN_S,
        BOTH: noticed_s + BACK_WITHIN_S,
    }
    async with (
        stage.own_node() as node,
        stage.own_cluster() as cluster,
        stage.bench("hosts", node, cluster=cluster) as bench,
    ):
        await bench.start_trusted()
        await bench.stop_all()
        await _publish_all_kinds(bench, stage.times(2000, 160))
        broker, postgres = restarted("broker", node), restarted("PostgreSQL", cluster)
        both, from_broker = parted(BOTH, noticed_s), parted(BROKER, noticed_s)
        from_ledger = parted(LEDGER, stage.times(15, 8))
        strikes = [both, broker, from_ledger, postgres]
        if stage.full:
            strikes += [broker, from_broker, broker, postgres, both, broker, postgres, both, broker]
        settings: dict[str, float] = {"rate_per_s": 20, "burst": 1}
        async with crowd_of(bench, settings, hosts=3, heartbeat_s=heartbeat_s) as crowd:
            await _struck(crowd, strikes)
        await bench.close_books()
        return _rows(crowd, "3 hosts, one database: SIGKILL a second", bars_s)


async def _publish_all_kinds(bench: Bench, requests: int) -> None:
    for answer, times in islice(cycle(KINDS), requests // 10):
        await bench.publish(9)
        await bench.publish(to=special_number(ANSWERS[answer], times))


async def _struck(crowd: Crowd, strikes: list[Strike]) -> None:
    """Deal the blows, spread over the requests, and a kill a second besides, save at the end."""
    bench = crowd.bench
    killing = asyncio.create_task(crowd.kill_one_a_second())
    for place, strike in enumerate(strikes, 1):
        await bench.told_of(len(bench.ids) * place // (len(strikes) + 1))
        await strike(crowd)
    # A new process that has no answer from the portal yet cannot tell how old a claim is, and waits
    # anew: killed every second, with nothing else to dial, none would ever get to the last ones.
    await bench.told_of(len(bench.ids) - 3 * CONCURRENCY, 300)
    killing.cancel()
    await bench.settled()


def restarted(name: str, server: PrivateNode | PrivateCluster) -> Strike:
    async def strike(crowd: Crowd) -> None:
        begun = time.time()
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        crowd.deal(Blow(f"{name} restarted", begun, time.time()))

    return strike


def parted(kind: str, lasts_s: float) -> Strike:
    """Freeze the links of the one that dials, spare it otherwise, and thaw them."""

    async def strike(crowd: Crowd) -> None:
        slot = await crowd.active()
        worker = slot.worker
        broker, ledger = slot.host.broker, slot.host.ledger
        links = [broker] if kind == BROKER else [broker, ledger] if kind == BOTH else [ledger]
        slot.spared, begun = True, time.time()
        for link in filter(None, links):
            link.freeze()
        await asyncio.sleep(lasts_s)
        for link in filter(None, links):
            link.thaw()
        crowd.deal(Blow(kind, begun, time.time(), worker))
        slot.spared = False

    return strike


def _rows(crowd: Crowd, fault: str, bars_s: Mapping[str, float]) -> list[Row]:
    """Account for all requests in the first row; the others tell how soon another dialled."""
    kills = sum(blow.kind == KILLED for blow in crowd.blows)
    rows = [crowd.bench.row(fault, kills)]
    for kind, bar_s in {KILLED: BACK_WITHIN_S, **bars_s}.items():
        if recoveries_s := crowd.recoveries_s(kind):
            what = "active one killed" if kind == KILLED else kind
            rows.append(Row(f"... {what}", len(recoveries_s), recovery_s=max(recoveries_s)))
            rows[-1].expect(bar_s)
    return rows


async def handed_over_on_a_fresh_ledger(stage: Stage) -> list[Row]:
    """Two start at once; the one that gets the requests is stopped, killed or cut off."""
    ways = ("stopped", "killed", "cut off")
    rows = await asyncio.gather(*(_handed_over(stage, way) for way in ways))
    return [summed("2 replicas, fresh ledger: prefetched requests handed over", ways, rows)]


async def _handed_over(stage: Stage, way: str) -> Row:
    async with stage.bench("fresh") as bench, bench.host() as one, bench.host() as other:
        workers = [await bench.start(on=host, settings=SLOW) for host in (one, other)]
        await asyncio.gather(*(worker.up() for worker in workers))
        await bench.publish(2 * CONCURRENCY)
        await bench.called(2)
        number = 0 if workers[0].dials() else 1
        match way:
            case "stopped":
                await workers[number].terminated()
            case "killed":
                workers[number].send(SIGKILL)
            case _:
                (one, other)[number].broker.cut()
        if not await until(lambda: bool(workers[1 - number].dials()), 30):
            bench.wrong.append("the other one dialled nothing")
        await bench.settled()
        await bench.close_books()
        row = bench.row("", 1)
        if row.unsure:
            row.wrong.append(f"{row.unsure} unsure")
        return row


async def the_link_cut_again_and_again(stage: Stage) -> list[Row]:
    """The portal counts; none of three may have saved up a burst when its turn comes."""
    lasts_s = stage.times(120, 20)
    cuts = int(lasts_s / CUT_EVERY_S)
    async with stage.bench("flapping") as bench:
        await bench.start_trusted()
        await bench.stop_all()
        bench.portal.patch({"rate_per_s": RATE_PER_S})
        await bench.publish(RATE_PER_S * lasts_s)
        async with crowd_of(bench, {"rate_per_s": RATE_PER_S, "burst": BURST}) as crowd:
            await until(lambda: all(slot.is_up for slot in crowd.slots), 30)
            for _ in range(cuts):
                await asyncio.sleep(CUT_EVERY_S)
                bench.home.broker.cut()
            healed = time.time()
            await bench.settled(2 * lasts_s + 60)
            resumed = [at for worker in bench.workers for at in worker.dials() if at > healed]
        await bench.close_books()
        refused = bench.portal.tally.refused_by_rate
        fault = f"3 replicas, link cut every {CUT_EVERY_S} s: {refused} refused"
        recovery_s = min(resumed, default=NEVER) - healed
        row = bench.row(fault, cuts, recovery_s, bar_s=BACK_WITHIN_S)
        if refused:
            row.wrong.append(f"{refused} requests were refused for the rate")
        return [row]


async def the_rate_across_hand_overs(stage: Stage) -> list[Row]:
    """Count the calls after the first, which starts the clock; the sandbox refuses as portals do.

    There is always more to dial, so that no idle time is saved up for a burst: a life begins with
    an empty allowance, and 100 % is the rate itself.
    """
    lasts_s, kills = stage.times(300, 30), stage.times(10, 2)
    async with stage.bench("rate") as bench:
        await bench.start_trusted()
        await bench.stop_all()
        bench.portal.patch({"rate_per_s": RATE_PER_S, "operating_s": 0.14})
        bench.portal_link.delay_s = 0.2
        await bench.publish(RATE_PER_S * lasts_s + 40)
        settings: dict[str, float] = {"rate_per_s": RATE_PER_S, "burst": BURST}
        async with crowd_of(bench, settings, hosts=3) as crowd:
            await bench.called(2)
            begun = bench.portal.calls[1].placed_at
            for kill in range(1, kills + 1):
                await asyncio.sleep(begun + kill * lasts_s / (kills + 1) - time.time())
                crowd.kill(await crowd.active())
            await asyncio.sleep(begun + lasts_s - time.time())
            await bench.settled()
        await bench.close_books()
        share = bench.portal.calls_between(begun, begun + lasts_s) / (RATE_PER_S * lasts_s)
        refused = bench.portal.tally.refused_by_rate
        fault = f"active one killed, {RATE_PER_S} a second for {lasts_s} s"
        row = bench.row(
            f"{fault}: {share:.1%} of the rate, {refused} refused",
            kills,
            max(crowd.recoveries_s(KILLED), default=NEVER),
            bar_s=BACK_WITHIN_S,
        )
        if share < OF_THE_RATE:
            row.wrong.append(f"only {share:.1%} of the rate was used")
        if refused:
            row.wrong.append(f"{refused} requests were refused for the rate")
        return [row]

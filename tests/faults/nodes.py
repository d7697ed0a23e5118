"""Three brokers as one: a node is killed, parted, paused, restarted or slow, under load."""

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing

from tests.faults.account import Row
from tests.faults.bench import Bench
from tests.faults.cluster import NODES, TICK_S, Cluster, Member, cluster
from tests.faults.life import NEVER
from tests.faults.stage import Stage

BACK_WITHIN_S = 40.0
"""A leader is elected, links are noticed to be dead, delayed requests come out."""
RATE_PER_S = 10
SLOW_SHARE = 0.8
"""How much of the time a slow node stands still."""
SLICE_S = 0.25
QUEUE_COLUMNS = (
    "name",
    "leader",
    "online",
    "messages_ready",
    "messages_unacknowledged",
    "consumers",
)


Fault = Callable[[Bench, Cluster], AsyncGenerator[None]]
"""Yields while it lasts, as often as it begins anew."""


async def leader_killed(bench: Bench, nodes: Cluster) -> AsyncGenerator[None]:
    leader = await nodes.leader_of(bench.topology.requests.name)
    await asyncio.to_thread(leader.kill)
    yield
    await _start(leader)


async def each_killed_in_turn(_: Bench, nodes: Cluster) -> AsyncGenerator[None]:
    for member in nodes.members:
        await asyncio.to_thread(member.kill)
        yield
        await _start(member)


async def leader_paused(bench: Bench, nodes: Cluster) -> AsyncGenerator[None]:
    leader = await nodes.leader_of(bench.topology.requests.name)
    leader.send(signal.SIGSTOP)
    yield
    leader.send(signal.SIGCONT)


async def leader_parted_and_healed(bench: Bench, nodes: Cluster) -> AsyncGenerator[None]:
    leader = await nodes.leader_of(bench.topology.requests.name)
    await asyncio.to_thread(leader.part)
    await asyncio.sleep(TICK_S)
    yield
    others = [member for member in nodes.members if member is not leader]
    await asyncio.to_thread(leader.heal, others)
    await _start(leader)


async def restarted_in_turn(_: Bench, nodes: Cluster) -> AsyncGenerator[None]:
    for member in nodes.members:
        await asyncio.to_thread(member.await_majorities)
        await asyncio.to_thread(member.stop)
        yield
        await _start(member)


async def leader_slow(bench: Bench, nodes: Cluster) -> AsyncGenerator[None]:
    leader = await nodes.leader_of(bench.topology.requests.name)
    slowed = asyncio.create_task(_slowed(leader))
    yield
    slowed.cancel()
    await asyncio.gather(slowed, return_exceptions=True)
    leader.send(signal.SIGCONT)


async def _slowed(member: Member) -> None:
    while True:
        member.send(signal.SIGSTOP)
        await asyncio.sleep(SLICE_S * SLOW_SHARE)
        member.send(signal.SIGCONT)
        await asyncio.sleep(SLICE_S * (1 - SLOW_SHARE))


async def _start(member: Member) -> None:
    """Start a node, and wait until the others know it, as must who restarts them in turn."""
    await asyncio.to_thread(member.start)
    await asyncio.to_thread(member.ctl, "await_online_nodes", str(NODES), "--timeout", "60")


FAULTS: dict[str, Fault] = {
    "leader killed": leader_killed,
    "each node killed in turn": each_killed_in_turn,
    "leader paused": leader_paused,
    "leader parted, then healed": leader_parted_and_healed,
    "rolling restart": restarted_in_turn,
    "leader slow": leader_slow,
}


IN_THE_SLICE = ("leader killed", "leader parted, then healed", "rolling restart")


async def three_nodes_behind_a_balancer(stage: Stage) -> list[Row]:
    async with cluster() as nodes:
        return [await _played(stage, nodes, fault, "a balancer", {}) for fault in _faults(stage)]


async def three_nodes_by_a_list_of_addresses(stage: Stage) -> list[Row]:
    async with cluster() as nodes:
        by_list = {"rabbitmq_url": nodes.urls}
        return [await _played(stage, nodes, fault, "a list", by_list) for fault in _faults(stage)]


def _faults(stage: Stage) -> Iterable[str]:
    return FAULTS if stage.full else IN_THE_SLICE


async def _played(
    stage: Stage, nodes: Cluster, fault: str, how: str, settings: Mapping[str, object]
) -> Row:
    """Let two workers call; while the fault lasts, and after it, a new request is to be called."""
    pace = {"rate_per_s": RATE_PER_S, "burst": 1, **settings}
    async with stage.bench("cluster", nodes) as bench:
        await bench.start_trusted(pace)
        await bench.start(settings=pace)
        await bench.publish(stage.times(20, 8) * RATE_PER_S)
        await bench.called(10)
        async with aclosing(FAULTS[fault](bench, nodes)) as lasting:
            recoveries_s = [await _going_on(bench) async for _ in lasting]
        await _going_on(bench)
        await bench.settled()
        await bench.close_books()
        text = f"3 nodes, {how}: {fault}"
        return bench.row(text, len(recoveries_s), max(recoveries_s), bar_s=BACK_WITHIN_S)


async def _going_on(bench: Bench) -> float:
    begun = time.monotonic()
    if await bench.told(await bench.publish_at_last("probe"), 60):
        return time.monotonic() - begun
    queues = await asyncio.to_thread(bench.node.ctl, "list_queues", *QUEUE_COLUMNS)
    bench.wrong.append(f"a probe was not called; the queues then:\n{queues}")
    return NEVER

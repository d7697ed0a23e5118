"""Three brokers as one cluster: a node is killed, parted, paused, restarted or slow, under load."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from subprocess import CalledProcessError
from urllib.parse import urlsplit

from consumer.demo.broker import PrivateNode
from tests.faults.account import Row
from tests.faults.bench import Bench
from tests.faults.life import NEVER
from tests.faults.proxy import Proxy
from tests.faults.stage import Stage

NODES = 3
TICK_S = 4
"""After so long a silent node counts as gone; the default is a minute."""
HEARTBEAT_S = 2
BACK_WITHIN_S = 40.0
"""A leader is elected, links are noticed to be dead, delayed requests come out."""
RATE_PER_S = 10
SLOW_SHARE = 0.8
"""How much of the time a slow node stands still."""
SLICE_S = 0.25


class Member(PrivateNode):
    """A node that can be one of several: all have the first one's epmd and cookie."""

    def __init__(self, first: "Member | None" = None) -> None:
        super().__init__()
        self._first = first
        self.name = self._environment["RABBITMQ_NODENAME"]
        erlang = "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"
        self._environment[erlang] += f" -kernel net_ticktime {TICK_S}"
        config = self.directory / "config_file.conf"
        config.write_text("cluster_partition_handling = pause_minority\n")
        if first is not None:
            self._environment["ERL_EPMD_PORT"] = first.epmd_port
            cookie = self.directory / ".erlang.cookie"
            cookie.chmod(0o600)
            cookie.write_text((first.directory / ".erlang.cookie").read_text())
            cookie.chmod(0o400)

    def _start_epmd(self) -> None:
        if self._first is None:
            super()._start_epmd()

    @property
    def epmd_port(self) -> str:
        return self._environment["ERL_EPMD_PORT"]

    def join(self, first: "Member") -> None:
        """Become one of the first one's cluster."""
        for words in (("stop_app",), ("join_cluster", first.name), ("start_app",)):
            self.ctl(*words)

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def send(self, number: signal.Signals) -> None:
        """Send the node, and what it has started, a signal."""
        if self._node is not None:
            os.killpg(self._node.pid, number)

    def part(self) -> None:
        """Let it and the others refuse each other, as if the network between them was cut."""
        self.ctl(
            "eval",
            "[begin erlang:set_cookie(N, parted), erlang:disconnect_node(N) end"
            ' || N <- nodes(), lists:prefix("private", atom_to_list(N))].',
        )

    def heal(self, others: "list[Member]") -> None:
        """End that."""
        names = ",".join(f"'{other.name}'" for other in others)
        self.ctl("eval", f"[erlang:set_cookie(N, erlang:get_cookie()) || N <- [{names}]].")


class Cluster:
    """Three nodes, and a balancer before them.

    Attributes:
        url: The balancer's address.
    """

    def __init__(self, members: list[Member], balancer: Proxy) -> None:
        self.members = members
        user = urlsplit(members[0].url).netloc.rpartition("@")[0]
        self.url = f"amqp://{user}@127.0.0.1:{balancer.port}/?heartbeat={HEARTBEAT_S}"

    @property
    def urls(self) -> str:
        """All nodes' addresses, as `CALLS_RABBITMQ_URL` takes them."""
        return ",".join(f"{member.url}?heartbeat={HEARTBEAT_S}" for member in self.members)

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl against the first node that answers."""
        for member in self.members:
            with suppress(CalledProcessError):
                return member.ctl(*arguments)
        raise AssertionError("no node answers")

    async def leader_of(self, queue: str) -> Member:
        """Return the node that leads a queue."""
        told = await asyncio.to_thread(self.ctl, "list_queues", "name", "leader")
        rows = [line.split() for line in told.splitlines()]
        (leader,) = [row[1] for row in rows if row[0] == queue]
        return next(member for member in self.members if member.name == leader)


@contextmanager
def three_members() -> Iterator[list[Member]]:
    first = Member()
    members = [first, *(Member(first) for _ in range(NODES - 1))]
    try:
        with ThreadPoolExecutor() as threads:
            first.start()
            list(threads.map(Member.start, members[1:]))
        for member in members[1:]:
            member.join(first)
        yield members
    finally:
        for member in reversed(members):
            with suppress(ProcessLookupError):
                member.send(signal.SIGCONT)
            member.close()


@asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    starting = three_members()
    members = await asyncio.to_thread(starting.__enter__)
    try:
        async with Proxy(*(member.port for member in members)) as balancer:
            yield Cluster(members, balancer)
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)


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
    came = await bench.told(await bench.publish_at_last("probe"), 60)
    return time.monotonic() - begun if came else NEVER

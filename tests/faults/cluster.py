"""Three RabbitMQ nodes as one cluster, and a balancer before them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from subprocess import CalledProcessError
from urllib.parse import urlsplit

from consumer.demo.broker import PrivateNode
from tests.faults.proxy import Proxy

NODES = 3
TICK_S = 4
"""After so long a silent node counts as gone; the default is a minute."""
HEARTBEAT_S = 2
MAJORITIES_WITHIN_S = 30


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

    def await_majorities(self) -> None:
        """Wait until each queue has a majority without it, as must who restarts nodes in turn.

        It is what `rabbitmq-upgrade await_online_quorum_plus_one` does.
        Source: https://www.rabbitmq.com/docs/man/rabbitmq-upgrade.8
        """
        wait = f"rabbit_upgrade_preparation:await_online_quorum_plus_one({MAJORITIES_WITHIN_S}000)."
        if self.ctl("eval", wait).strip() != "true":
            raise AssertionError(f"some queue of {self.name} has no majority without it")


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

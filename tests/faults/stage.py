"""Lends scenarios what they need, and clears it away."""

import asyncio
import copy
import random
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Literal, Self

import asyncpg

from consumer.demo.broker import PrivateNode
from consumer.rabbitmq.declaration import declare
from tests.faults.bench import Bench, Host, port_of
from tests.faults.portal import WatchedPortal, served
from tests.faults.proxy import Proxy
from tests.faults.traffic import Node
from tests.postgres import PrivateCluster

Store = Literal["SQLite", "PostgreSQL"]


class Stage:
    """Lends scenarios what they need.

    Args:
        node: The broker they share.
        cluster: The PostgreSQL they share, where one is wanted.
        full: Whether each fault comes as often and lasts as long as the promise says.
        folder: For ledgers and logs.

    Attributes:
        seed: Of all that is random.
        store: Where ledgers are kept.
    """

    store: Store = "SQLite"

    def __init__(
        self,
        node: PrivateNode,
        cluster: PrivateCluster | None,
        *,
        full: bool,
        seed: int,
        folder: Path,
    ) -> None:
        self.node = node
        self.full = full
        self._cluster = cluster
        self.seed = seed
        self._folder = folder
        self._count = count(1)

    def on(self, store: Store) -> Self:
        """Return the same stage with ledgers in *store*."""
        same = copy.copy(self)
        same.store = store
        return same

    def times(self, full: int, in_slice: int) -> int:
        return full if self.full else in_slice

    @asynccontextmanager
    async def bench(
        self,
        name: str,
        node: Node | None = None,
        *,
        cluster: PrivateCluster | None = None,
        ledger_in: Path | None = None,
    ) -> AsyncIterator[Bench]:
        """Set up a bench, and clear it away."""
        name = f"{name}{next(self._count)}"
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))
        portal, node = WatchedPortal(), node or self.node
        url = f"sqlite:///{(ledger_in or folder) / 'ledger.db'}"
        if self.store == "PostgreSQL":
            url = await _database(cluster or self._cluster, name)
        async with AsyncExitStack() as stack:
            portal_port = await stack.enter_async_context(served(portal))
            its_ledger = None if url.startswith("sqlite:") else Proxy(port_of(url))
            bench = Bench(
                node=node,
                name=name,
                folder=folder,
                portal=portal,
                portal_link=await stack.enter_async_context(Proxy(portal_port)),
                ledger_url=url,
                home=Host(
                    folder,
                    await stack.enter_async_context(Proxy(port_of(node.url))),
                    await stack.enter_async_context(its_ledger) if its_ledger else None,
                ),
                rng=random.Random(self.seed),  # noqa: S311  # to be repeated, not to be secret
            )
            await declare(node.url, bench.topology)
            listening = asyncio.create_task(bench.listen())
            try:
                yield bench
            finally:
                listening.cancel()
                for worker in bench.workers:
                    if worker.runs:
                        worker.send(signal.SIGKILL)
                await asyncio.gather(*(worker.ended(10) for worker in bench.workers))

    @asynccontextmanager
    async def own_node(self) -> AsyncIterator[PrivateNode]:
        """Start a broker whose ups and downs bother no other scenario."""
        node = PrivateNode()
        try:
            await asyncio.to_thread(node.start)
            yield node
        finally:
            await asyncio.to_thread(node.close)

    @asynccontextmanager
    async def own_cluster(self) -> AsyncIterator[PrivateCluster]:
        """Start a PostgreSQL whose ups and downs bother no other scenario."""
        cluster = await asyncio.to_thread(PrivateCluster)
        try:
            await asyncio.to_thread(cluster.start)
            yield cluster
        finally:
            await asyncio.to_thread(cluster.close)


async def _database(cluster: PrivateCluster | None, name: str) -> str:
    """Make a database in *cluster*; return its URL."""
    if cluster is None:
        raise AssertionError("this stage has no PostgreSQL")
    connection = await asyncpg.connect(cluster.url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return f"{cluster.url.rpartition('/')[0]}/{name}"

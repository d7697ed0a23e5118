"""Where the tests get a PostgreSQL: the first of four ways that works, as for the broker."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from consumer.demo.broker import BrokerUnavailable, Say, docker_answers, end_of, to_stderr
from consumer.demo.installer import install
from consumer.demo.private_node import free_ports

IMAGE = "postgres:17-alpine"
WITHIN_S = 60.0
FOUR_WAYS = """There is no PostgreSQL to use. Any one of these gives one:
  - TEST_POSTGRES_URL in the environment names a running server
  - Docker answers, and has or gets the image
  - PostgreSQL's server is installed: a private cluster of it is started
  - root may install postgresql with apt-get"""


class NoPostgres(RuntimeError):
    """Raised where none of the four ways leads to a server."""


@contextmanager
def postgres(say: Say = to_stderr) -> Iterator[str]:
    """Yield a server's URL; what we started ends with the block."""
    with ExitStack() as stack:
        for way in (named, in_container, private, installed):
            if url := way(stack, say):
                yield url
                return
        raise NoPostgres(FOUR_WAYS)


def named(_: ExitStack, __: Say) -> str | None:
    """Use the server that `TEST_POSTGRES_URL` names."""
    return os.environ.get("TEST_POSTGRES_URL") or None


def in_container(stack: ExitStack, say: Say) -> str | None:
    """Start a container, where Docker answers."""
    if not docker_answers():
        return None
    from testcontainers.postgres import PostgresContainer  # noqa: PLC0415  # as for the broker

    say(f"starting a container of {IMAGE}")
    try:
        container = stack.enter_context(PostgresContainer(IMAGE, driver=None))
        return str(container.get_connection_url())
    except Exception as error:  # noqa: BLE001  # whatever went wrong, there are other ways
        say(f"the container failed, going on without it: {end_of(str(error))}")
    return None


def private(stack: ExitStack, say: Say) -> str | None:
    """Start a private cluster, where the server is installed."""
    if find_server() is None:
        return None
    say("starting a private PostgreSQL")
    return stack.enter_context(PrivateCluster()).url


def installed(stack: ExitStack, say: Say) -> str | None:
    """Install Debian's package, where we may, and start a private cluster of it."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return None
    say("installing postgresql with apt-get (some minutes)")
    try:
        install(apt, "postgresql")
    except (BrokerUnavailable, OSError, subprocess.TimeoutExpired) as error:
        say(f"apt-get failed, going on without it: {end_of(str(error))}")
        return None
    return private(stack, say)


def find_server() -> Path | None:
    """Return the folder of the newest server's programs; Debian keeps them off the PATH."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")]
    if found:
        return max(found, key=lambda folder: float(folder.parent.name))
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class PrivateCluster:
    """A throwaway PostgreSQL on loopback. `stop` and `start` keep its data and its port."""

    def __init__(self) -> None:
        programs = find_server()
        if programs is None:
            raise NoPostgres(FOUR_WAYS)
        self._programs = programs
        (self._port,) = free_ports(1)
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._user = self._someone() if os.geteuid() == 0 else None  # root may not run it
        self.url = f"postgresql://tester:tester@127.0.0.1:{self._port}/postgres"
        if self._user:
            shutil.chown(self._folder, self._user)
        password = self._folder / "password"
        password.write_text("tester")
        password.chmod(0o644)
        self._run(
            "initdb",
            *("--username=tester", f"--pwfile={password}", "--auth=scram-sha-256"),
            *("--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata", self._data),
        )

    @staticmethod
    def _someone() -> str:
        for name in ("postgres", "nobody"):
            with suppress(KeyError):
                return pwd.getpwnam(name).pw_name
        raise NoPostgres("root may not run PostgreSQL, and there is no user postgres or nobody")

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    @property
    def _replica(self) -> str:
        return str(self._folder / "replica")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._launch(self._data, self._port)

    def _launch(self, data: str, port: int) -> None:
        options = (
            f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
            " -c fsync=off -c max_connections=200"  # it outlives its own crash, not the machine's
        )
        log = str(self._folder / "log")
        self._run("pg_ctl", "--pgdata", data, "-o", options, "-l", log, "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: ``immediate`` as a crash would, ``fast`` in order."""
        self._run("pg_ctl", "--pgdata", self._data, "-m", mode, "-w", "stop")

    def add_replica(self) -> None:
        """Start a replica that has each commit before its client hears of it.

        Source: https://www.postgresql.org/docs/15/warm-standby.html#SYNCHRONOUS-REPLICATION
        """
        (self._replica_port,) = free_ports(1)
        source = f"host=127.0.0.1 port={self._port} user=tester password=tester"
        self._run(
            "pg_basebackup",
            *("--pgdata", self._replica, "--dbname", source, "--wal-method=stream"),
            *("--checkpoint=fast", "--write-recovery-conf", "--no-sync"),
        )
        self._launch(self._replica, self._replica_port)
        self._ask("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self._ask("SELECT pg_reload_conf()")

    def fail_over(self) -> None:
        """Lose the primary with its data, and promote the replica, which gets its address."""
        self.stop()
        self._run("pg_ctl", "--pgdata", self._replica, "-w", "promote")
        self._run("pg_ctl", "--pgdata", self._replica, "-m", "fast", "-w", "stop")
        shutil.rmtree(self._data)
        Path(self._replica).rename(self._data)
        self.start()

    def _ask(self, statement: str) -> None:
        self._run("psql", "--dbname", self.url, "--quiet", "--command", statement)

    def close(self) -> None:
        """Stop it if it runs, and remove it, its replica too."""
        if Path(self._replica).exists():
            with suppress(NoPostgres):
                self._run("pg_ctl", "--pgdata", self._replica, "-m", "immediate", "-w", "stop")
        with suppress(NoPostgres):
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        log = self._folder / "commands"
        with log.open("a") as said:  # no pipe: the server would hold it open
            done = subprocess.run(
                [self._programs / program, *arguments],
                user=self._user,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                check=False,
                timeout=WITHIN_S,
            )
        if done.returncode:
            raise NoPostgres(f"{program} failed: {end_of(log.read_text())}")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

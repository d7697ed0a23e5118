"""Where `make demo` and `make test` get a RabbitMQ: the first of four ways that works.

`rabbitmq` tries `named`, `in_container`, `private` and `installed`, in this order. `PrivateNode` is
a node of our own, which fault tests may stop and kill.
"""

import asyncio
import gc
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import aio_pika
import click

Say = Callable[[str], None]
to_stderr: Say = partial(click.echo, err=True)

IMAGE = "rabbitmq:4-management"
SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one in /usr/sbin changes to another user
POLICY = Path("/usr/sbin/policy-rc.d")

NAMED_WITHIN_S = 5.0
DOCKER_WITHIN_S = 2
START_WITHIN_S = 60.0
STOP_WITHIN_S = 30.0
INSTALL_WITHIN_S = 600.0
LOGIN_WITHIN_S = 5.0
EPMD_WITHIN_S = 5.0
CTL_WITHIN_S = 60.0
LOG_LINES = 20

FOUR_WAYS = """There is no RabbitMQ to use. Any one of these gives one:
  - TEST_RABBITMQ_URL in the environment names a running broker
  - Docker answers, and testcontainers is installed (the extra `demo`)
  - rabbitmq-server is installed: a private node of it is started
  - root may install rabbitmq-server with apt-get"""


class NoBroker(RuntimeError):
    """Raised where no RabbitMQ can be had, or one that should answer does not."""


@contextmanager
def rabbitmq(say: Say = to_stderr) -> Iterator[str]:
    """Yield the AMQP URL of a broker that accepts a login; what we started ends with the block.

    Args:
        say: Is told in one line what is being done.

    Raises:
        NoBroker: None of the four ways led to one, or `TEST_RABBITMQ_URL` does not answer.
    """
    with ExitStack() as stack:
        for way in (named, in_container, private, installed):
            if url := way(stack, say):
                yield url
                return
        raise NoBroker(FOUR_WAYS)


def named(_: ExitStack, say: Say) -> str | None:
    """Use the broker that `TEST_RABBITMQ_URL` names, as it is."""
    url = os.environ.get("TEST_RABBITMQ_URL")
    if not url:
        return None
    say(f"using the RabbitMQ that TEST_RABBITMQ_URL names, at {address(url)}")
    try:
        wait_for_login(url, NAMED_WITHIN_S)
    except NoBroker as error:
        raise NoBroker(f"TEST_RABBITMQ_URL: no login at {address(url)} ({error})") from None
    return url


def in_container(stack: ExitStack, say: Say) -> str | None:
    """Start a container, where Docker answers."""
    if not docker_answers():
        return None
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - an optional extra

    say(f"starting a container of {IMAGE}")
    try:
        with ExitStack() as ours:
            container = ours.enter_context(DockerContainer(IMAGE).with_exposed_ports(5672))
            host, port = container.get_container_host_ip(), container.get_exposed_port(5672)
            url = f"amqp://guest:guest@{host}:{port}/"
            wait_for_login(url, START_WITHIN_S)
            stack.enter_context(ours.pop_all())
            return url
    except Exception as error:  # noqa: BLE001 - whatever went wrong, there are other ways
        say(f"the container failed, going on without it: {end_of(str(error))}")
    return None


def docker_answers() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415 - as above

            client = DockerClient(timeout=DOCKER_WITHIN_S).client
        except Exception:  # noqa: BLE001 - not installed, no daemon, no permission: no Docker
            return False
        finally:
            gc.collect()  # the socket that met no daemon, which docker leaves open
    client.close()  # making it asked the daemon for its version
    return True


def private(stack: ExitStack, say: Say) -> str | None:
    """Start a private node, where rabbitmq-server is installed."""
    server = find_server()
    if server is None:
        return None
    say(f"starting a private node of {server}")
    return stack.enter_context(PrivateNode()).url


def installed(stack: ExitStack, say: Say) -> str | None:
    """Install Debian's package, where we may, and start a private node of it."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return None
    say("installing rabbitmq-server with apt-get (some minutes)")
    try:
        install(apt)
    except (NoBroker, OSError, subprocess.TimeoutExpired) as error:
        say(f"apt-get failed, going on without it: {end_of(str(error))}")
        return None
    return private(stack, say)


def install(apt: str) -> None:
    with services_kept_off():
        apt_get(apt, "update")  # should it fail, older lists may do
        done = apt_get(apt, "install", "-y", "--no-install-recommends", "rabbitmq-server")
    if done.returncode:
        raise NoBroker(done.stdout)


def apt_get(apt: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - apt-get
        [apt, *arguments],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        timeout=INSTALL_WITHIN_S,
    )


@contextmanager
def services_kept_off() -> Iterator[None]:
    """Keep the package's postinst from starting the machine's own node.

    Source: /usr/share/doc/init-system-helpers/README.policy-rc.d.gz
    """
    try:
        policy = POLICY.open("x")
    except FileExistsError:  # the machine has its own, such as Docker's, which forbids it too
        yield
        return
    try:
        with policy:
            policy.write("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
        yield
    finally:
        POLICY.unlink()


def find_server() -> str | None:
    if shutil.which("epmd") is None:
        return None
    return shutil.which(SERVER) or shutil.which("rabbitmq-server")


class PrivateNode:
    """A throwaway RabbitMQ on loopback with a name, ports, data and an epmd of its own.

    As a context manager it starts on entry and is closed on exit. `stop` and `kill` keep data and
    ports, so that `start` brings the same node back.

    Raises:
        NoBroker: rabbitmq-server is not installed.
    """

    def __init__(self) -> None:
        server = find_server()
        if server is None:
            raise NoBroker("rabbitmq-server, or the epmd it needs, is not installed")
        port, distribution_port, self._epmd_port = free_ports(3)
        self.directory = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/"
        self._server = server
        self._environment = environment(self.directory, port, distribution_port, self._epmd_port)
        self._epmd: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None
        cookie = self.directory / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the node and wait until it accepts a login, which takes about 5 s.

        Raises:
            NoBroker: It ended, or accepted none within `START_WITHIN_S`; with the end of its log.
        """
        if not runs(self._epmd):
            self._start_epmd()
        if not runs(self._node):
            self._node = self._spawn(self._server)
        try:
            wait_for_login(self.url, START_WITHIN_S, lambda: runs(self._node))
        except NoBroker as error:
            raise NoBroker(f"the private node did not start: {error}\n{self._log_end()}") from None

    def stop(self) -> None:
        """End the node as an operator would; its data stays."""
        if self._node is not None:
            self._node.terminate()
            try:
                self._node.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End the node as a crash would.

        3.10 then forgets what was declared just before, unless `ctl("eval", "mnesia:sync_log().")`
        wrote that down.
        """
        end(self._node)

    def close(self) -> None:
        """End the node, then its epmd (the node would start another), and forget its data."""
        end(self._node)
        end(self._epmd)
        shutil.rmtree(self.directory, ignore_errors=True)

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl against the node and return what it printed.

        Raises:
            subprocess.CalledProcessError: It failed; `stderr` says why.
        """
        return subprocess.run(  # noqa: S603 - the node's own tool
            [Path(self._server).with_name("rabbitmqctl"), "--quiet", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            text=True,
            timeout=CTL_WITHIN_S,
        ).stdout

    def _start_epmd(self) -> None:
        # As our child it can be ended; the one that a node starts detaches itself and outlives it.
        port = self._epmd_port
        self._epmd = self._spawn("epmd", "-address", "127.0.0.1", "-port", str(port))
        deadline = time.monotonic() + EPMD_WITHIN_S
        while is_free(port):
            if not runs(self._epmd) or time.monotonic() > deadline:
                raise NoBroker(f"epmd did not start on port {port}\n{self._log_end()}")
            time.sleep(0.02)

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        # Erlang prepares for all files it may open, and some containers allow a billion.
        limited = 'ulimit -n 65536 2>/dev/null; exec "$0" "$@"'
        with (self.directory / "node.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - rabbitmq-server or epmd
                ["/bin/sh", "-c", limited, *command],
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: we end the node
            )

    def _log_end(self) -> str:
        lines = (self.directory / "node.log").read_text(errors="replace").splitlines()
        return "\n".join(["the end of its log:", *lines[-LOG_LINES:]])


def environment(home: Path, port: int, distribution_port: int, epmd_port: int) -> dict[str, str]:
    """Describe a node that shares nothing with the machine's own: name, ports, files, cookie.

    Source: https://www.rabbitmq.com/docs/configure#supported-environment-variables
    """
    foreign = ("RABBITMQ_", "ERL_", "NOTIFY_SOCKET")
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    files = "CONF_ENV_FILE CONFIG_FILE CONFIG_FILES ADVANCED_CONFIG_FILE ENABLED_PLUGINS_FILE"
    folders = "MNESIA_BASE LOG_BASE"
    erlang = "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"
    ours = {
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_CRASH_DUMP_SECONDS": "0",
        "RABBITMQ_NODENAME": f"private-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": erlang,
        "RABBITMQ_CTL_ERL_ARGS": erlang,
        "RABBITMQ_CTL_DIST_PORT_MIN": "0",  # any; the default is one of ten
        "RABBITMQ_CTL_DIST_PORT_MAX": "0",
        "RABBITMQ_LOGS": "-",
        "RUNNING_UNDER_SYSTEMD": "true",  # the script then becomes the node, so its id is ours
    }
    paths = {f"RABBITMQ_{name}": str(home / name.lower()) for name in f"{files} {folders}".split()}
    return theirs | ours | paths


def free_ports(count: int) -> list[int]:
    """Choose free ports below 32768, where no outgoing connection takes one during a restart."""
    candidates = random.sample(range(20000, 30000), 1000)  # no secret
    return [port for port in candidates if is_free(port)][:count]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def runs(process: subprocess.Popen[bytes] | None) -> bool:
    return process is not None and process.poll() is None


def end(process: subprocess.Popen[bytes] | None) -> None:
    """Kill *process* with its group, if it still runs."""
    if process is not None and process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for_login(url: str, within_s: float, goes_on: Callable[[], bool] = lambda: True) -> None:
    """Return once *url* accepts a login.

    Raises:
        NoBroker: It did not within *within_s* seconds, or *goes_on* said no; with the last reason.
    """
    deadline = time.monotonic() + within_s
    while reason := refusal(url):
        if not goes_on() or time.monotonic() > deadline:
            raise NoBroker(reason)
        time.sleep(0.1)


def refusal(url: str) -> str | None:
    """Try to log in, and name the error if that fails; its text could hold the password."""
    with ThreadPoolExecutor(1) as thread:  # the caller's may already run an event loop
        error = thread.submit(lambda: asyncio.run(log_in(url))).exception()
    return type(error).__name__ if error else None


async def log_in(url: str) -> None:
    parts = urlsplit(url)
    async with asyncio.timeout(LOGIN_WITHIN_S):
        if parts.scheme == "amqp":  # aiormq would log a warning for each try that comes too early
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 5672)
            try:
                writer.write(b"AMQP\x00\x00\x09\x01")
                await reader.readexactly(1)
            finally:
                writer.close()
        connection = await aio_pika.connect(url)
        await connection.close()


def end_of(text: str) -> str:
    """Put the last 300 characters, where tools tell what went wrong, on one line."""
    return " ".join(text.split())[-300:]


def address(url: str) -> str:
    """Say where *url* points to, without its password."""
    try:
        parts = urlsplit(url)
        port = parts.port or 5672
    except ValueError:  # the password holds a character that should be escaped
        return "an address that cannot be read"
    return f"{parts.hostname}:{port}"

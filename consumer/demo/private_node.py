"""A throwaway RabbitMQ node of an installed rabbitmq-server, and how to start one."""

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from consumer.demo.login import wait_for_login
from consumer.demo.signals import signals_held
from consumer.demo.ways import find_server
from consumer.rabbitmq.losses import BrokerUnavailable

START_WITHIN_S = 60.0
STOP_WITHIN_S = 30.0
EPMD_WITHIN_S = 5.0
CTL_WITHIN_S = 60.0
LOG_LINES = 20


class PrivateNode:
    """A throwaway RabbitMQ on loopback with a name, ports, data and an epmd of its own.

    As a context manager it starts on entry and is closed on exit. `stop` and `kill` keep data and
    ports, so that `start` brings the same node back.

    Raises:
        BrokerUnavailable: rabbitmq-server is not installed.
    """

    def __init__(self) -> None:
        server = find_server()
        if server is None:
            text = "rabbitmq-server, or the epmd it needs, is not installed"
            raise BrokerUnavailable(f"{text}: apt-get install rabbitmq-server")
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
            BrokerUnavailable: It ended, or accepted none within `START_WITHIN_S`; with the end of
                its log.
        """
        if not runs(self._epmd):
            self._start_epmd()
        if not runs(self._node):
            with signals_held():
                self._node = self._spawn(self._server)
        try:
            wait_for_login(self.url, START_WITHIN_S, lambda: runs(self._node))
        except BrokerUnavailable as error:
            raise BrokerUnavailable(
                f"the private node did not start: {error}\n{self._log_end()}"
            ) from None

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
        return subprocess.run(  # noqa: S603  # the node's own tool
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
        with signals_held():
            self._epmd = self._spawn("epmd", "-address", "127.0.0.1", "-port", str(port))
        deadline = time.monotonic() + EPMD_WITHIN_S
        while is_free(port):
            if not runs(self._epmd) or time.monotonic() > deadline:
                raise BrokerUnavailable(f"epmd did not start on port {port}\n{self._log_end()}")
            time.sleep(0.02)

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        # Erlang prepares for all files it may open, and some containers allow a billion.
        limited = 'ulimit -n 65536 2>/dev/null; exec "$0" "$@"'
        with (self.directory / "node.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603  # rabbitmq-server or epmd
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

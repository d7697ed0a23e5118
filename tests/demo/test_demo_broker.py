import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import aio_pika
import pytest
from yarl import URL

from consumer.demo import broker as devbroker
from consumer.demo import installer
from consumer.demo.broker import BrokerUnavailable, PrivateNode
from consumer.demo.login import refusal
from consumer.demo.signals import SIGNALS, signals_held

needs_server = pytest.mark.skipif(
    "devbroker.find_server() is None",
    reason="rabbitmq-server is not installed: the broker is a named one or a container",
)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_RABBITMQ_URL", raising=False)
    monkeypatch.setattr(devbroker, "docker_answers", lambda: False)


def expect_none(said: list[str]) -> None:
    with devbroker.rabbitmq(said.append) as url:
        pytest.fail(f"there should be no broker, not {url}")


def processes_in(directory: Path) -> list[str]:
    """List what runs with a home in *directory*: a node, its epmd, and what they started."""
    mark = f"HOME={directory}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in process.joinpath("environ").read_bytes():
                found.append(process.joinpath("comm").read_text().strip())
        except OSError:  # it has just ended, or is another user's
            continue
    return found


def left_in(directory: Path) -> list[str]:
    deadline = time.monotonic() + 3  # Erlang's port programs end once they notice
    while processes_in(directory) and time.monotonic() < deadline:
        time.sleep(0.05)
    return processes_in(directory) + [str(path) for path in directory.glob("*")]


def test_the_named_broker_comes_first_and_is_not_stopped(
    rabbitmq_url: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_RABBITMQ_URL", rabbitmq_url)

    with devbroker.rabbitmq(said.append) as url:
        assert url == rabbitmq_url

    assert [line.partition(", at")[0] for line in said] == [
        "using the RabbitMQ that TEST_RABBITMQ_URL names"
    ]
    assert refusal(rabbitmq_url) is None


NAMES = {
    "nothing there": "amqp://guest:hush@127.0.0.1:1/",
    "slash in the password": "amqp://guest:hush/hush@127.0.0.1:1/",
    "hash in the password": "amqp://guest:hush#hush@127.0.0.1:1/",
    "no URL": "guest:hush",
}


@pytest.mark.parametrize("url", NAMES.values(), ids=NAMES)
def test_a_named_broker_that_does_not_answer_is_an_error_without_its_password(
    url: str, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devbroker, "NAMED_WITHIN_S", 0)
    monkeypatch.setenv("TEST_RABBITMQ_URL", url)

    with pytest.raises(BrokerUnavailable, match="TEST_RABBITMQ_URL: no login at") as raised:
        expect_none(said)

    assert "hush" not in f"{raised.value} {said}"


def test_a_wrong_password_is_told_from_a_broker_that_is_not_there(rabbitmq_url: str) -> None:
    wrong = str(URL(rabbitmq_url).with_password("wrong"))

    assert refusal(wrong) == "ProbableAuthenticationError"
    assert refusal("amqp://127.0.0.1:1/") == "ConnectionRefusedError"


@pytest.mark.usefixtures("no_docker")
def test_without_any_way_the_error_names_them_all(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(BrokerUnavailable) as raised:
        expect_none(said)

    for way in ("TEST_RABBITMQ_URL", "Docker answers", "rabbitmq-server", "apt-get"):
        assert way in str(raised.value)
    assert said == []


def test_a_docker_that_does_not_answer_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")

    assert devbroker.in_container(ExitStack(), pytest.fail) is None


def test_a_container_that_fails_is_told_and_passed_over(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pull(image: str) -> None:
        raise OSError(f"{image}:\nno such image")

    module = ModuleType("testcontainers.core.container")
    module.__dict__["DockerContainer"] = pull
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(devbroker, "docker_answers", lambda: True)

    assert devbroker.in_container(ExitStack(), said.append) is None
    assert said == [
        "starting a container of rabbitmq:4-management",
        "the container failed, going on without it: rabbitmq:4-management: no such image",
    ]


@needs_server
async def test_a_private_node_outlives_a_kill_with_its_data_but_not_its_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with PrivateNode() as node:
        await put(node.url)
        node.ctl("eval", "mnesia:sync_log().")
        node.kill()
        assert refusal(node.url) == "ConnectionRefusedError"
        node.start()
        assert await take(node.url) == b"kept"

        assert {"beam.smp", "epmd"} <= set(processes_in(tmp_path))
        assert node.ctl("list_queues", "name", "messages").split()[-2:] == ["kept", "0"]
        node.stop()
        assert "beam.smp" not in processes_in(tmp_path)

    assert left_in(tmp_path) == []


async def put(url: str) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("kept", durable=True)
        message = aio_pika.Message(b"kept", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, queue.name)


async def take(url: str) -> bytes:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue("kept")
        message = await queue.get()
        await message.ack()
        return message.body


@needs_server
@pytest.mark.usefixtures("no_docker")
def test_a_private_node_that_does_not_start_shows_its_log_and_leaves_nothing(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("consumer.demo.private_node.START_WITHIN_S", 0)

    with pytest.raises(BrokerUnavailable, match="ConnectionRefusedError\nthe end of its log:"):
        expect_none(said)

    assert said == [f"starting a private node of {devbroker.find_server()}"]
    assert left_in(tmp_path) == []


@needs_server
@pytest.mark.parametrize("interrupted", [1, 2], ids=["epmd", "node"])
def test_ctrl_c_while_a_process_is_being_started_leaves_nothing(
    interrupted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = count(1)

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  # as Popen
            super().__init__(*arguments, **options)
            if next(started) == interrupted:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(subprocess, "Popen", Popen)

    with pytest.raises(KeyboardInterrupt), PrivateNode():
        pytest.fail("it should not get as far")

    assert left_in(tmp_path) == []


def test_a_program_that_does_not_start_leaves_signals_as_they_were() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]

    with pytest.raises(FileNotFoundError), signals_held():
        subprocess.Popen(["/nowhere"])

    assert [signal.getsignal(number) for number in SIGNALS] == before


async def test_outside_the_main_thread_no_signal_needs_holding() -> None:
    def hold() -> None:
        with signals_held():
            pass

    await asyncio.to_thread(hold)


APT_GET = """#!/bin/sh
echo "$DEBIAN_FRONTEND $*: $(tail -n 1 {policy})" >>{log}
[ $1 = update ] || {{ echo E: no network; exit {code}; }}
"""


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(installer, "POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda _: str(tmp_path / "apt-get"))
    monkeypatch.setattr(devbroker, "private", lambda *_: "amqp://installed/")
    return installer.POLICY


def write_apt_get(policy: Path, code: int) -> Path:
    log = policy.with_name("log")
    program = policy.with_name("apt-get")
    program.write_text(APT_GET.format(policy=policy, log=log, code=code))
    program.chmod(0o755)
    return log


def test_root_gets_the_package_without_its_service(policy: Path, said: list[str]) -> None:
    log = write_apt_get(policy, 0)

    assert devbroker.installed(ExitStack(), said.append) == "amqp://installed/"
    assert log.read_text().splitlines() == [
        "noninteractive update: exit 101",
        "noninteractive install -y --no-install-recommends rabbitmq-server: exit 101",
    ]
    assert not policy.exists()


def test_a_failed_installation_is_told_and_the_machines_own_policy_is_kept(
    policy: Path, said: list[str]
) -> None:
    policy.write_text("its own")
    log = write_apt_get(policy, 100)

    assert devbroker.installed(ExitStack(), said.append) is None
    assert said[1] == "apt-get failed, going on without it: E: no network"
    assert log.read_text().endswith(": its own\n")
    assert policy.read_text() == "its own"


@pytest.mark.usefixtures("policy")
def test_nobody_but_root_installs_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    assert devbroker.installed(ExitStack(), pytest.fail) is None

"""Whether there is a way to a broker is said at once, by a Python that has nothing installed."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from consumer.demo import ways

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make this a machine without root, broker and Docker."""
    for name in ("TEST_RABBITMQ_URL", "DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(ways, "SERVER", str(tmp_path / "rabbitmq-server"))
    monkeypatch.setattr(ways, "SOCKETS", (str(tmp_path / "docker.sock"),))
    monkeypatch.setattr("os.geteuid", lambda: 1000)


def program(folder: Path, name: str) -> None:
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


@pytest.mark.usefixtures("bare")
def test_a_machine_without_any_way_is_told_two_commands_that_give_one() -> None:
    told = ways.objection()

    assert told == ways.NO_WAY
    commands = re.findall(r"^  (\S.+)$", told, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["sudo", "docker"]


@pytest.mark.usefixtures("bare")
def test_an_installed_server_is_a_way(tmp_path: Path) -> None:
    program(tmp_path, "rabbitmq-server")
    assert ways.objection(), "without epmd it does not start"

    program(tmp_path, "epmd")
    assert ways.objection() is None


@pytest.mark.usefixtures("bare")
def test_root_may_install_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "apt-get")
    assert ways.objection()

    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert ways.objection() is None


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("named", [False, True])
def test_a_docker_that_listens_is_a_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    path = tmp_path / ("elsewhere.sock" if named else "docker.sock")
    if named:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert ways.objection(), "a socket that nobody listens at is none"
        server.listen()
        assert ways.objection() is None


@pytest.mark.usefixtures("bare")
def test_a_docker_on_another_machine_is_left_to_testcontainers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://elsewhere")

    assert ways.objection() is None


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("url", ["amqp://guest:hush@127.0.0.1:1/", "guest:hush", "amqp://u:h/@a:b"])
def test_a_named_broker_must_answer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_RABBITMQ_URL", url)

    told = ways.objection() or ""

    assert told.startswith("TEST_RABBITMQ_URL: nothing answers at ")
    assert "hush" not in told


def test_a_named_broker_that_answers_is_a_way(
    rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_RABBITMQ_URL", rabbitmq_url)

    assert ways.objection() is None


def test_make_says_no_before_it_installs_anything(tmp_path: Path) -> None:
    named = {"TEST_RABBITMQ_URL": "amqp://127.0.0.1:1/"}
    venv = tmp_path / "venv"
    # With -S the Python has nothing installed.
    command = ["make", f"PYTHON={sys.executable} -S", f"VENV={venv}", "demo"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | named, capture_output=True, text=True, check=False
    )

    assert done.returncode
    assert "TEST_RABBITMQ_URL: nothing answers at 127.0.0.1:1" in done.stderr
    assert not venv.exists()

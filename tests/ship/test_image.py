"""The image: small, without what built it, and content with no rights at all."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.home import HOME, PROJECT
from tests.portals import ForeignPortal
from tests.ship.engine import base_python, docker
from tests.workbench import Bench

MOST_BYTES = 150_000_000
"""Above the base."""
OURS_BYTES = 5_000_000
LOCKED_DOWN = (
    *("--network", "host"),
    *("--read-only", "--tmpfs", "/var/lib/call-consumer"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--user", "12345"),
)


@pytest.fixture
def containers() -> Iterator[list[str]]:
    """Lend a list of containers to be removed."""
    started: list[str] = []
    yield started
    for container in started:
        docker("rm", "--force", container)


def described(image: str) -> dict[str, Any]:
    (told,) = json.loads(docker("image", "inspect", image))
    return dict(told)


@pytest.fixture(scope="module")
def sandbox(image: str) -> Iterator[str]:
    """Lend a container that runs, to look inside."""
    container = docker("run", "--detach", image, "sandbox").strip()
    yield container
    docker("rm", "--force", container)


def test_it_adds_little_to_its_base(image: str) -> None:
    base = f"python:{base_python()}-slim"

    assert described(image)["Size"] - described(base)["Size"] <= MOST_BYTES


def test_it_runs_the_worker_without_a_shell_as_a_fixed_user(image: str) -> None:
    config = described(image)["Config"]

    assert (config["Entrypoint"], config["Cmd"]) == (["call-consumer"], ["run"])
    assert config["User"] == "10001:10001"
    assert list(config["ExposedPorts"]) == ["8080/tcp"]


def test_its_labels_tell_what_it_is_and_of_what(image: str) -> None:
    labels = described(image)["Config"]["Labels"]
    told = {
        key.removeprefix("org.opencontainers.image."): value
        for key, value in labels.items()
        if key.startswith("org.opencontainers")
    }

    assert told == {
        "title": PROJECT["name"],
        "description": told["description"],
        "licenses": PROJECT["license"],
        "version": PROJECT["version"],
        "revision": "unknown",  # `make release` tells them
        "created": "unknown",
        "source": HOME,
        "base.name": f"python:{base_python()}-slim",
    }


def test_a_release_of_ours_moves_one_small_layer(image: str) -> None:
    shown = docker("history", "--format", "{{.Size}} {{.CreatedBy}}", "--human=false", image)
    copied = [int(line.split()[0]) for line in shown.splitlines() if "COPY" in line]

    ours, dependencies = copied
    assert ours < OURS_BYTES < dependencies


def test_it_holds_nothing_that_built_it_installs_packages_or_starts_brokers(sandbox: str) -> None:
    names = ("pip", "ensurepip", "hatchling", "pytest", "consumer.demo")
    program = (
        "from importlib.util import find_spec; "
        f"print([name for name in {names} if find_spec(name)])"
    )

    assert docker("exec", sandbox, "python", "-c", program).strip() == "[]"
    told = docker("exec", sandbox, "call-consumer", "demo", check=False)
    assert told.strip() == "Error: the demo is not in the image: run `make demo` in the repository"


def test_all_of_it_is_compiled(sandbox: str) -> None:
    program = (
        "import sys; from importlib.util import cache_from_source; from pathlib import Path; "
        "print([str(file) for file in Path(sys.prefix).rglob('*.py')"
        " if not Path(cache_from_source(file)).exists()])"
    )

    assert docker("exec", sandbox, "python", "-c", program).strip() == "[]"


def test_it_runs_every_command(sandbox: str) -> None:
    assert "--port" in docker("exec", sandbox, "call-consumer", "sandbox", "--help")
    assert "replay" in docker("exec", sandbox, "call-consumer", "dlq", "--help")
    assert "$schema" in docker("exec", sandbox, "call-consumer", "schema", "call.requested")


def environment(bench: Bench, **changes: object) -> list[str]:
    given = bench.given | {"ledger_url": "sqlite:///call-ledger.db"} | changes
    given["retry_delays_s"] = ",".join(map(str, bench.given["retry_delays_s"]))
    return [f"--env=CALLS_{name.upper()}={value}" for name, value in given.items()]


async def test_without_any_rights_it_finishes_its_call_when_told_to_stop(
    image: str, bench: Bench, foreign: ForeignPortal, containers: list[str]
) -> None:
    foreign.may_answer.clear()
    settings = environment(bench, bitrix24_url=foreign.url)
    told = await asyncio.to_thread(docker, "run", "--detach", *LOCKED_DOWN, *settings, image)
    containers.append(told.strip())
    asked = await bench.ask()
    await asyncio.wait_for(foreign.arrived.wait(), 30)

    stopping = asyncio.create_task(asyncio.to_thread(docker, "stop", "--time=30", *containers))
    await bench.until(lambda: "worker.draining" in docker("logs", *containers))
    foreign.may_answer.set()
    await stopping

    assert (await bench.event(asked)).message.type == "call.started"
    assert "worker.stopped" in docker("logs", *containers)
    assert docker("inspect", "--format", "{{.State.ExitCode}}", *containers).strip() == "0"


@pytest.mark.parametrize(
    ("told", "who"), [((), "call-consumer"), (("--env", "USER=ada"), "ada")], ids=["", "told who"]
)
async def test_who_discards_is_logged_though_the_user_has_no_name(
    image: str, bench: Bench, told: tuple[str, ...], who: str
) -> None:
    await bench.publish(b"not JSON", to_queue=True)
    async with bench.running():
        await bench.event(None)
    command = ("dlq", "discard", "--all", "--why", "a trial")
    options = ("--rm", *LOCKED_DOWN, *told, *environment(bench))
    log = await asyncio.to_thread(docker, "run", *options, image, *command, check=False)

    assert f'"who": "{who}"' in log
    assert "discarded 1" in log

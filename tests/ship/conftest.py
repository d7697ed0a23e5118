"""What ships, as it ships: `make ship` tests it. Needs a container engine, and minutes."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.ship.engine import base_python, docker

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def _engine() -> None:
    try:
        docker("version")
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"nothing was built, as no container engine answers: {error}")


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lend what a commit of now would hold: nothing that Git ignores may be needed."""
    folder = tmp_path_factory.mktemp("clone")
    wanted = ("--cached", "--others", "--exclude-standard")
    command = ["git", "-C", str(ROOT), "ls-files", "-z", *wanted]
    listed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def image(clone: Path) -> Iterator[str]:
    name = f"call-consumer-ship-{uuid4().hex[:8]}"
    python = f"--build-arg=PYTHON={base_python()}"
    file = clone / "docker" / "Dockerfile"
    docker("build", "--quiet", python, "--tag", name, "--file", file, clone)
    yield name
    docker("image", "rm", name)

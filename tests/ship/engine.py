"""The container engine, through its own command line."""

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DOCKERFILE = Path(__file__).parents[2] / "docker" / "Dockerfile"
OLDER = "3.13"


def docker(*arguments: str | Path, check: bool = True) -> str:
    """Run docker and return what it printed; with *check* off what it complained of, too."""
    errors = None if check else subprocess.STDOUT
    command = ["docker", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, check=check)
    return done.stdout


def base_python() -> str:
    """Return the Python of the image's base; of an older base, where only that is to be had."""
    (wanted,) = re.findall(r"^ARG PYTHON=(.+)$", DOCKERFILE.read_text(), re.MULTILINE)
    return next((each for each in (wanted, OLDER) if _is_there(f"python:{each}-slim")), wanted)


def _is_there(image: str) -> bool:
    ways = (["image", "inspect"], ["pull", "--quiet"])
    commands = [["docker", *way, image] for way in ways]
    return any(
        subprocess.run(command, capture_output=True, check=False).returncode == 0
        for command in commands
    )


@contextmanager
def health_checked(project: str) -> Iterator[None]:
    """Have the health of a project's containers checked: Podman leaves that to systemd's timers."""
    if "Podman" not in docker("version", "--format", "{{json .Server}}"):
        yield
        return
    podman = ["podman", "--remote", "--url", os.environ.get("DOCKER_HOST", "")]
    done = threading.Event()

    def check() -> None:
        while not done.wait(1):
            label = f"label=com.docker.compose.project={project}"
            for container in docker("ps", "--quiet", "--filter", label).split():
                command = [*podman, "healthcheck", "run", container]
                subprocess.run(command, capture_output=True, check=False)

    thread = threading.Thread(target=check)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()

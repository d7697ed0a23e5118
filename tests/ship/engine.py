"""The container engine, through its own command line."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def docker(*arguments: str | Path, check: bool = True) -> str:
    """Run docker and return what it printed; with *check* off what it complained of, too."""
    errors = None if check else subprocess.STDOUT
    command = ["docker", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, check=check)
    return done.stdout


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

"""Whether there is a way to a RabbitMQ, found out before anything is installed.

`make demo` runs this file with the machine's own Python, so it imports the standard library only.
"""

import os
import shutil
import socket
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one in /usr/sbin changes to another user
SOCKETS = ("/var/run/docker.sock", "~/.docker/run/docker.sock")
WITHIN_S = 2.0

NO_WAY = """There is no RabbitMQ to use. Either of these gives one:
  sudo apt-get install rabbitmq-server
  docker run --detach --publish 5672:5672 rabbitmq:4 && \
export TEST_RABBITMQ_URL=amqp://guest:guest@127.0.0.1:5672/
As root, or where Docker answers and testcontainers is installed, it is done for you."""


def find_server() -> str | None:
    """Return the path of an installed rabbitmq-server that we can start."""
    if shutil.which("epmd") is None:
        return None
    return shutil.which(SERVER) or shutil.which("rabbitmq-server")


def may_install() -> str | None:
    """Return the path of apt-get, if we may use it."""
    return shutil.which("apt-get") if os.geteuid() == 0 else None


def address(url: str) -> str:
    """Say where *url* points to, without its password."""
    place = _place(url)
    return f"{place[0]}:{place[1]}" if place else "an address that cannot be read"


def objection() -> str | None:
    """Return what keeps the demo from a broker, with what to do; None if a way is open."""
    if url := os.environ.get("TEST_RABBITMQ_URL"):
        place = _place(url)
        if place is None or not _listens(place):
            return f"TEST_RABBITMQ_URL: nothing answers at {address(url)}: start it, or unset it"
        return None
    if find_server() or may_install() or _docker_listens():
        return None
    return NO_WAY


def _docker_listens() -> bool:
    host = urlsplit(os.environ.get("DOCKER_HOST", ""))
    if host.scheme not in {"", "unix"}:  # over TCP or SSH: testcontainers will see
        return True
    sockets = [host.path] if host.path else [str(Path(each).expanduser()) for each in SOCKETS]
    return any(_accepts(each) for each in sockets)


def _accepts(path: str) -> bool:
    with closing(socket.socket(socket.AF_UNIX)) as link:
        link.settimeout(WITHIN_S)
        return link.connect_ex(path) == 0


def _listens(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, WITHIN_S).close()
    except OSError:
        return False
    return True


def _place(url: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(url)
        port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    except ValueError:  # the password holds a character that should be escaped
        return None
    return (parts.hostname, port) if parts.hostname else None


if __name__ == "__main__":
    sys.exit(objection())

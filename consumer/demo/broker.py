"""Where `make demo` and `make test` get a RabbitMQ: the first of four ways that works.

`rabbitmq` tries `named`, `in_container`, `private` and `installed`, in this order.
"""

import gc
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from consumer import output
from consumer.demo.login import wait_for_login
from consumer.demo.private_node import START_WITHIN_S, PrivateNode
from consumer.demo.ways import NO_WAY, address, find_server, may_install
from consumer.rabbitmq.losses import BrokerUnavailable

__all__ = ["BrokerUnavailable", "PrivateNode", "find_server", "rabbitmq"]

Say = Callable[[str], None]

IMAGE = "rabbitmq:4-management"

NAMED_WITHIN_S = 5.0
DOCKER_WITHIN_S = 2


def to_stderr(line: str) -> None:
    """Print a line for people."""
    output.say(line, err=True)


@contextmanager
def rabbitmq(say: Say = to_stderr) -> Iterator[str]:
    """Yield the AMQP URL of a broker that accepts a login; what we started ends with the block.

    Args:
        say: Is told in one line what is being done.

    Raises:
        BrokerUnavailable: None of the four ways led to one, or `TEST_RABBITMQ_URL` does not answer.
    """
    with ExitStack() as stack:
        for way in (named, in_container, private, installed):
            if url := way(stack, say):
                yield url
                return
        raise BrokerUnavailable(NO_WAY)


def named(_: ExitStack, say: Say) -> str | None:
    """Use the broker that `TEST_RABBITMQ_URL` names, as it is."""
    url = os.environ.get("TEST_RABBITMQ_URL")
    if not url:
        return None
    say(f"using the RabbitMQ that TEST_RABBITMQ_URL names, at {address(url)}")
    try:
        wait_for_login(url, NAMED_WITHIN_S)
    except BrokerUnavailable as error:
        raise BrokerUnavailable(
            f"TEST_RABBITMQ_URL: no login at {address(url)} ({error})"
        ) from None
    return url


def in_container(stack: ExitStack, say: Say) -> str | None:
    """Start a container, where Docker answers."""
    if not docker_answers():
        return None
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415  # an optional extra

    say(f"starting a container of {IMAGE}")
    try:
        with ExitStack() as ours:
            container = ours.enter_context(DockerContainer(IMAGE).with_exposed_ports(5672))
            host, port = container.get_container_host_ip(), container.get_exposed_port(5672)
            url = f"amqp://guest:guest@{host}:{port}/"
            wait_for_login(url, START_WITHIN_S)
            stack.enter_context(ours.pop_all())
            return url
    except Exception as error:  # noqa: BLE001  # whatever went wrong, there are other ways
        say(f"the container failed, going on without it: {end_of(str(error))}")
    return None


def docker_answers() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415  # as above

            client = DockerClient(timeout=DOCKER_WITHIN_S).client
        except Exception:  # noqa: BLE001  # not installed, no daemon, no permission: no Docker
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
    node = PrivateNode()
    stack.callback(node.close)
    node.start()
    return node.url


def installed(stack: ExitStack, say: Say) -> str | None:
    """Install Debian's package, where we may, and start a private node of it."""
    apt = may_install()
    if apt is None:
        return None
    try:
        from consumer.demo.installer import install  # noqa: PLC0415  # only a checkout has it
    except ImportError:
        return None
    say("installing rabbitmq-server with apt-get (some minutes)")
    try:
        install(apt, "rabbitmq-server")
    except (BrokerUnavailable, OSError, subprocess.TimeoutExpired) as error:
        say(f"apt-get failed, going on without it: {end_of(str(error))}")
        return None
    return private(stack, say)


def end_of(text: str) -> str:
    """Put the last 300 characters, where tools tell what went wrong, on one line."""
    return " ".join(text.split())[-300:]

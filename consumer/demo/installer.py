"""Install a server with apt-get, where we may. Only a checkout has this; no wheel, no image."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from consumer.rabbitmq.losses import BrokerUnavailable

POLICY = Path("/usr/sbin/policy-rc.d")
INSTALL_WITHIN_S = 600.0


def install(apt: str, package: str) -> None:
    with services_kept_off():
        apt_get(apt, "update")  # should it fail, older lists may do
        done = apt_get(apt, "install", "-y", "--no-install-recommends", package)
    if done.returncode:
        raise BrokerUnavailable(done.stdout)


def apt_get(apt: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # apt-get
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

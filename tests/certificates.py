"""Certificates for servers of a test's own, made with openssl."""

import ssl
import subprocess
from pathlib import Path


class Authority:
    """A CA that nobody trusts unless told to.

    Attributes:
        file: Its certificate, for `SSL_CERT_FILE`.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self.file = folder / "ca.pem"
        _openssl(
            "req -x509 -subj /CN=test-ca -days 2 -addext keyUsage=critical,keyCertSign",
            "-keyout",
            self._key,
            "-out",
            self.file,
        )

    @property
    def _key(self) -> Path:
        return self._folder / "ca.key"

    def server(self, name: str) -> ssl.SSLContext:
        """Return what a server needs to be *name*, as ``IP:127.0.0.1`` or ``DNS:localhost``."""
        key, certificate = self._folder / "server.key", self._folder / "server.pem"
        _openssl(
            f"req -x509 -subj /CN=test -days 2 -addext subjectAltName={name}"
            " -addext basicConstraints=critical,CA:FALSE",
            "-CA",
            self.file,
            "-CAkey",
            self._key,
            "-keyout",
            key,
            "-out",
            certificate,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context


def _openssl(command: str, *files: str | Path) -> None:
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    subprocess.run(
        ["openssl", *command.split(), *key.split(), *files],  # noqa: S607
        check=True,
        capture_output=True,
    )

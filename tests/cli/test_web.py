"""`call-consumer web` begins where it is safe, and says what is missing elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import httpx
import pytest
from click.testing import CliRunner

from consumer.cli.main import main
from consumer.health import listen

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tests.commands import Command
    from tests.workbench import Bench

URL = {"CALLS_RABBITMQ_URL": "amqp://guest:s3cret@localhost/"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "calls.example"])
def test_elsewhere_it_wants_tls(host: str) -> None:
    done = CliRunner().invoke(main, ["web", "--host", host], env=URL)

    assert done.exit_code == 2
    assert "--tls-cert and --tls-key, or --behind-proxy" in done.output


def test_a_name_of_this_machine_that_leads_elsewhere_wants_tls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def elsewhere(_: object, port: int) -> list[socket.socket]:
        return listen(["0.0.0.0"], port)  # as the resolver might lead us

    monkeypatch.setattr("consumer.cli.web.listen", elsewhere)
    done = CliRunner().invoke(main, ["web", "--host", "calls.localhost", "--port", "0"], env=URL)

    assert done.exit_code == 1
    assert "calls.localhost is not this machine alone" in done.output


def test_a_certificate_needs_its_key() -> None:
    done = CliRunner().invoke(main, ["web", "--tls-cert", __file__], env=URL)

    assert done.exit_code == 2
    assert "belong together" in done.output


def test_a_wrong_certificate_is_told_at_the_start() -> None:
    files = ["--tls-cert", __file__, "--tls-key", __file__]
    done = CliRunner().invoke(main, ["web", *files, "--port", "0"], env=URL)

    assert done.exit_code == 1
    assert "--tls-cert and --tls-key cannot be used" in done.output


def test_without_jinja2_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("consumer.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)

    done = CliRunner().invoke(main, ["web"], env=URL)

    assert done.exit_code == 1
    assert "pip install 'call-consumer[web]'" in done.output


async def test_it_prints_its_address_and_keeps_secrets_out_of_its_log(
    bench: Bench, call_consumer: Callable[..., Command]
) -> None:
    settings = bench.settings()
    url = settings.needed("rabbitmq_url")
    names = {"exchange": settings.exchange, "queue": settings.queue}
    command = call_consumer("web", "--port", "0", rabbitmq_url=url, **names)
    await bench.until(lambda: "\n" in command.stdout.read_text())
    address = command.stdout.read_text().split()[0]
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{address}sign-in")
    command.terminate()
    await bench.until(lambda: command.code is not None)

    assert answer.status_code == 200
    assert "server" not in answer.headers
    assert address.startswith("http://127.0.0.1:")
    assert "guest" not in command.stdout.read_text() + command.stderr.read_text()

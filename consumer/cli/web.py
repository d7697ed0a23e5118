"""`call-consumer web`: the operators' pages, for a browser."""

import logging
import ssl
from pathlib import Path
from socket import socket

import click
import uvicorn

from consumer.addresses import is_loopback
from consumer.cli.console import Failed, settings_or_exit
from consumer.health import EVERYWHERE, LOOPBACK, listen
from consumer.log import secret_parts, set_up
from consumer.output import say
from consumer.settings import Settings
from consumer.unreachable import cause_of

PORT = 8081
A_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--host", default="localhost", show_default=True, help="Address to listen at.")
@click.option("--port", default=PORT, show_default=True, help="Port; 0 takes a free one.")
@click.option("--tls-cert", type=A_FILE, help="Certificate chain, PEM; with --tls-key.")
@click.option("--tls-key", type=A_FILE, help="Its key, PEM.")
@click.option("--behind-proxy", is_flag=True, help="A proxy in front of it speaks TLS.")
@click.option(
    "--idle-min",
    type=click.FloatRange(min=0, min_open=True),
    default=15.0,
    show_default=True,
    help="Minutes after which a session that is not used has ended.",
)
def web(  # noqa: PLR0913  # each is an option of the command
    *,
    host: str,
    port: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    behind_proxy: bool,
    idle_min: float,
) -> None:
    """Serve the operators' pages, until it is told to stop. Prints the address.

    One signs in as a user of the broker, whose rights decide. Elsewhere than on this machine it is
    served over TLS, or behind a proxy that speaks TLS.
    """
    tls = tls_cert is not None
    if tls != (tls_key is not None):
        raise click.UsageError("--tls-cert and --tls-key belong together")
    if not (tls or behind_proxy or is_loopback(host)):
        text = "would send passwords unencrypted: name --tls-cert and --tls-key, or --behind-proxy"
        raise click.UsageError(f"--host {host} {text}")
    server = _server(tls_cert, tls_key, behind_proxy=behind_proxy, idle_s=idle_min * 60)
    listeners = _listen(server.config, host, port)
    if not (tls or behind_proxy):
        _see_loopback(host, listeners)
    address, bound = listeners[0].getsockname()[:2]
    place = f"[{address}]" if ":" in address else address
    say(f"http{'s' if tls else ''}://{place}:{bound}/")
    server.run(sockets=listeners)


def _server(
    tls_cert: Path | None, tls_key: Path | None, *, behind_proxy: bool, idle_s: float
) -> uvicorn.Server:
    try:
        from consumer.web.app import Server, build_app  # noqa: PLC0415  # Jinja2 is an extra
        from consumer.web.guard import Place  # noqa: PLC0415
        from consumer.web.sessions import Sessions  # noqa: PLC0415
        from consumer.web.visit import Desk  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise Failed(f"{error.name} is missing: pip install 'call-consumer[web]'") from None
    settings = settings_or_exit("rabbitmq_url")
    _set_up_log(settings)
    place = Place(tls=tls_cert is not None, behind_proxy=behind_proxy)
    desk = Desk(settings, place, Sessions(idle_s))
    config = uvicorn.Config(
        build_app(desk),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
        timeout_graceful_shutdown=2,
    )
    return Server(config, desk)


def _set_up_log(settings: Settings) -> None:
    secrets = [
        part
        for secret in (settings.rabbitmq_url, settings.webhook, settings.ledger_url)
        if secret is not None
        for part in secret_parts(secret.get_secret_value())
    ]
    set_up(settings.log_level, secrets)
    # Somebody who leaves a page cuts its questions to the broker off; what matters is told on it.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)


def _listen(config: uvicorn.Config, host: str, port: int) -> list[socket]:
    try:
        config.load()  # a wrong certificate is told before anybody may connect
        hosts = {"localhost": LOOPBACK, "::": EVERYWHERE}.get(host, (host,))
        return listen(hosts, port)
    except ssl.SSLError as error:
        raise Failed(f"--tls-cert and --tls-key cannot be used: {error.reason}") from None
    except OSError as error:
        text = f"cannot listen at {host} port {port} ({cause_of(error)}): name another --port"
        raise Failed(text) from None


def _see_loopback(host: str, listeners: list[socket]) -> None:
    """See that *host*, whatever resolved it, is this machine alone."""
    if not all(is_loopback(listener.getsockname()[0]) for listener in listeners):
        for listener in listeners:
            listener.close()
        raise Failed(f"{host} is not this machine alone: name --tls-cert and --tls-key")

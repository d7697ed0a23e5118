"""`call-consumer sandbox`: the stand-in portal."""

import click
import uvicorn

from consumer.cli.console import Failed
from consumer.health import EVERYWHERE, LOOPBACK, listen
from consumer.output import say
from consumer.sandbox import SandboxPortal, create_app
from consumer.unreachable import cause_of

SANDBOX_PORT = 8024


@click.command()
@click.option(
    "--host",
    default="localhost",
    show_default=True,
    help="Address to listen at; :: for all, over IPv4 and IPv6.",
)
@click.option("--port", default=SANDBOX_PORT, show_default=True, help="Port; 0 takes a free one.")
def sandbox(host: str, port: int) -> None:
    """Run a stand-in portal, whose answer the called number decides.

    +1 202 555 0100 is placed, 0112 fails twice and is placed then, 0123 is refused, 0160 breaks the
    link, 0161 too, but the phone rings, 0130 is above the rate limit. A number's failures are
    counted over all requests to it. All numbers: consumer/sandbox/README.md.
    """
    portal = SandboxPortal()
    hosts = {"localhost": LOOPBACK, "::": EVERYWHERE}.get(host, (host,))
    try:
        listeners = listen(hosts, port)  # the address below may be used at once
    except OSError as error:
        text = f"cannot listen at {host} port {port} ({cause_of(error)}): name another --port"
        raise Failed(text) from None
    config = uvicorn.Config(
        create_app(portal),
        log_config=None,
        access_log=False,  # the secret is in the path
        date_header=False,  # the portal's clock may be set wrong on purpose
        timeout_graceful_shutdown=1,  # some numbers never answer
    )
    address, bound = listeners[0].getsockname()[:2]
    place = f"[{address}]" if ":" in address else address
    say(f"http://{place}:{bound}/rest/1/{portal.switches.secret}/")
    uvicorn.Server(config).run(sockets=listeners)

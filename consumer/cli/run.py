"""`call-consumer run`: the process of a worker, and how it ends."""

import asyncio
import gc
import math
import os
import signal
from threading import Timer

import click
import structlog

from consumer import tracing
from consumer.app import App
from consumer.cli.console import run as run_to_its_end
from consumer.cli.console import settings_or_exit
from consumer.environment import service_variables
from consumer.log import secret_parts, set_up
from consumer.settings import Settings
from consumer.shutdown import LAST_S

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GARBAGE_AFTER = 10_000
"""New objects, after which Python looks for circular garbage; by its default of 700 that took 5 %
of the worker's time."""

log = structlog.get_logger(__name__)


@click.command()
@click.option(
    "--wait-s",
    type=click.FloatRange(min=0),
    default=math.inf,
    help="How long to wait for a broker or a ledger that is not there yet; else for ever.",
)
def run(wait_s: float) -> None:
    """Run the worker until it is told to stop (SIGTERM, Ctrl-C); told twice, it ends at once."""
    settings = settings_or_exit("rabbitmq_url", "bitrix24_url")
    secrets = [
        part
        for secret in (settings.rabbitmq_url, settings.webhook, settings.ledger_url)
        if secret is not None
        for part in secret_parts(secret.get_secret_value())
    ]
    if settings.oauth_client_secret is not None:
        secrets.append(settings.oauth_client_secret.get_secret_value())
    set_up(settings.log_level, secrets)
    tracing.start()
    run_to_its_end(lambda: run_worker(settings, wait_s))


async def run_worker(settings: Settings, wait_s: float = math.inf) -> None:
    """Run a worker until SIGTERM or SIGINT; a second one ends the process at once.

    Raises:
        WrongSettings, BrokerUnavailable, WrongTopology, LedgerDown, OtherLedger, NoConsumer: As
            `App` has it.
    """
    if skipped := service_variables():
        log.info("settings.skipped", names=sorted(skipped))
    app = App(settings)
    _collect_seldom()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        app.stop()
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, _end_at_once)

    for number in SIGNALS:
        loop.add_signal_handler(number, stop)
    await app.run(wait_s)
    # What is left are client libraries' tasks that no cancellation ends, and look-ups of names.
    last = Timer(LAST_S, os._exit, [0])
    last.daemon = True
    last.start()


def _collect_seldom() -> None:
    """Look for garbage less often, and not among what is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER)


def _end_at_once(number: int, _: object) -> None:
    """End at once: for the ledger and the broker it is as if the process were killed."""
    os._exit(128 + number)

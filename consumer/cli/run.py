"""The process of a worker: signals stop it, and nothing keeps it from ending."""

import asyncio
import math
import os
import signal
from threading import Timer

import structlog

from consumer.app import App
from consumer.environment import service_variables
from consumer.settings import Settings
from consumer.shutdown import LAST_S

SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger(__name__)


async def run_worker(settings: Settings, wait_s: float = math.inf) -> None:
    """Run a worker until SIGTERM or SIGINT; a second one ends the process at once.

    Raises:
        WrongSettings, BrokerUnavailable, WrongTopology, LedgerDown, OtherLedger, NoConsumer: As
            `App` has it.
    """
    if skipped := service_variables():
        log.info("settings.skipped", names=sorted(skipped))
    app = App(settings)
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


def _end_at_once(number: int, _: object) -> None:
    """End at once: for the ledger and the broker it is as if the process were killed."""
    os._exit(128 + number)

"""Wait until a broker that is being started accepts a login."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import aio_pika

from consumer.rabbitmq.losses import BrokerUnavailable

LOGIN_WITHIN_S = 5.0


def wait_for_login(url: str, within_s: float, goes_on: Callable[[], bool] = lambda: True) -> None:
    """Return once *url* accepts a login.

    Raises:
        BrokerUnavailable: It did not within *within_s* seconds, or *goes_on* said no; with the
            last reason.
    """
    deadline = time.monotonic() + within_s
    while reason := refusal(url):
        if not goes_on() or time.monotonic() > deadline:
            raise BrokerUnavailable(reason)
        time.sleep(0.1)


def refusal(url: str) -> str | None:
    """Try to log in, and name the error if that fails; its text could hold the password."""
    with ThreadPoolExecutor(1) as thread:  # the caller's may already run an event loop
        error = thread.submit(lambda: asyncio.run(log_in(url))).exception()
    return type(error).__name__ if error else None


async def log_in(url: str) -> None:
    parts = urlsplit(url)
    async with asyncio.timeout(LOGIN_WITHIN_S):
        if parts.scheme == "amqp":  # aiormq would log a warning for each try that comes too early
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 5672)
            try:
                writer.write(b"AMQP\x00\x00\x09\x01")
                await reader.readexactly(1)
            finally:
                writer.close()
        connection = await aio_pika.connect(url)
        await connection.close()

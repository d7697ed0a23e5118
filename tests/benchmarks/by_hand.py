"""``python -m tests.benchmarks.by_hand``: the worker that one writes with aio-pika and httpx.

It has no ledger, no pace, no metrics and no log: a call whose answer is lost becomes a dead letter
without anyone knowing whether the phone rang, and a call that is delivered twice rings twice.
"""

import asyncio
import json
import os
import signal
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aio_pika
import httpx
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage

METHOD = "voximplant.infocall.startwithtext"


def queue_arguments(queue: str) -> dict[str, Any]:
    """Describe the queue of requests."""
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": f"{queue}.dlq",
    }


class Caller:
    """Places the call that a message asks for, announces it, acknowledges the message."""

    def __init__(self, client: httpx.AsyncClient, exchange: AbstractExchange) -> None:
        self._client = client
        self._exchange = exchange

    async def handle(self, message: AbstractIncomingMessage) -> None:
        async with message.process():  # an exception makes it a dead letter
            request = json.loads(message.body)
            response = await self._client.post(
                METHOD,
                json={
                    "FROM_LINE": request["from_line"],
                    "TO_NUMBER": request["to_number"],
                    "TEXT_TO_PRONOUNCE": request["text_to_pronounce"],
                },
            )
            response.raise_for_status()
            event = {
                "event_id": str(uuid4()),
                "request_id": request["request_id"],
                "call_id": response.json()["result"]["CALL_ID"],
                "to_number": request["to_number"],
                "started_at": datetime.now(UTC).isoformat(),
            }
            await self._exchange.publish(
                aio_pika.Message(
                    json.dumps(event).encode(),
                    content_type="application/json",
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                ),
                "call.started",
            )


async def work() -> None:
    """Consume until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    concurrency = int(os.environ["BENCH_CONCURRENCY"])
    name = os.environ["BENCH_QUEUE"]
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with (
        httpx.AsyncClient(
            base_url=os.environ["BENCH_API_URL"], timeout=65, limits=limits
        ) as client,
        await aio_pika.connect_robust(os.environ["BENCH_RABBITMQ_URL"]) as connection,
    ):
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=concurrency)
        exchange = await channel.declare_exchange(
            os.environ["BENCH_EXCHANGE"], aio_pika.ExchangeType.TOPIC, durable=True
        )
        await channel.declare_queue(
            f"{name}.dlq", durable=True, arguments={"x-queue-type": "quorum"}
        )
        queue = await channel.declare_queue(name, durable=True, arguments=queue_arguments(name))
        await queue.bind(exchange, "call.requested")
        tag = await queue.consume(Caller(client, exchange).handle)
        await stop.wait()
        await queue.cancel(tag)


if __name__ == "__main__":
    asyncio.run(work())

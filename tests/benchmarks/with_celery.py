"""``celery --app tests.benchmarks.with_celery worker``: the same with Celery.

Upstream systems must speak Celery's own message format, which `message` writes. Like `by_hand` it
has no ledger, no pace, no metrics and no log.
"""

import json
import os
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
from celery import Celery  # type: ignore[import-untyped]
from kombu.entity import Exchange, Queue

METHOD = "voximplant.infocall.startwithtext"
TASK = "place_call"
QUEUE_ARGUMENTS = {"x-queue-type": "quorum"}
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "1"))

exchange = Exchange(  # type: ignore[no-untyped-call]
    os.environ.get("BENCH_EXCHANGE", "calls"), type="topic"
)
queue = Queue(  # type: ignore[no-untyped-call]
    os.environ.get("BENCH_QUEUE", "call.requested"),
    exchange,
    routing_key="call.requested",
    queue_arguments=QUEUE_ARGUMENTS,
)
app = Celery("with_celery", broker=os.environ.get("BENCH_RABBITMQ_URL"))
app.conf.update(
    task_queues=[queue],
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    broker_pool_limit=CONCURRENCY,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"confirm_publish": True},
)
client = httpx.Client(
    base_url=os.environ.get("BENCH_API_URL", ""),
    timeout=65,
    limits=httpx.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY),
)


@app.task(name=TASK)  # type: ignore[untyped-decorator]
def place_call(request: dict[str, Any]) -> None:
    """Place one call and announce it; Celery acknowledges the message afterwards."""
    response = client.post(
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
    with app.producer_pool.acquire(block=True) as producer:
        producer.publish(event, exchange=exchange, routing_key="call.started", delivery_mode=2)


def message(request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return headers and body of a message that makes a worker run the task.

    Source: https://docs.celeryq.dev/en/stable/internals/protocol.html
    """
    task_id = str(uuid4())
    headers = {
        "lang": "py",
        "task": TASK,
        "id": task_id,
        "root_id": task_id,
        "parent_id": None,
        "group": None,
    }
    return headers, json.dumps([[request], {}, {}]).encode()

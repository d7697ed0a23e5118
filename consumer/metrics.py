"""What is counted and measured; `/metrics` shows it. Base units, and no label without bounds."""

from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

REGISTRY = CollectorRegistry()
_WAITS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 14400, 86400)

CALLS = Counter(
    "call_consumer_calls",
    "Answers of the portal to requests for a call, by what they mean and their code.",
    ["outcome", "code"],
    registry=REGISTRY,
)
AGE = Histogram(
    "call_consumer_request_age_seconds",
    "Age of a request when it is dialled, from its publishing or from its not_before.",
    buckets=_WAITS_S,
    registry=REGISTRY,
)
RATE_LIMIT_WAIT = Histogram(
    "call_consumer_rate_limit_wait_seconds",
    "Time that requests wait for the portal's rate limit.",
    buckets=(0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=REGISTRY,
)
API = Histogram(
    "call_consumer_api_seconds",
    "Time that the portal takes to answer a request for a call.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 70),
    registry=REGISTRY,
)
IN_FLIGHT = Gauge(
    "call_consumer_calls_in_flight",
    "Requests for a call that the portal has not answered yet.",
    registry=REGISTRY,
)
DELAYED = Counter(
    "call_consumer_delayed",
    "Requests put into a delay queue, by the queue's delay in seconds.",
    ["delay"],
    registry=REGISTRY,
)
DOUBTS = Counter(
    "call_consumer_doubts",
    "Calls that may have been placed without our knowing.",
    registry=REGISTRY,
)
DOUBTS_RESOLVED = Counter(
    "call_consumer_doubts_resolved",
    "Doubts that ended, by outcome: found in the history, dialled again, or left to a person.",
    ["outcome"],
    registry=REGISTRY,
)
COMPLETED = Counter(
    "call_consumer_completed",
    "Calls that have ended, by outcome: answered, busy and so on; unknown: the history is silent.",
    ["outcome"],
    registry=REGISTRY,
)
CALL_DURATION = Histogram(
    "call_consumer_call_duration_seconds",
    "Time of speech in calls that were answered.",
    buckets=(1, 2.5, 5, 10, 15, 20, 30, 45, 60, 120, 300, 600, 3600),
    registry=REGISTRY,
)
DEAD_LETTERS = Counter(
    "call_consumer_dead_letters",
    "Requests put into the dead-letter queue, by reason.",
    ["reason"],
    registry=REGISTRY,
)
CANCELLED = Counter(
    "call_consumer_cancelled",
    "Requests that ended because upstream took them back.",
    registry=REGISTRY,
)
QUEUE_MESSAGES = Gauge(
    "call_consumer_queue_messages",
    "Messages ready in a queue, without those that the worker has not acknowledged yet.",
    ["queue"],
    registry=REGISTRY,
)
OLDEST_DEAD_LETTER = Gauge(
    "call_consumer_oldest_dead_letter_timestamp_seconds",
    "When the oldest request failed that is still a dead letter; 0 if there is none.",
    registry=REGISTRY,
)
OPERATING = Gauge(
    "call_consumer_operating_seconds",
    "Operating time that the portal says was used within ten minutes.",
    registry=REGISTRY,
)
PAUSED = Gauge(
    "call_consumer_paused",
    "1 while the worker is paused, by cause: operator by hand, else the portal fails every call.",
    ["cause"],
    registry=REGISTRY,
)
CONSUMING = Gauge(
    "call_consumer_consuming",
    "1 while a consumer is registered with the broker.",
    registry=REGISTRY,
)
PUBLISH_FAILURES = Counter(
    "call_consumer_publish_failures",
    "Messages that the broker did not confirm, by reason; each is published again.",
    ["reason"],
    registry=REGISTRY,
)
POLICY_HITS = Counter(
    "call_consumer_policy_hits",
    "Times that a policy of the broker was seen to affect our queues, by its setting.",
    ["setting"],
    registry=REGISTRY,
)
LEDGER = Histogram(
    "call_consumer_ledger_seconds",
    "Time that a read or write of the ledger takes.",
    ["operation"],
    buckets=(0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
    registry=REGISTRY,
)
BUILD = Info("call_consumer_build", "The version that runs.", registry=REGISTRY)
BUILD.info({"version": version("call-consumer")})

"""From spans to the collector: by batches, from a thread of its own, over OTLP."""

import asyncio
import logging
import math
import re
import time
from contextlib import suppress
from importlib.metadata import version
from threading import Thread

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._shared_internal import BatchProcessor
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from consumer.tracing.spans import Spans

NAME = "call-consumer"
SAY_AGAIN_S = 300.0
ADVICE = "is the collector there? OTEL_EXPORTER_OTLP_ENDPOINT is its address, as http://host:4318"
SECRET = re.compile(r"(?<=/)[^\s'\")]+|[^\s'\"/]+(?=@)|(?<=header value: ).+", re.DOTALL)
"""A vendor's address may have a token in its path or before its host; a header is one."""
TELL_OF_FAILURES = (OTLPSpanExporter.__module__, BatchProcessor.__module__)

log = structlog.get_logger(__name__)


class Pipeline:
    """Takes spans to the collector that OpenTelemetry's variables name.

    What cannot be sent is dropped: a call never waits for it.

    Raises:
        ValueError, OSError, RuntimeError: A variable is wrong.
    """

    def __init__(self) -> None:
        service = {"service.name": NAME, "service.version": version(NAME)}
        resource = Resource.create(service).merge(OTELResourceDetector().detect())
        self._exporter = OTLPSpanExporter()
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        FAILURES.next_at = 0.0
        for name in TELL_OF_FAILURES:
            logging.getLogger(name).addFilter(FAILURES)
        self.spans = Spans(self._provider.get_tracer(NAME, version(NAME)))

    async def close(self) -> None:
        """Send what waits; in a thread that keeps no process from ending."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # nobody waits any more: the loop is closed
                loop.call_soon_threadsafe(sent.set)

        Thread(target=shut_down, daemon=True).start()
        try:
            await sent.wait()
        finally:
            FAILURES.next_at = math.inf  # what is said from here on comes of the stop
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # theirs is not annotated


class _Failures(logging.Filter):
    """Turns the exporter's lines about its failures into one of ours, now and then."""

    next_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every line of the exporter's."""
        if record.levelno >= logging.WARNING and time.monotonic() >= self.next_at:
            self.next_at = time.monotonic() + SAY_AGAIN_S
            reason = SECRET.sub("…", record.getMessage())
            log.warning("traces.lost", reason=reason, advice=ADVICE)
        return False


FAILURES = _Failures()

"""Spans in the words of OpenTelemetry's semantic conventions.

Sources: https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/,
https://opentelemetry.io/docs/specs/semconv/http/http-spans/ and
https://opentelemetry.io/docs/specs/semconv/db/database-spans/
"""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.semconv.attributes import (
    db_attributes,
    error_attributes,
    http_attributes,
    server_attributes,
    url_attributes,
)
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

W3C = TraceContextTextMapPropagator()
TRACE_HEADERS = ("traceparent", "tracestate")
DEFAULT_PORTS = {"http": 80, "https": 443}
FIRST_ERROR_STATUS = 400
NO_SPAN = nullcontext()

Attributes = Mapping[str, str | int]


class Spans:
    """Makes spans.

    Those of one message's way are made where its trace is sampled: the others cost nothing.

    Args:
        tracer: Where to.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def processing(  # noqa: PLR0913  # a message, as the conventions tell of it
        self,
        queue: str,
        came_by: str,
        request_id: str | None,
        headers: Mapping[str, str],
        *,
        anew: bool,
        expected: type[BaseException] | tuple[()],
        **counts: int,
    ) -> AbstractContextManager[None]:
        """See `tracing.processing`."""
        before = W3C.extract(headers, Context()) if headers else Context()
        linked = trace.get_current_span(before).get_span_context()
        destination = came_by if came_by.rpartition(":")[2] == queue else f"{came_by}:{queue}"
        destination = destination.strip(":")
        span = self._tracer.start_span(
            f"process {destination}",
            Context() if anew else before,
            SpanKind.CONSUMER,
            _messaging("process", destination, came_by, request_id)
            | {f"call_consumer.{name}": count for name, count in counts.items()},
            [Link(linked)] if anew and linked.is_valid else (),
        )
        return _Current(span, expected)

    def sending(
        self, exchange: str, routing_key: str, request_id: str | None, headers: Mapping[str, Any]
    ) -> AbstractContextManager[None]:
        """See `tracing.sending`."""
        within = context.get_current()
        if not trace.get_current_span().get_span_context().is_valid:
            within = W3C.extract({name: headers[name] for name in _trace_headers(headers)})
        if not _is_sampled(within):
            return NO_SPAN
        destination = f"{exchange}:{routing_key}".strip(":")
        attributes = _messaging("send", destination, routing_key, request_id)
        return self._span(f"publish {destination}", SpanKind.PRODUCER, attributes, within)

    def onward(self, headers: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `tracing.onward`."""
        present: dict[str, str] = {}
        W3C.inject(present)
        if not present:
            return headers
        others = {name: value for name, value in headers.items() if name not in TRACE_HEADERS}
        return others | present

    def asking(self, url: str, method: str) -> AbstractContextManager[None]:
        """See `tracing.asking`."""
        if not _is_sampled():
            return NO_SPAN
        attributes = _server(url) | {
            http_attributes.HTTP_REQUEST_METHOD: "POST",
            url_attributes.URL_FULL: f"{_origin(url)}/REDACTED/{method}",
        }
        return self._span(f"POST {method}", SpanKind.CLIENT, attributes)

    def answered(self, status: int) -> None:
        """See `tracing.answered`."""
        span = trace.get_current_span()
        span.set_attribute(http_attributes.HTTP_RESPONSE_STATUS_CODE, status)
        if status >= FIRST_ERROR_STATUS:
            _fail(span, str(status))

    def waiting(self, name: str) -> AbstractContextManager[None]:
        """See `tracing.waiting`."""
        return self._span(name, SpanKind.INTERNAL, {}) if _is_sampled() else NO_SPAN

    def querying(self, system: str, statement: str) -> AbstractContextManager[None]:
        """See `tracing.querying`."""
        if not _is_sampled():
            return NO_SPAN
        operation, table = _summary(statement)
        attributes = {
            db_attributes.DB_SYSTEM_NAME: system,
            db_attributes.DB_OPERATION_NAME: operation,
            db_attributes.DB_COLLECTION_NAME: table,
        }
        return self._span(f"{operation} {table}", SpanKind.CLIENT, attributes)

    def note(self, attributes: Mapping[str, str]) -> None:
        """See `tracing.note`."""
        span = trace.get_current_span()
        for name, value in attributes.items():
            span.set_attribute(f"call_consumer.{name}", value)

    def ids(self) -> dict[str, str]:
        """See `tracing.ids`."""
        present = trace.get_current_span().get_span_context()
        if not present.is_valid:
            return {}
        return {
            "trace_id": trace.format_trace_id(present.trace_id),
            "span_id": trace.format_span_id(present.span_id),
        }

    def exemplar(self) -> dict[str, str] | None:
        """See `tracing.exemplar`."""
        return self.ids() if _is_sampled() else None

    def _span(
        self, name: str, kind: SpanKind, attributes: Attributes, within: Context | None = None
    ) -> AbstractContextManager[None]:
        return _Current(self._tracer.start_span(name, within, kind, attributes))


def _is_sampled(within: Context | None = None) -> bool:
    return trace.get_current_span(within).get_span_context().trace_flags.sampled


class _Current(AbstractContextManager[None]):
    """Makes a span the present one until it ends; of a failure it tells the type alone."""

    def __init__(self, span: Span, expected: type[BaseException] | tuple[()] = ()) -> None:
        self._span = span
        self._expected = expected

    def __enter__(self) -> None:
        self._token = context.attach(trace.set_span_in_context(self._span))

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, self._expected):
            _fail(self._span, type(error).__qualname__)
        context.detach(self._token)
        self._span.end()


def _fail(span: Span, kind: str) -> None:
    span.set_attribute(error_attributes.ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR))


def _messaging(
    operation: str, destination: str, came_by: str, request_id: str | None
) -> dict[str, str | int]:
    """Return the attributes of what is done with a message."""
    attributes: dict[str, str | int] = {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "publish" if operation == "send" else operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": destination,
        "messaging.rabbitmq.destination.routing_key": came_by.rpartition(":")[2],
    }
    if request_id is not None:
        attributes["messaging.message.conversation_id"] = request_id
    return attributes


def _trace_headers(headers: Mapping[str, Any]) -> list[str]:
    return [name for name in TRACE_HEADERS if isinstance(headers.get(name), str)]


@lru_cache(maxsize=16)
def _origin(url: str) -> str:
    """Return scheme, host and port of an address whose path and user are secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


@lru_cache(maxsize=16)
def _server(url: str) -> dict[str, str | int]:
    parts = urlsplit(_origin(url))
    port = parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    return {
        server_attributes.SERVER_ADDRESS: parts.hostname or "",
        server_attributes.SERVER_PORT: port,
    }


@lru_cache(maxsize=256)
def _summary(statement: str) -> tuple[str, str]:
    """Return the operation of a statement, and the table that it is about."""
    words = re.match(r"(?:(UPDATE)|(\w+).*?\b(?:FROM|INTO))\s+(\w+)", statement, re.DOTALL)
    return (words[1] or words[2], words[3]) if words else (statement[:6], "")

"""A receiver of traces, as OpenTelemetry's collector is one: OTLP over HTTP, in protobuf."""

from __future__ import annotations

import gzip
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Received

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

Attributes = dict[str, str | int]


@dataclass(frozen=True)
class Span:
    """A span as it was received; ids are in hexadecimal, and empty for none."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: list[str]
    attributes: Attributes
    failed: bool
    resource: Attributes


@dataclass
class Collector:
    """Keeps what it receives.

    Attributes:
        url: For `OTEL_EXPORTER_OTLP_ENDPOINT`.
        bodies: What was received, byte for byte.
        may_answer: Cleared, it answers nobody.
        status: What it answers.
    """

    url: str
    bodies: list[bytes] = field(default_factory=list)
    may_answer: Event = field(default_factory=Event)
    status: int = 200

    @property
    def spans(self) -> list[Span]:
        """All spans received."""
        return [span for body in self.bodies for span in _spans(body)]

    def trace(self, trace_id: str) -> list[Span]:
        """Return the spans of one trace, as they began."""
        return [span for span in self.spans if span.trace_id == trace_id]

    def named(self, name: str) -> Span:
        """Return the only span of that name."""
        (span,) = (span for span in self.spans if span.name == name)
        return span


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a receiver on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            packed = self.headers["Content-Encoding"] == "gzip"
            assert self.path == "/v1/traces"
            assert self.headers["Content-Type"] == "application/x-protobuf"
            collector.may_answer.wait(20)
            collector.bodies.append(gzip.decompress(body) if packed else body)
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # who sent it has gone

    server = Server(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    collector.may_answer.set()
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield collector
    collector.may_answer.set()
    server.shutdown()
    server.server_close()


def _spans(body: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    span.name,
                    Received.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    [link.trace_id.hex() for link in span.links],
                    _attributes(span.attributes),
                    span.status.code == 2,
                    _attributes(resource.resource.attributes),
                )


def _attributes(pairs: Iterable[KeyValue]) -> Attributes:
    return {
        pair.key: pair.value.int_value
        if pair.value.HasField("int_value")
        else pair.value.string_value
        for pair in pairs
    }

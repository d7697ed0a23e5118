"""What a span tells: of addresses with secrets in them, of statements, of failures."""

from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from consumer.ledger.statements import CHANGED, INSERT, SELECT, update
from consumer.tracing.spans import Spans


class Kept(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def spans(kept: Kept) -> Iterator[Spans]:
    """Lend spans within a trace."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    spans = Spans(provider.get_tracer("test"))
    with spans.processing("requests", "calls:call.requested", "r-1", {}, anew=False, expected=()):
        yield spans


@pytest.mark.parametrize(
    ("url", "shown", "port"),
    [
        ("https://acme.example/rest/1/s3cret/", "https://acme.example/REDACTED/m", 443),
        ("http://acme.example:8080/s3cret/", "http://acme.example:8080/REDACTED/m", 8080),
        ("https://u:s3cret@acme.example/rest/", "https://acme.example/REDACTED/m", 443),
        ("http://[::1]:81/rest/1/s3cret/", "http://[::1]:81/REDACTED/m", 81),
    ],
)
def test_of_the_portals_address_the_secret_part_is_left_out(
    url: str, shown: str, port: int, spans: Spans, kept: Kept
) -> None:
    with spans.asking(url, "m"):
        spans.answered(200)

    (span,) = kept.spans
    assert span.attributes is not None
    assert span.attributes["url.full"] == shown
    assert span.attributes["server.port"] == port
    assert "s3cret" not in span.to_json()


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        (SELECT, "SELECT calls"),
        (INSERT, "INSERT calls"),
        (update(CHANGED, "TRUE", 4), "UPDATE calls"),
        ("DELETE FROM about WHERE name = $1", "DELETE about"),
        ("UPDATE a SET b = 1 WHERE EXISTS (SELECT 1 FROM c)", "UPDATE a"),
    ],
)
def test_a_statement_is_named_for_what_it_does_to_which_table(
    statement: str, name: str, spans: Spans, kept: Kept
) -> None:
    with spans.querying("sqlite", statement):
        pass

    assert [span.name for span in kept.spans] == [name]


@pytest.mark.parametrize(
    ("status", "error"), [(200, None), (302, None), (400, "400"), (503, "503")]
)
def test_an_answer_with_an_error_is_a_failure(
    status: int, error: str | None, spans: Spans, kept: Kept
) -> None:
    with spans.asking("https://acme.example/rest/", "m"):
        spans.answered(status)

    (span,) = kept.spans
    assert span.status.is_ok is (error is None)
    assert (span.attributes or {}).get("error.type") == error
    assert span.status.description is None


def test_of_an_exception_only_its_type_is_told(spans: Spans, kept: Kept) -> None:
    with pytest.raises(OSError, match="0100"), spans.waiting("in line"):
        raise ConnectionError("+12025550100")

    (span,) = kept.spans
    assert not span.status.is_ok
    assert dict(span.attributes or {}) == {"error.type": "ConnectionError"}
    assert list(span.events) == []


def test_what_is_expected_is_no_failure(spans: Spans, kept: Kept) -> None:
    message = spans.processing("requests", ":requests", None, {}, anew=False, expected=LookupError)
    with pytest.raises(KeyError), message:
        raise KeyError("given back")

    (span,) = kept.spans
    assert (span.name, span.kind) == ("process requests", SpanKind.CONSUMER)
    assert span.status.is_unset

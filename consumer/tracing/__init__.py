"""Traces by OpenTelemetry, once its standard variables name a collector; until then, nothing.

Each function here costs next to nothing while there are no traces, and nothing of OpenTelemetry is
imported. Names follow its conventions for messaging, HTTP and databases. No number, no text and no
secret comes into a span, nor the message of an exception, which may quote them.

FastStream's `RabbitTelemetryMiddleware` is not used. It sees what FastStream receives, and would
miss the rest: events, delayed requests and dead letters are published over a link of our own,
confirmed and repeated. Its span ends with the handler, whose message comes back while the call goes
on in its own task; it keeps an exception's message, continues a trace where a replay is to begin a
new one, and writes the names that messaging had before 1.26 of the conventions.
"""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from consumer.tracing.pipeline import Pipeline

PROTOCOL = "http/protobuf"

log = structlog.get_logger(__name__)

_NOTHING = nullcontext()
_pipeline: "Pipeline | None" = None


def start(environment: Mapping[str, str] = os.environ) -> None:
    """Begin to trace, if OpenTelemetry's variables say so and the extra `otel` is installed.

    Args:
        environment: What is asked whether to trace; OpenTelemetry itself reads the process's own.
    """
    global _pipeline  # noqa: PLW0603  # a process has one, as it has one set of metrics
    if not _wanted(environment):
        return
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL"
    )
    if protocol not in {None, "", PROTOCOL}:
        advice = f"set OTEL_EXPORTER_OTLP_PROTOCOL={PROTOCOL}, and the collector's port for it"
        log.warning("traces.off", reason=f"the protocol {protocol} is not supported", advice=advice)
        return
    try:
        from consumer.tracing.pipeline import Pipeline  # noqa: PLC0415  # an optional extra
    except ImportError:
        advice = "pip install '.[otel]', or unset OTEL_EXPORTER_OTLP_ENDPOINT"
        log.warning("traces.off", reason="the extra `otel` is not installed", advice=advice)
        return
    try:
        _pipeline = Pipeline()
    except (ValueError, OSError, RuntimeError) as error:
        advice = "correct the variables that begin with OTEL_"
        log.warning("traces.off", reason=f"{type(error).__name__}: {error}", advice=advice)


def _wanted(environment: Mapping[str, str]) -> bool:
    """Tell whether a collector is named.

    Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporters = environment.get("OTEL_TRACES_EXPORTER") or "otlp"
    named = any(environment.get(name, "").strip() for name in endpoints)
    return named and not disabled and "otlp" in exporters.split(",")


async def stop() -> None:
    """Send what has not been sent, and trace no more; cancel it, and the rest is lost."""
    global _pipeline
    pipeline, _pipeline = _pipeline, None
    if pipeline is not None:
        await pipeline.close()


def processing(  # noqa: PLR0913  # a message, as the conventions tell of it
    queue: str,
    came_by: str,
    request_id: str | None,
    trace: Mapping[str, str],
    *,
    anew: bool = False,
    expected: type[BaseException] | tuple[()] = (),
    **counts: int,
) -> AbstractContextManager[None]:
    """Trace what is done about a message.

    Args:
        queue: Where it came from.
        came_by: Exchange and routing key, with a colon between.
        request_id: Its request.
        trace: The W3C trace headers that it bears: its trace goes on.
        anew: Whether a new trace begins, linked to that one.
        expected: What may be raised and is no failure.
        counts: Attributes of ours.
    """
    if _pipeline is None:
        return _NOTHING
    return _pipeline.spans.processing(
        queue, came_by, request_id, trace, anew=anew, expected=expected, **counts
    )


def sending(
    exchange: str, routing_key: str, request_id: str | None, headers: Mapping[str, Any]
) -> AbstractContextManager[None]:
    """Trace a publish, as a part of what is being done, else of the trace that *headers* name."""
    if _pipeline is None:
        return _NOTHING
    return _pipeline.spans.sending(exchange, routing_key, request_id, headers)


def onward(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the headers to send: with the present trace in them, if there is one."""
    return headers if _pipeline is None else _pipeline.spans.onward(headers)


def asking(url: str, method: str) -> AbstractContextManager[None]:
    """Trace a request over HTTP, to *method* at the portal's secret address *url*."""
    return _NOTHING if _pipeline is None else _pipeline.spans.asking(url, method)


def answered(status: int) -> None:
    """Note the status that the request over HTTP was answered with."""
    if _pipeline is not None:
        _pipeline.spans.answered(status)


def waiting(name: str) -> AbstractContextManager[None]:
    """Trace a wait."""
    return _NOTHING if _pipeline is None else _pipeline.spans.waiting(name)


def querying(system: str, statement: str) -> AbstractContextManager[None]:
    """Trace a statement of the ledger's database."""
    return _NOTHING if _pipeline is None else _pipeline.spans.querying(system, statement)


def note(**attributes: str) -> None:
    """Note something about what is being done."""
    if _pipeline is not None:
        _pipeline.spans.note(attributes)


def ids() -> dict[str, str]:
    """Return the ids of the present trace and span, for a log line."""
    return {} if _pipeline is None else _pipeline.spans.ids()


def exemplar() -> dict[str, str] | None:
    """Return the ids of the present span, if it is sent to the collector."""
    return None if _pipeline is None else _pipeline.spans.exemplar()

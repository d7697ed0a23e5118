"""Traces, as a collector receives them; none where none is named."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from io import StringIO
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import structlog

from consumer import follower, log, tracing
from consumer.health import build_app
from consumer.operations.dead_letter import read_dead_letter
from consumer.operations.dead_letters import Replay, send_back
from consumer.rabbitmq.topology import topology_of
from tests import canary
from tests.collector import Collector, collecting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from consumer.app import App
    from consumer.sandbox import SandboxPortal
    from tests.commands import Command
    from tests.workbench import Bench

UPSTREAM = "0af7651916cd43dd8448eb211c80319c"
PARENT = "00f067aa0ba902b7"
TRACE = {"traceparent": f"00-{UPSTREAM}-{PARENT}-01", "tracestate": "vendor=1"}
NOT_SAMPLED = {"traceparent": f"00-{UPSTREAM}-{PARENT}-00"}
ENDS_WITHIN_S = 5.0
WORKS = "+12025550100"
NEVER_CONNECTS = "+12025550182"
RESET_PLACED = "+12025550181"


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """Lend a collector that the worker's traces go to."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        tracing.start()
        yield collector
        await tracing.stop()
        assert canary.seen_in(b"".join(collector.bodies)) == []


async def until_delayed(app: App, request_id: str) -> None:
    """Wait until the ledger has a request as delayed."""
    async with asyncio.timeout(10):
        while not (entry := await app.ledger.get(request_id)) or entry.state != "delayed":  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_call_is_one_trace_from_upstream_to_its_end(
    bench: Bench, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "BEAT_S", 0.05)
    monkeypatch.setattr(follower, "WATCH_S", 0.05)
    monkeypatch.setattr(follower, "FIRST_PAUSE_S", 0.1)
    asked = bench.request(WORKS)
    request_id = str(asked["request_id"])

    async with bench.running(follow_up=True):
        await bench.publish(asked, TRACE)
        event = await bench.event(request_id)
        completion = await bench.completion(request_id)

    process = collector.named(f"process {bench.exchange}:call.requested:{bench.queue}")
    call = collector.named("POST voximplant.infocall.startwithtext")
    started = collector.named(f"publish {bench.exchange}:call.started")
    completed = collector.named(f"publish {bench.exchange}:call.completed")
    below = {span.name for span in collector.spans if span.parent_id == process.span_id}
    assert {span.trace_id for span in collector.spans} == {UPSTREAM}
    assert [span.name for span in collector.spans].count("UPDATE calls") == 1  # not those in bulk
    assert process.parent_id == PARENT
    assert below >= {
        "SELECT calls",
        "wait for the rate limit",
        "INSERT calls",
        call.name,
        "UPDATE calls",
        started.name,
        completed.name,
    }
    assert event.headers["traceparent"] == f"00-{UPSTREAM}-{started.span_id}-01"
    assert event.headers["tracestate"] == "vendor=1"
    assert completion.headers["traceparent"] == f"00-{UPSTREAM}-{completed.span_id}-01"
    assert (process.kind, call.kind, started.kind) == ("CONSUMER", "CLIENT", "PRODUCER")
    assert not any(span.failed for span in collector.spans)


async def test_spans_follow_the_conventions_and_tell_no_secret(
    bench: Bench, portal: SandboxPortal, collector: Collector
) -> None:
    asked = bench.request(WORKS, text_to_pronounce="A most private text", metadata={"a": "inmeta"})

    async with bench.running():
        await bench.publish(asked, TRACE)
        await bench.event(str(asked["request_id"]))

    process = collector.named(f"process {bench.exchange}:call.requested:{bench.queue}")
    assert process.attributes == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": f"{bench.exchange}:call.requested:{bench.queue}",
        "messaging.rabbitmq.destination.routing_key": "call.requested",
        "messaging.message.conversation_id": asked["request_id"],
        "call_consumer.attempt": 1,
        "call_consumer.replay": 0,
        "call_consumer.outcome": "placed",
        "call_consumer.code": "",
    }
    assert collector.named(f"publish {bench.exchange}:call.started").attributes == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": f"{bench.exchange}:call.started",
        "messaging.rabbitmq.destination.routing_key": "call.started",
        "messaging.message.conversation_id": asked["request_id"],
    }
    port = int(httpx.URL(bench.given["bitrix24_url"]).port or 0)
    method = "voximplant.infocall.startwithtext"
    assert collector.named(f"POST {method}").attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": port,
        "url.full": f"http://127.0.0.1:{port}/REDACTED/{method}",
    }
    assert collector.named("INSERT calls").attributes == {
        "db.system.name": "sqlite",
        "db.operation.name": "INSERT",
        "db.collection.name": "calls",
    }
    assert process.resource["service.name"] == "call-consumer"
    sent = b"".join(collector.bodies)
    for private in (WORKS[1:], "most private", portal.switches.secret, "inmeta", "reg151083"):
        assert private.encode() not in sent


# What comes later


async def test_retries_are_of_one_trace_and_a_replay_begins_another_linked_to_it(
    bench: Bench, collector: Collector
) -> None:
    asked = bench.request(NEVER_CONNECTS)
    settings = bench.settings()
    async with bench.running(retry_delays_s=(1,)):
        await bench.publish(asked, TRACE)
        failed = await bench.event(str(asked["request_id"]))
        (letter,) = await bench.take(f"{bench.queue}.dlq", put_back=True)
        dead = read_dead_letter(letter.message, bench.queue)
        url, topology = str(bench.given["rabbitmq_url"]), topology_of(settings)
        await send_back(url, topology, [dead.key], Replay())
        events = await bench.events(str(asked["request_id"]), 2)

    first = collector.trace(UPSTREAM)
    first_processed = [span for span in first if span.kind == "CONSUMER"]
    delayed = [span for span in first if span.name.startswith(f"publish {bench.queue}.delay")]
    assert [span.attributes["call_consumer.attempt"] for span in first_processed] == [1, 2]
    assert [span.parent_id for span in first_processed[1:]] == [span.span_id for span in delayed]
    assert first_processed[0].attributes["call_consumer.outcome"] == "unavailable"
    assert first_processed[0].attributes["call_consumer.code"] == "CONNECTION_ERROR"
    assert failed.headers["traceparent"].split("-")[1] == UPSTREAM

    second = collector.trace(events[1].headers["traceparent"].split("-")[1])
    processed = [span for span in second if span.kind == "CONSUMER"]
    assert [span.attributes["call_consumer.replay"] for span in processed] == [1, 1]
    assert [span.links for span in processed] == [[UPSTREAM], []]
    assert processed[0].parent_id == ""
    assert {span.trace_id for span in first + second} == {s.trace_id for s in collector.spans}


async def test_a_dead_letter_moved_back_by_hand_is_a_replay_too(
    bench: Bench, collector: Collector
) -> None:
    asked = bench.request(WORKS)
    headers = {**TRACE, "x-failed-at": "2026-11-27T12:00:00Z"}

    async with bench.running():
        await bench.publish(asked, headers, to_queue=True)
        await bench.event(str(asked["request_id"]))

    processed = collector.named(f"process {bench.queue}")
    assert processed.links == [UPSTREAM]
    assert processed.trace_id != UPSTREAM


async def test_upstream_cannot_say_that_a_message_is_a_replay(
    bench: Bench, collector: Collector
) -> None:
    asked = bench.request(WORKS)

    async with bench.running():
        await bench.publish(asked, TRACE | {"x-sent-back": True})
        await bench.event(str(asked["request_id"]))

    assert {span.trace_id for span in collector.spans} == {UPSTREAM}


async def test_a_doubt_is_settled_in_the_trace_of_the_call(
    bench: Bench, collector: Collector
) -> None:
    asked = bench.request(RESET_PLACED)

    async with bench.running(timeout_s=1):
        await bench.ask()
        await bench.publish(asked, TRACE)
        event = await bench.event(str(asked["request_id"]))

    trace = collector.trace(UPSTREAM)
    call = next(span for span in trace if span.name == "POST voximplant.infocall.startwithtext")
    look = [span for span in trace if span.name == "POST voximplant.statistic.get"]
    assert event["confirmed_by"] == "history"
    assert event.headers["traceparent"].split("-")[1] == UPSTREAM
    assert call.failed
    assert look
    assert not any(span.failed for span in look)


async def test_a_cancellation_is_traced(bench: Bench, collector: Collector) -> None:
    asked = bench.request(WORKS, not_before="2099-01-01T00:00:00Z")
    request_id = str(asked["request_id"])
    cancel = {"request_id": request_id}

    async with bench.running() as app:
        await bench.publish(asked)
        await until_delayed(app, request_id)
        await bench.publish(cancel, TRACE, key="call.cancel")
        event = await bench.event(request_id)

    (process,) = (span for span in collector.trace(UPSTREAM) if span.kind == "CONSUMER")
    assert process.name == f"process {bench.exchange}:call.cancel:{bench.queue}.cancel"
    assert event.headers["traceparent"].split("-")[1] == UPSTREAM


# What is not sampled, what fails


async def test_what_upstream_does_not_sample_is_not_sent_but_its_trace_goes_on(
    bench: Bench, collector: Collector
) -> None:
    async with bench.running():
        asked = bench.request(WORKS)
        await bench.publish(asked, NOT_SAMPLED)
        event = await bench.event(str(asked["request_id"]))

    _, trace_id, span_id, flags = event.headers["traceparent"].split("-")
    assert (trace_id, flags) == (UPSTREAM, "00")
    assert span_id != PARENT
    assert collector.spans == []


async def test_the_sampler_is_the_one_that_the_variables_name(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "calls-of-acme")
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/v1/traces")
        tracing.start()
        async with bench.running():
            alone, sampled = bench.request(WORKS), bench.request(WORKS)
            await bench.publish(alone)
            await bench.publish(sampled, TRACE)
            await bench.event(str(alone["request_id"]))
            await bench.event(str(sampled["request_id"]))

    assert {span.trace_id for span in collector.spans} == {UPSTREAM}
    assert collector.spans[0].resource["service.name"] == "calls-of-acme"


async def test_what_goes_wrong_is_told_by_its_kind_alone(
    bench: Bench, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ValueError("a number is in here")

    async with bench.running() as app:
        monkeypatch.setattr(app.ledger, "get", fail)
        await bench.publish(bench.request(WORKS), TRACE)
        await bench.dead_letters()

    process = collector.named(f"process {bench.exchange}:call.requested:{bench.queue}")
    assert process.failed
    assert process.attributes["error.type"] == "ValueError"
    assert b"is in here" not in b"".join(collector.bodies)


# The collector is away


async def test_a_collector_that_cannot_be_reached_costs_one_line(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with structlog.testing.capture_logs() as lines:
        tracing.start()
        async with bench.running():
            for _ in range(3):
                await bench.event(await bench.ask())
            await bench.until(lambda: bool(lost(lines)))
            begun = time.monotonic()

    assert time.monotonic() - begun < 4
    assert len(lost(lines)) == 1
    assert "Connection refused" in str(lost(lines)[0]["reason"])


@pytest.mark.parametrize("address", ["http://u:t0ken@127.0.0.1:9/t0ken", "127.0.0.1:9/t0ken"])
async def test_what_is_said_of_a_collector_holds_no_token(
    address: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    with structlog.testing.capture_logs() as lines:
        tracing.start()
        async with bench.running():
            await bench.event(await bench.ask())

    assert lost(lines)
    assert "t0ken" not in str(lines)


async def test_a_collector_that_does_not_answer_keeps_no_worker_from_ending(
    bench: Bench, call_consumer: Callable[..., Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        collector.may_answer.clear()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        command = call_consumer("run", **bench.given | {"retry_delays_s": "1,2"})
        await bench.event(await bench.ask())
        command.terminate()
        begun = time.monotonic()
        code = await asyncio.to_thread(command.process.wait, 30)

    assert code == 0
    assert time.monotonic() - begun < ENDS_WITHIN_S
    assert [line["part"] for line in command.log("stop.cut_short")] == ["traces"]


async def test_a_collector_that_refuses_is_quoted(bench: Bench, collector: Collector) -> None:
    collector.status = 401
    with structlog.testing.capture_logs() as lines:
        async with bench.running():
            await bench.event(await bench.ask())

    (line,) = lost(lines)
    assert "401" in str(line["reason"])


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"{canary.SECRET}@127.0.0.1:9"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:9/{canary.SECRET}"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=x%0A{canary.SECRET}"),
    ],
)
async def test_no_line_about_a_collector_shows_its_token(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv(variable, value)
    with structlog.testing.capture_logs() as lines:
        tracing.start()
        with tracing.processing("q", "q", "r", TRACE):
            pass
        await tracing.stop()

    assert len(lost(lines)) == 1
    assert canary.seen_in(str(lines)) == []


def lost(lines: list[Any]) -> list[Any]:
    return [line for line in lines if line["event"] == "traces.lost"]


# Beside the spans


async def test_log_lines_name_the_trace(bench: Bench, collector: Collector) -> None:
    lines = StringIO()
    log.set_up(stream=lines)
    async with bench.running():
        asked = bench.request(WORKS)
        await bench.publish(asked, TRACE)
        await bench.event(str(asked["request_id"]))

    written = [json.loads(line) for line in lines.getvalue().splitlines()]
    (started,) = (line for line in written if line["event"] == "call.started")
    (stopped,) = (line for line in written if line["event"] == "worker.stopped")
    process = collector.named(f"process {bench.exchange}:call.requested:{bench.queue}")
    assert (started["trace_id"], started["span_id"]) == (UPSTREAM, process.span_id)
    assert "trace_id" not in stopped


@pytest.mark.usefixtures("collector")
async def test_the_time_of_a_call_has_its_trace_as_an_exemplar(bench: Bench) -> None:
    async with bench.running():
        asked = bench.request(WORKS)
        await bench.publish(asked, TRACE)
        await bench.event(str(asked["request_id"]))

    accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4"}
    transport = httpx.ASGITransport(build_app(dict))
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as http:
        shown = (await http.get("/metrics", headers=accept)).text
        plain = (await http.get("/metrics")).text

    times = [line for line in shown.splitlines() if line.startswith("call_consumer_api_seconds_b")]
    assert any(f'trace_id="{UPSTREAM}"' in line for line in times)
    assert UPSTREAM not in plain


# Off


def test_a_worker_without_traces_imports_nothing_of_it() -> None:
    said = run_python(
        "import sys; from consumer.cli import run; run.tracing.start();"
        "print([name for name in sys.modules if name.startswith('opentelemetry.')])",
        {},
    )

    assert (
        said == "['opentelemetry.semconv']\n"
    )  # an empty one: FastStream looks whether it is there


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_SERVICE_NAME": "calls", "OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
    ids=["disabled", "no exporter", "no endpoint"],
)
def test_the_variables_can_say_no(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    tracing.start()

    assert tracing.waiting("for nothing") is tracing.waiting("for nothing either")
    assert tracing.onward(TRACE) is TRACE
    assert tracing.ids() == {}
    assert tracing.exemplar() is None


def test_without_the_extra_it_says_what_to_install() -> None:
    said = run_python(
        "import sys; sys.modules['opentelemetry'] = None; from consumer import tracing;"
        "tracing.start(); print(tracing.ids())",
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
    )

    assert "traces.off" in said
    assert "pip install '.[otel]'" in said


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "the protocol grpc is not supported"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "the protocol http/json is"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "ValueError: max_queue_size must be a positive"),
    ],
    ids=["gRPC", "JSON", "a wrong number"],
)
def test_what_it_cannot_do_is_said_in_a_line(
    variables: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with structlog.testing.capture_logs() as lines:
        tracing.start()

    (line,) = lines
    assert line["event"] == "traces.off"
    assert reason in line["reason"]
    assert tracing.ids() == {}


def run_python(program: str, variables: dict[str, str]) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return ran.stdout

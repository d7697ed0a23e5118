"""`call-consumer run` with two settings, against an HTTP server that knows one method only."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from consumer.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.commands import Command
    from tests.portals import ForeignPortal
    from tests.workbench import Bench, Seen

SECRET = "canary5ecret"
TEXT = "canary text"
LINE = "reg151083"
LONG = (300, 600)


def number_of(row: int) -> str:
    return f"+120255502{row:02}"


# The vendor's page from top to bottom: voximplant-infocall-start-with-text.html
PAGE = [
    (400, "ERROR_CORE", "Making infocall using LINK_BASE_NUMBER is not allowed", "refused"),
    (400, "ERROR_CORE", f"Could not find config for number {LINE}", "refused"),
    (400, "ERROR_CORE", "Infocall limit for this month is exceeded", "refused"),
    (400, "ERROR_CORE", "Phone number is not correct", "refused"),
    (400, "ERROR_CORE", "Infocall failure", "unsure"),
    (403, "ACCESS_DENIED", "Access denied", "refused"),
    (500, "INTERNAL_SERVER_ERROR", "Internal server error", "unsure"),
    (500, "ERROR_UNEXPECTED_ANSWER", "Server returned an unexpected response", "unsure"),
    (503, "QUERY_LIMIT_EXCEEDED", "Too many requests", "unavailable"),
    (405, "ERROR_BATCH_METHOD_NOT_ALLOWED", "Method is not allowed for batch usage", "refused"),
    (400, "ERROR_BATCH_LENGTH_EXCEEDED", "Max batch length exceeded", "refused"),
    (401, "NO_AUTH_FOUND", "Wrong authorization data", "refused"),
    (400, "INVALID_REQUEST", "Https required", "refused"),
    (503, "OVERLOAD_LIMIT", "REST API is blocked due to overload", "refused"),
    (403, "ACCESS_DENIED", "REST API is available only on commercial plans", "refused"),
    (403, "INVALID_CREDENTIALS", "Invalid request credentials", "refused"),
    (404, "ERROR_MANIFEST_IS_NOT_AVAILABLE", "Manifest is not available", "refused"),
    (
        403,
        "insufficient_scope",
        "The request requires higher privileges than provided by the webhook token",
        "refused",
    ),
    (401, "expired_token", "The access token provided has expired", "refused"),
    (403, "user_access_error", "The user does not have access to the application", "refused"),
    (500, "PORTAL_DELETED", "Portal was deleted", "refused"),
]

PLACED = {"result": {"RESULT": True, "CALL_ID": "the-same"}}
PAGE_OF_HTML = b"<html><body>Hello from a proxy</body></html>"

# Answers that the page does not have: status, body, headers; then outcome and code.
ODD: dict[str, tuple[int, Any, tuple[str, ...], str, str]] = {
    "moved": (302, b"", ("Location: https://new.example/rest/",), "refused", "HTTP_302"),
    "moved for good": (308, b"", (), "refused", "HTTP_308"),
    "bare 503": (503, b"", (), "unavailable", "HTTP_503"),
    "bare 429": (429, b"slow down", ("Retry-After: 400",), "unavailable", "HTTP_429"),
    "bare 502": (502, PAGE_OF_HTML, (), "unsure", "HTTP_502"),
    "bare 401": (401, PAGE_OF_HTML, (), "refused", "HTTP_401"),
    "teapot": (418, b"", (), "refused", "HTTP_418"),
    "HTML on 200": (200, PAGE_OF_HTML, (), "unsure", "UNREADABLE_ANSWER"),
    "empty body": (200, b"", (), "unsure", "UNREADABLE_ANSWER"),
    "no content": (204, b"", (), "unsure", "UNREADABLE_ANSWER"),
    "truncated": (200, b'{"result":{"RESULT":tr', (), "unsure", "UNREADABLE_ANSWER"),
    "a list": (200, b"[]", (), "unsure", "UNREADABLE_ANSWER"),
    "RESULT in words": (200, {"result": {"RESULT": "yes"}}, (), "unsure", "UNREADABLE_ANSWER"),
    "RESULT false": (200, {"result": {"RESULT": False}}, (), "refused", "RESULT_FALSE"),
    "numeric code": (400, {"error": 100, "error_description": "No."}, (), "refused", "100"),
    "unknown 4xx": (409, {"error": "NEW", "error_description": "?"}, (), "refused", "NEW"),
    "unknown 5xx": (599, {"error": "NEW", "error_description": "?"}, (), "unsure", "NEW"),
    "error on 200": (200, {"error": "NEW", "error_description": "?"}, (), "unsure", "NEW"),
    "no code": (
        400,
        {"error": "", "error_description": "Infocall failure"},
        (),
        "unsure",
        "ERROR_CORE",
    ),
    "an object": (400, {"error": {"code": "NEW", "message": "?"}}, (), "refused", "NEW"),
}


@pytest.fixture
def worker(
    bench: Bench, foreign: ForeignPortal, call_consumer: Callable[..., Command]
) -> Callable[..., Command]:
    """Start `call-consumer run` against the foreign mock; beside the two settings only names."""
    foreign.url = foreign.url.replace("foreign-s3cret", SECRET)

    def start(**settings: object) -> Command:
        return call_consumer(
            "run",
            rabbitmq_url=bench.given["rabbitmq_url"],
            bitrix24_url=foreign.url,
            exchange=bench.exchange,
            queue=bench.queue,
            **settings,
        )

    return start


async def ask(bench: Bench, number: str, **fields: object) -> str:
    return await bench.ask(number, text_to_pronounce=TEXT, from_line=LINE, **fields)


def assert_tells_no_secret(bench: Bench, command: Command, messages: list[Seen]) -> None:
    """Look for the canaries wherever they must not be."""
    log = command.stdout.read_text() + command.stderr.read_text()
    headers = [json.dumps(dict(message.headers), default=str) for message in messages]
    told = [str(event.fields.get("description")) for event in bench.heard]
    everything = "\n".join([log, *headers, *told])
    assert SECRET not in everything
    assert TEXT not in everything
    assert re.findall(r"1202555\d{4}", everything) == []


async def test_two_settings_are_enough(
    bench: Bench, foreign: ForeignPortal, worker: Callable[..., Command]
) -> None:
    bench.settings(retry_delays_s=(5, 30, 300, 1800, 3600))  # to be deleted afterwards
    for queue in (bench.queue, f"{bench.queue}.dlq"):
        await bench.channel.queue_delete(queue)
    later, never = number_of(1), number_of(2)
    foreign.answers[later] = [error(401, "CONNECTION_ERROR", "?"), foreign.reply(200, PLACED)]
    foreign.answers[never] = [error(400, "ERROR_CORE", "Phone number is not correct")]

    began_at = time.monotonic()
    command = worker()
    await bench.until(lambda: bool(command.log("worker.ready")))
    asked_at = time.monotonic()
    ids = [await ask(bench, number) for number in (number_of(0), never, later, number_of(3))]
    await bench.until(lambda: bool(command.log("call.delayed")))
    waiting = await bench.count(f"{bench.queue}.delay.5s")
    started, failed, retried, also = [await bench.event(request_id) for request_id in ids]
    (letter,) = await bench.dead_letters()
    ended_at = time.monotonic()
    command.terminate()
    await bench.until(lambda: command.code is not None)

    assert command.code == 0
    assert command.stderr.read_text() == ""
    assert waiting == 1
    assert started["call_id"] == also["call_id"] == "always-the-same"
    assert failed["reason"] == "refused"
    assert letter.headers["x-code"] == "ERROR_CORE"
    assert (retried["attempt"], retried["call_id"]) == (2, "the-same")
    assert ended_at - asked_at >= 5
    assert ended_at - began_at < 12
    assert_tells_no_secret(bench, command, [letter])


def error(status: int, code: str, description: str) -> bytes:
    body = {"error": code, "error_description": description}
    content = json.dumps(body).encode()
    return (
        f"HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    ).encode() + content


async def test_each_error_of_the_vendors_page_has_its_outcome(
    bench: Bench, foreign: ForeignPortal, worker: Callable[..., Command]
) -> None:
    bench.settings(retry_delays_s=LONG)
    for row, (status, code, text, _) in enumerate(PAGE):
        foreign.answers[number_of(row)] = [error(status, code, text)]

    # So many refusals in a row would pause it.
    command = worker(rate_per_s=0, retry_delays_s="300,600", http_port=0, pause_after=99)
    await bench.until(lambda: bool(command.log("worker.ready")))
    ids = [await ask(bench, number_of(row)) for row in range(len(PAGE))]
    outcomes = [outcome for *_, outcome in PAGE]
    refused = [
        request_id
        for request_id, outcome in zip(ids, outcomes, strict=True)
        if outcome == "refused"
    ]
    await bench.until(lambda: len(bench.heard) == len(refused))
    letters = {each["request_id"]: each for each in await bench.dead_letters(len(refused))}
    count = len(ids) - len(refused)
    waiting = {each["request_id"]: each for each in await bench.waiting(300, count)}
    await bench.until(lambda: len(command.log("call.delayed")) == count)
    command.terminate()
    await bench.until(lambda: command.code is not None)

    dialled = sorted(call["TO_NUMBER"] for call in foreign.asked)
    assert dialled == [number_of(row) for row in range(len(PAGE))]
    for request_id, (status, code, text, outcome) in zip(ids, PAGE, strict=True):
        logged = [line for line in command.log() if line.get("request_id") == request_id]
        told = {"x-code": code, "x-description": text, "x-http-status": status}
        if outcome == "refused":
            (event,) = bench.events_of(request_id)
            found = {name: event[name] for name in ("reason", "code", "description", "http_status")}
            assert found == {
                "reason": "refused",
                "code": code,
                "description": text,
                "http_status": status,
            }
            headers = letters[request_id].headers
            assert headers.items() >= (told | {"x-reason": "refused", "x-attempt": 1}).items()
            assert [line["event"] for line in logged] == ["call.failed"]
            assert (logged[0]["reason"], logged[0]["code"]) == ("refused", code)
        else:
            headers = waiting[request_id].headers
            assert headers.items() >= (told | {"x-reason": outcome, "x-attempt": 1}).items()
            assert ("x-unsure-since" in headers) == (outcome == "unsure")
            assert [line["event"] for line in logged] == ["call.delayed"]
            assert logged[0]["code"] == code
        assert logged[0]["attempt"] == 1
    assert command.code == 0
    assert_tells_no_secret(bench, command, [*letters.values(), *waiting.values()])


async def test_without_a_history_only_reported_failures_are_tried_again(
    bench: Bench, foreign: ForeignPortal, worker: Callable[..., Command]
) -> None:
    failure, internal, unexpected, page = map(number_of, range(4))
    foreign.answers = {
        failure: [error(400, "ERROR_CORE", "Infocall failure")],
        internal: [error(500, "INTERNAL_SERVER_ERROR", "x"), foreign.reply(200, PLACED)],
        unexpected: [error(500, "ERROR_UNEXPECTED_ANSWER", "x"), foreign.reply(200, PLACED)],
        page: [foreign.reply(200, PAGE_OF_HTML)],
    }

    command = worker(rate_per_s=0, retry_delays_s="1,2", http_port=0)
    ids = [await ask(bench, number) for number in foreign.answers]
    events = [await bench.event(request_id) for request_id in ids]
    letters = await bench.dead_letters(2)
    command.terminate()
    await bench.until(lambda: command.code is not None)

    assert [event.message.type for event in events] == [
        "call.failed",
        "call.started",
        "call.started",
        "call.failed",
    ]
    assert {event["reason"] for event in events if event.message.type == "call.failed"} == {
        "unsure"
    }
    assert {letter.headers["x-reason"] for letter in letters} == {"unsure"}
    assert all("x-unsure-since" in letter.headers for letter in letters)
    assert [foreign.dialled(number) for number in (failure, internal, unexpected, page)] == [
        1,
        2,
        2,
        1,
    ]
    assert len(command.log("history.unreadable")) == 1
    assert_tells_no_secret(bench, command, letters)


async def test_answers_that_nobody_has_described_are_classified_all_the_same(
    bench: Bench, foreign: ForeignPortal, worker: Callable[..., Command]
) -> None:
    bench.settings(retry_delays_s=LONG)
    expected: dict[str, tuple[str, str]] = {}
    raw = {
        "hang up": (b"", "REMOTE_PROTOCOL_ERROR"),
        "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", "REMOTE_PROTOCOL_ERROR"),
        "cut": (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "REMOTE_PROTOCOL_ERROR"),
    }
    command = worker(rate_per_s=0, retry_delays_s="300,600", http_port=0, pause_after=1000)
    await bench.until(lambda: bool(command.log("worker.ready")))
    for row, (name, (status, body, headers, outcome, code)) in enumerate(ODD.items()):
        foreign.answers[number_of(row)] = [foreign.reply(status, body, *headers)]
        await ask(bench, number_of(row), metadata={"row": name})
        expected[name] = (outcome, code)
    for row, (name, (answer, code)) in enumerate(raw.items(), len(ODD)):
        foreign.answers[number_of(row)] = [answer]
        await ask(bench, number_of(row), metadata={"row": name})
        expected[name] = ("unsure", code)
    refused = sum(outcome == "refused" for outcome, _ in expected.values())
    letters = await bench.dead_letters(refused)
    waiting = await bench.waiting(300, len(expected) - refused)
    command.terminate()
    await bench.until(lambda: command.code is not None)

    seen = {
        each["metadata"]["row"]: (each.headers["x-reason"], each.headers["x-code"])
        for each in [*letters, *waiting]
    }
    assert seen == expected
    assert await bench.count(bench.queue) == 0
    assert all(each.headers.get("x-description") for each in [*letters, *waiting])
    assert_tells_no_secret(bench, command, [*letters, *waiting])


async def test_what_the_portal_quotes_is_not_repeated(
    bench: Bench, foreign: ForeignPortal, worker: Callable[..., Command]
) -> None:
    number = number_of(0)
    text = f"No call to {number} ({number[1:]}): '{TEXT}' at /rest/1/{SECRET}/"
    foreign.answers[number] = [error(400, "ERROR_CORE", text)]

    command = worker(rate_per_s=0, log_level="debug", retry_delays_s="1,2", http_port=0)
    request_id = await ask(bench, number)
    event = await bench.event(request_id)
    letters = await bench.dead_letters()
    command.terminate()
    await bench.until(lambda: command.code is not None)

    assert event["to_number"] == number
    assert "No call to" in event["description"]
    assert_tells_no_secret(bench, command, letters)


async def test_an_invalid_request_has_attempt_0_wherever_it_is_told(
    bench: Bench, worker: Callable[..., Command]
) -> None:
    command = worker(rate_per_s=0, http_port=0)
    request_id = await ask(bench, "nobody")
    event = await bench.event(request_id)
    [letter] = await bench.dead_letters()
    await bench.until(lambda: bool(command.log("call.failed")))

    [line] = command.log("call.failed")
    assert (event["attempt"], letter.headers["x-attempt"], line["attempt"]) == (0, 0, 0)


async def test_a_portal_that_is_down_at_the_start_costs_nothing(
    bench: Bench, call_consumer: Callable[..., Command]
) -> None:
    bench.settings(retry_delays_s=LONG)
    command = call_consumer(
        "run",
        rabbitmq_url=bench.given["rabbitmq_url"],
        bitrix24_url=f"http://127.0.0.1:9/rest/1/{SECRET}/",
        exchange=bench.exchange,
        queue=bench.queue,
        retry_delays_s="300,600",
        http_port=0,
    )
    await bench.until(lambda: bool(command.log("worker.ready")))
    await ask(bench, number_of(0))
    (waiting,) = await bench.waiting(300)
    command.terminate()
    await bench.until(lambda: command.code is not None)

    assert command.code == 0
    assert (waiting.headers["x-code"], waiting.headers["x-attempt"]) == ("CONNECT_ERROR", 2)
    assert_tells_no_secret(bench, command, [waiting])


async def test_sigterm_waits_for_the_call_in_flight(
    bench: Bench, foreign: ForeignPortal, worker: Callable[..., Command]
) -> None:
    foreign.may_answer.clear()
    command = worker(rate_per_s=0, retry_delays_s="1,2", http_port=0, concurrency=1)
    ids = [await ask(bench, number_of(row)) for row in range(2)]
    await bench.until(foreign.arrived.is_set)
    command.terminate()
    await bench.until(lambda: bool(command.log("worker.draining")))
    foreign.may_answer.set()
    await bench.until(lambda: command.code is not None)

    assert command.code == 0
    assert (await bench.event(ids[0])).message.type == "call.started"
    assert len(foreign.asked) == 1
    assert await bench.count(bench.queue) == 1
    assert command.log("worker.stopped")


SAFE = {
    "rabbitmq_url": "amqp://u:canary5ecret@127.0.0.1:9/",
    "bitrix24_url": "https://x/rest/1/canary5ecret/",
}
MISTAKES: dict[str, tuple[dict[str, object], str]] = {
    "no broker set": ({"rabbitmq_url": ""}, r"CALLS_RABBITMQ_URL: is not set: write amqp://.+"),
    "no portal set": ({"bitrix24_url": ""}, r"CALLS_BITRIX24_URL: is not set: write https://.+"),
    "unknown": (
        {"retry_delay_s": "5"},
        r"CALLS_RETRY_DELAY_S: .*did you mean CALLS_RETRY_DELAYS_S\?",
    ),
    "unencrypted": (
        {"bitrix24_url": "http://portal.example/rest/1/canary5ecret/"},
        r"CALLS_BITRIX24_URL: .*write https.*",
    ),
    "no address": (
        {"bitrix24_url": "canary5ecret"},
        r"CALLS_BITRIX24_URL: is no webhook address.*",
    ),
    "no AMQP": ({"rabbitmq_url": "http://u:canary5ecret@x/"}, r"CALLS_RABBITMQ_URL: is no AMQP.*"),
    "no port": ({"rabbitmq_url": "amqp://u:canary5ecret@x:y/"}, r"CALLS_RABBITMQ_URL: is no.*"),
    "words for numbers": ({"rate_per_s": "canary5ecret"}, r"CALLS_RATE_PER_S: .*number.*"),
    "shrinking delays": ({"retry_delays_s": "30,5"}, r"CALLS_RETRY_DELAYS_S: .*grow.*"),
    "no time to drain": ({"timeout_s": 90}, r"CALLS_DRAIN_S: must be more than CALLS_TIMEOUT_S.*"),
    "no such file": (
        {"rabbitmq_url": "", "rabbitmq_url_file": "/nowhere"},
        r"CALLS_RABBITMQ_URL_FILE: cannot .*",
    ),
    "no such folder": (
        {"ledger_url": "sqlite:////nowhere/at/all.db"},
        r"(Error: )?.*/nowhere/at/all\.db.*",
    ),
}
UNREACHED: dict[str, tuple[dict[str, object], str]] = {
    "broker down": ({}, r"(Error: )?no broker answers at 127\.0\.0\.1:9 .*CALLS_RABBITMQ_URL"),
    "no such host": (
        {"rabbitmq_url": "amqp://u:canary5ecret@no-such-host.invalid/"},
        r"(Error: )?no broker answers at no-such-host\.invalid:5672 .*CALLS_RABBITMQ_URL",
    ),
}


@pytest.mark.parametrize(("settings", "line"), MISTAKES.values(), ids=MISTAKES)
def test_a_wrong_set_up_is_one_clear_line(settings: dict[str, object], line: str) -> None:
    environment = {f"CALLS_{name.upper()}": str(value) for name, value in (SAFE | settings).items()}

    result = CliRunner(env=environment).invoke(main, ["run", "--wait-s", "0"])

    assert result.exit_code in {1, 2}
    assert re.fullmatch(line, result.stderr.rstrip("\n")), result.stderr
    assert SECRET not in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("settings", "line"), UNREACHED.values(), ids=UNREACHED)
def test_a_broker_that_does_not_answer_is_one_clear_line(
    call_consumer: Callable[..., Command], settings: dict[str, object], line: str
) -> None:
    command = call_consumer("run", "--wait-s", "0", **(SAFE | settings))

    assert command.process.wait(20) in {1, 2}
    told = command.stderr.read_text()
    assert re.fullmatch(line, told.rstrip("\n")), told
    assert SECRET not in told + command.stdout.read_text()
    assert "Traceback" not in command.stdout.read_text()

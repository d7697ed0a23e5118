"""Log lines: one pipeline, one shape, and nothing in them that must not be seen."""

import io
import json
import logging
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import structlog

from consumer import log
from consumer.output import OutputFailed

SECRET = "s3cr3t-webhook"

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(stream: io.StringIO) -> Lines:
    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    return read


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# --- the shape


def test_a_line_is_an_event_and_its_fields(stream: io.StringIO, lines: Lines) -> None:
    log.set_up(stream=stream)

    structlog.get_logger("consumer.worker").warning("call.failed", code="ERROR_CORE", attempt=3)

    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "call.failed",
        "level": "warning",
        "code": "ERROR_CORE",
        "attempt": 3,
    }


def test_what_is_bound_is_on_every_line(stream: io.StringIO, lines: Lines) -> None:
    log.set_up(stream=stream)

    with structlog.contextvars.bound_contextvars(request_id="r-1", attempt=2):
        structlog.get_logger().info("call.delayed")
        logging.getLogger("aio_pika").warning("channel closed")
    structlog.get_logger().info("worker.stopped")

    delayed, closed, stopped = lines()
    assert (delayed["request_id"], delayed["attempt"]) == ("r-1", 2)
    assert (closed["request_id"], closed["attempt"]) == ("r-1", 2)
    assert "request_id" not in stopped


def test_a_request_keeps_its_id_even_where_a_secret_is_in_it(
    stream: io.StringIO, lines: Lines
) -> None:
    log.set_up(stream=stream, secrets=["hush"])

    structlog.get_logger().info("call.delayed", request_id="hush-1", cause="hush")

    (line,) = lines()
    assert (line["request_id"], line["cause"]) == ("hush-1", "***")


def test_a_line_stays_one_line_and_is_written_as_it_is(stream: io.StringIO, lines: Lines) -> None:
    log.set_up(stream=stream)

    structlog.get_logger().info("call.failed", description="один\ntwo", odd={1, 2}.__class__)

    assert stream.getvalue().count("\n") == 1
    assert "один" in stream.getvalue()
    (line,) = lines()
    assert line["description"] == "один\ntwo"
    assert line["odd"] == "<class 'set'>"


def test_on_a_terminal_a_line_is_for_people() -> None:
    terminal = Terminal()
    log.set_up(stream=terminal, secrets=[SECRET])

    structlog.get_logger().warning("call.failed", code=SECRET)

    shown = terminal.getvalue()
    assert "call.failed" in shown
    assert not shown.startswith("{")
    assert SECRET not in shown


def test_lines_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up()

    structlog.get_logger().info("worker.ready")

    shown = capsys.readouterr()
    assert json.loads(shown.out)["event"] == "worker.ready"
    assert shown.err == ""


LEVELS: dict[str, list[str]] = {
    "debug": ["debug", "info", "warning", "error"],
    "info": ["info", "warning", "error"],
    "warning": ["warning", "error"],
    "error": ["error"],
}


@pytest.mark.parametrize(("level", "shown"), LEVELS.items(), ids=LEVELS)
def test_less_severe_lines_are_left_out(
    level: str, shown: list[str], stream: io.StringIO, lines: Lines
) -> None:
    log.set_up(level, stream=stream)

    for name in LEVELS:
        getattr(structlog.get_logger(), name)("ours")
        getattr(logging.getLogger("library"), name)("theirs")

    ours = [line["level"] for line in lines() if line["event"] == "ours"]
    theirs = [line["level"] for line in lines() if line.get("message") == "theirs"]
    assert ours == theirs == shown


def test_setting_up_again_does_not_double_the_lines(stream: io.StringIO, lines: Lines) -> None:
    log.set_up(stream=stream)
    log.set_up(stream=stream)

    structlog.get_logger().info("worker.ready")
    logging.getLogger("library").info("theirs")

    assert len(lines()) == 2


# --- libraries


def test_what_the_brokers_library_says_at_each_try_is_said_once_a_minute(
    stream: io.StringIO, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 59.0, 59.5, 61.0])
    log.set_up(stream=stream)
    monkeypatch.setattr("consumer.log.time", SimpleNamespace(monotonic=lambda: next(clock)))

    for text in ("refused", "refused", "refused", "timed out", "refused"):
        logging.getLogger("aiormq.connection").error("%s", text)
        logging.getLogger("others").error("the same")

    told = [line["message"] for line in lines() if line["library"] != "others"]
    assert told == ["refused", "timed out", "refused"]
    assert len(lines()) == len(told) + 5


def test_a_librarys_sentence_is_filed_under_one_event(stream: io.StringIO, lines: Lines) -> None:
    log.set_up(stream=stream)

    logging.getLogger("aiormq.connection").warning("Server %s closed %d channels", "rabbit", 3)

    (line,) = lines()
    line.pop("timestamp")
    assert line == {
        "event": "library",
        "library": "aiormq.connection",
        "level": "warning",
        "message": "Server rabbit closed 3 channels",
    }


def raise_quoting(text: str) -> None:
    raise ValueError(f"cannot read {text}")


@pytest.mark.parametrize(
    "say",
    [
        pytest.param(lambda: structlog.get_logger().exception("worker.bug"), id="ours"),
        pytest.param(
            lambda: structlog.get_logger().error("worker.bug", exc_info=sys.exc_info()),
            id="ours, as three",
        ),
        pytest.param(
            lambda: structlog.get_logger().error("worker.bug", exc_info=sys.exc_info()[1]),
            id="ours, the exception itself",
        ),
        pytest.param(
            lambda: logging.getLogger("library").error("failed", exc_info=sys.exc_info()),
            id="a library's",
        ),
        pytest.param(
            lambda: logging.getLogger("library").error("failed", exc_info=sys.exc_info()[1]),
            id="a library's, the exception itself",
        ),
    ],
)
def test_an_exception_is_shown_by_type_and_place_only(
    say: Callable[[], None], stream: io.StringIO, lines: Lines
) -> None:
    log.set_up(stream=stream)

    try:
        raise_quoting("+4915112345678")
    except ValueError:
        say()

    (line,) = lines()
    assert line["error"] == "ValueError"
    assert line["at"][-1].startswith("test_log.py:")
    assert line["at"][-1].endswith(" raise_quoting")
    assert "4915112345678" not in stream.getvalue()
    assert "Traceback" not in stream.getvalue()


def test_the_causes_of_an_exception_are_not_quoted_either(
    stream: io.StringIO, lines: Lines
) -> None:
    log.set_up(stream=stream)

    try:
        try:
            raise_quoting("+4915112345678")
        except ValueError as error:
            raise RuntimeError("Frau Meier") from error
    except RuntimeError:
        logging.getLogger("library").exception("failed")

    assert lines()[0]["error"] == "RuntimeError"
    assert "4915112345678" not in stream.getvalue()
    assert "Meier" not in stream.getvalue()


def test_without_an_exception_there_is_none_to_show(stream: io.StringIO, lines: Lines) -> None:
    log.set_up(stream=stream)

    structlog.get_logger().error("worker.bug", exc_info=True)
    logging.getLogger("library").error("failed", exc_info=sys.exc_info())

    assert all("error" not in line and "at" not in line for line in lines())


@pytest.mark.parametrize("level", ["debug", "info"])
async def test_httpx_never_shows_the_address_it_asks(
    level: str, stream: io.StringIO, lines: Lines
) -> None:
    log.set_up(level, stream=stream)
    transport = httpx.MockTransport(lambda _: httpx.Response(200))

    async with httpx.AsyncClient(transport=transport) as client:
        await client.post(f"https://portal.example/rest/1/{SECRET}/app.info")
    logging.getLogger("httpcore.connection").debug("connect %s", SECRET)

    assert lines() == []


# --- what acts on a terminal, or cannot be written


def test_nothing_in_a_line_acts_on_a_terminal(
    stream: io.StringIO, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    told = "\x1b[2J\u202e\x9b\u2028"
    terminal = Terminal()
    for each in (terminal, stream):
        log.set_up(stream=each)
        structlog.get_logger().info("call.failed", why=told, each=[told])
        logging.getLogger("library").warning("cannot %s", told)

    shown = terminal.getvalue() + stream.getvalue()
    assert len(shown.split("\n")) == 5
    assert all(line.isprintable() for line in shown.split("\n"))
    assert lines()[0]["why"] == told


@pytest.mark.parametrize(("no_colour", "colours"), [("1", False), ("", True)])
def test_colours_on_a_terminal_can_be_turned_off(
    no_colour: str, *, colours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_colour)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    log.set_up(stream=terminal)

    structlog.get_logger().info("worker.ready")

    assert ("\x1b[" in terminal.getvalue()) == colours


class Full(io.StringIO):
    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_lines_that_cannot_be_written_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up(stream=Full())

    for _ in range(3):
        structlog.get_logger().info("worker.ready")

    assert capsys.readouterr().err == (
        "the log cannot be written: No space left on device: lines are lost\n"
    )


class Unspeakable:
    def __repr__(self) -> str:
        raise ValueError(SECRET)


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "a library's"])
def test_a_line_that_cannot_be_made_stops_nothing(
    ours: bool,  # noqa: FBT001
    stream: io.StringIO,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.set_up(stream=stream)

    if ours:
        structlog.get_logger().info("call.failed", cause=Unspeakable())
    else:
        logging.getLogger("library").warning("%r", Unspeakable())

    assert stream.getvalue() == ""
    assert capsys.readouterr().err == "a line of the log cannot be made: ValueError\n"


def test_a_line_that_is_needed_fails_if_it_cannot_be_written() -> None:
    log.set_up(stream=Full(), needed=True)

    with pytest.raises(OutputFailed, match="No space left on device"):
        structlog.get_logger().warning("dead_letter.discarded")


# --- secrets


@pytest.mark.parametrize("password", ["info", "level", "true", "failed", "e", "event"])
def test_a_password_that_is_a_plain_word_spoils_no_line(
    password: str, stream: io.StringIO, lines: Lines
) -> None:
    url = f"amqp://calls:{password}@rabbit:5672/"
    log.set_up(stream=stream, secrets=log.secret_parts(url))

    structlog.get_logger().info("call.failed", retried=True, why="the informed levels exceeded")
    structlog.get_logger().info("broker.lost", url=url)

    failed, lost = lines()
    assert failed.pop("timestamp")
    assert failed == {
        "event": "call.failed",
        "level": "info",
        "retried": True,
        "why": "the informed levels exceeded",
    }
    assert lost["url"] == (url if len(password) < 3 else "amqp://calls:***@rabbit:5672/")


def test_where_a_secret_would_stand_stars_do(stream: io.StringIO, lines: Lines) -> None:
    log.set_up(stream=stream, secrets=[SECRET])

    structlog.get_logger().info(f"asks {SECRET}", url=f"https://p.example/{SECRET}/", n=[SECRET])
    logging.getLogger("library").warning("cannot reach %s", SECRET)

    ours, theirs = lines()
    assert ours["event"] == "asks ***"
    assert ours["url"] == "https://p.example/***/"
    assert ours["n"] == ["***"]
    assert theirs["message"] == "cannot reach ***"


PARTS: dict[str, tuple[str, list[str]]] = {
    "a webhook": (
        "https://portal.example/rest/1/s3cr3t-webhook/",
        ["rest/1/s3cr3t-webhook", "s3cr3t-webhook"],
    ),
    "a webhook without its last slash": (
        "https://portal.example/rest/1/s3cr3t-webhook",
        ["rest/1/s3cr3t-webhook", "s3cr3t-webhook"],
    ),
    "a webhook behind another path": (
        "http://127.0.0.1/mock/rest/1/s3cr3t-webhook/",
        ["mock/rest/1/s3cr3t-webhook", "s3cr3t-webhook"],
    ),
    "a short secret": ("https://portal.example/rest/1/abc/", ["rest/1/abc", "abc"]),
    "no path": ("https://portal.example/", []),
    "a broker": ("amqp://calls:hush@rabbit:5672/", ["hush"]),
    "a broker whose password is encoded": ("amqp://calls:hu%2Fsh@rabbit/", ["hu%2Fsh", "hu/sh"]),
    "a password that is the user's name, as guest": ("amqp://guest:guest@rabbit/", []),
    "a broker without a password": ("amqp://rabbit/vhost-of-ours", []),
    "several brokers": (
        "amqp://calls:hush@one/,amqps://calls:hush%2Chush@two/",
        ["hush%2Chush", "hush,hush", "hush"],
    ),
    "a proxy's password too": (
        "https://me:hush@portal.example/rest/1/s3cr3t-webhook/",
        ["rest/1/s3cr3t-webhook", "s3cr3t-webhook", "hush"],
    ),
}


@pytest.mark.parametrize(("url", "parts"), PARTS.values(), ids=PARTS)
def test_of_an_address_the_secret_parts_are_known_the_longest_first(
    url: str, parts: list[str]
) -> None:
    assert log.secret_parts(url) == parts


PASSWORDS: dict[str, str] = {
    "letters": "hush-hush",
    "slash": "hush/hush",
    "percent": "hush%hush",
    "at sign": "hush@hush",
    "umlaut": "hüsh-hüsh",
    "quote": 'hush"hush',
    "backslash": "hush\\hush",
    "line break": "hush\nhush",
}


@pytest.mark.parametrize("password", PASSWORDS.values(), ids=PASSWORDS)
def test_a_password_is_starred_however_it_is_written(
    password: str, stream: io.StringIO, lines: Lines
) -> None:
    url = f"amqp://calls:{quote(password, safe='')}@rabbit:5672/"
    log.set_up(stream=stream, secrets=log.secret_parts(url))

    structlog.get_logger().info("broker.lost", url=url, password=password)

    (line,) = lines()
    assert line["url"] == "amqp://calls:***@rabbit:5672/"
    assert line["password"] == "***"

"""One pipeline for every log line, ours and the libraries': JSON, or colours on a terminal."""

import json
import logging
import math
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TextIO
from urllib.parse import unquote, urlsplit

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from consumer import output, tracing
from consumer.masking import STARS, pattern_of
from consumer.output import OutputFailed, escaped, has_colours

QUIET = dict.fromkeys(("httpx", "httpcore", "uvicorn.access", "uvicorn.error"), logging.WARNING)
QUIET |= dict.fromkeys(("aiormq", "aio_pika", "urllib3"), logging.INFO)
QUIET |= {"opentelemetry.util.re": logging.CRITICAL}
"""httpx logs addresses at INFO, which hold the webhook's secret; aiormq whole frames at DEBUG,
urllib3 the collector's address. OpenTelemetry quotes a header that it cannot read, a token too."""
SAID_AGAIN_S = 60.0
"""How long a library's line is left out that says the same again, as at each try to connect."""
MANY = 100
SHORTEST_SECRET = 3
"""Stars for anything shorter would make a line unreadable."""
OURS = re.compile(r"library|[a-z_]+(\.[a-z_]+)+")
"""Our own event names, which hold no secret, whatever one it is."""

NO_SECRET = {"timestamp", "level", "request_id"}
"""Fields that stay as they are: a request must be found again, even one called `guest-1`."""

Clean = Callable[[str], str]


class _Sparing(logging.Filter):
    """Leaves out what the broker's libraries have just said."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is to be shown."""
        if record.name.partition(".")[0] not in {"aiormq", "aio_pika"}:
            return True
        line, now = (record.name, record.getMessage()), time.monotonic()
        if now - self._said.get(line, -math.inf) < SAID_AGAIN_S:
            return False
        if len(self._said) > MANY:
            self._said.clear()
        self._said[line] = now
        return True


class _Lines(logging.StreamHandler[TextIO]):
    """Writes lines; what cannot be written must not stop the worker, nor fill stderr.

    Args:
        stream: Where to write.
        rendering: What makes a line of an event.
        needed: Whether a line that cannot be written raises an error where it is logged.
    """

    def __init__(self, stream: TextIO, rendering: Sequence[Processor], *, needed: bool) -> None:
        super().__init__(stream)
        self._rendering = rendering
        self._needed = needed
        self._lost = False

    def emit(self, record: logging.LogRecord) -> None:
        self._write(lambda: self.format(record))

    def tell(self, **event: object) -> None:
        """Write an event of ours, past `logging`, which would take as long again."""
        self.acquire()  # as logging does around `emit`: threads may have something to say, too
        try:
            self._write(lambda: self._rendered(event))
        finally:
            self.release()

    debug = info = warning = error = critical = tell  # what structlog calls

    def _rendered(self, event: Any) -> str:  # noqa: ANN401  # a line in the end
        for process in self._rendering:
            event = process(None, "", event)
        return str(event)

    def _write(self, line: Callable[[], str]) -> None:
        try:
            output.write(self.stream, f"{line()}\n")
            self._lost = False
        except OSError as error:
            failure = OutputFailed("the log", error)
            if self._needed:
                raise failure from None
            if not self._lost and self.stream is not sys.stderr:
                self._lost = True
                with suppress(OutputFailed):
                    output.say(f"{failure}: lines are lost", err=True)
        except Exception as error:  # noqa: BLE001  # a line that cannot be made stops nothing
            with suppress(OutputFailed):
                output.say(f"a line of the log cannot be made: {type(error).__name__}", err=True)


def set_up(
    level: str = "info",
    secrets: Sequence[str] = (),
    stream: TextIO | None = None,
    *,
    needed: bool = False,
) -> None:
    """Send all logging through structlog.

    Args:
        level: The least severe level shown.
        secrets: Texts that are replaced by stars.
        stream: Where to write; stdout unless given.
        needed: Whether to raise `OutputFailed` for a line that cannot be written.
    """
    stream = stream or sys.stdout
    rendering = _rendering(stream, _mask(secrets))
    handler = _Lines(stream, rendering, needed=needed)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*SHARED, _name_library],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    handler.setLevel(level.upper())
    handler.addFilter(_Sparing())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(least)
    structlog.configure(
        processors=SHARED,
        logger_factory=lambda *_: handler,
        wrapper_class=structlog.make_filtering_bound_logger(handler.level),
        cache_logger_on_first_use=False,
    )


def secret_parts(url: str) -> list[str]:
    """Return what of an address must not be shown: its password, and a webhook's path."""
    if url.startswith("amqp") and "," in url:  # a list of brokers
        every = {secret for each in url.split(",") for secret in secret_parts(each)}
        return sorted(every, key=len, reverse=True)
    parts = urlsplit(url)
    password = parts.password if parts.password != parts.username else None  # a name is no secret
    secrets = [password or "", unquote(password or "")]
    if parts.scheme.startswith("http"):
        segments = parts.path.strip("/").split("/")
        # The last part is the secret; in a path of that one alone, more likely a plain word.
        secrets += ["/".join(segments), *segments[1:][-1:]]
    return sorted({s for s in secrets if len(s) >= SHORTEST_SECRET}, key=len, reverse=True)


def _name_library(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """File a library's sentence under one event name, so that ours stay countable."""
    record = event["_record"]
    return {**event, "event": "library", "library": record.name, "message": event["event"]}


def _without_message(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Show an exception's type and place: its message may quote what it failed on."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)[-5:]
        event["error"] = type(error).__name__
        event["at"] = [f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in frames]
    return event


def _with_trace(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Name the trace that a line belongs to, so that each leads to the other."""
    event.update(tracing.ids())
    return event


SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    _with_trace,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _without_message,
)
"""What every event goes through, ours and the libraries'."""


def _rendering(stream: TextIO, mask: Clean) -> list[Processor]:
    """Return what makes a line of an event: for a person at a terminal, else JSON."""
    if stream.isatty():
        console = structlog.dev.ConsoleRenderer(colors=has_colours(stream))
        return [_cleaned(lambda text: escaped(mask(text))), console]
    return [
        _cleaned(mask),
        structlog.processors.JSONRenderer(ensure_ascii=False, default=repr),
        lambda _, __, line: escaped(str(line)),
    ]


def _mask(secrets: Sequence[str]) -> Clean:
    """Return what puts stars in place of *secrets*, however a library quotes them."""
    quoted = (json.dumps(secret, ensure_ascii=False)[1:-1] for secret in secrets)
    hidden = sorted({*secrets, *quoted}, key=len, reverse=True)
    if not hidden:
        return str
    pattern = re.compile("|".join(map(pattern_of, hidden)))
    return lambda text: pattern.sub(STARS, text)


def _cleaned(clean: Clean) -> Processor:
    """Clean what a line says; its fields' names, its time and its level are our own words."""

    def walk(value: object) -> object:
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                return clean(value)
            case Mapping():
                return {clean(str(key)): walk(each) for key, each in value.items()}
            case list() | tuple() | set() | frozenset():
                return [walk(each) for each in value]
            case _:
                return clean(repr(value))

    def process(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {
            name: value if _is_ours(name, value) else walk(value) for name, value in event.items()
        }

    return process


def _is_ours(name: str, value: object) -> bool:
    if name == "event":
        return isinstance(value, str) and OURS.fullmatch(value) is not None
    return name in NO_SECRET

"""One pipeline for every log line, ours and the libraries': JSON, or colours on a terminal."""

import json
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import TextIO
from urllib.parse import unquote, urlsplit

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

QUIET = dict.fromkeys(("httpx", "httpcore", "uvicorn.access", "uvicorn.error"), logging.WARNING)
QUIET |= dict.fromkeys(("aiormq", "aio_pika"), logging.INFO)
"""httpx logs addresses at INFO, which hold the webhook's secret; aiormq whole frames at DEBUG."""


SHORTEST_SECRET = 4
"""Stars for anything shorter would make a line unreadable."""


def set_up(level: str = "info", secrets: Sequence[str] = (), stream: TextIO | None = None) -> None:
    """Send all logging through structlog.

    Args:
        level: The least severe level shown.
        secrets: Texts that never appear: where one would, stars do.
        stream: Where to write; stdout unless given.
    """
    stream = stream or sys.stdout
    render: Processor = (
        structlog.dev.ConsoleRenderer()
        if stream.isatty()
        else structlog.processors.JSONRenderer(ensure_ascii=False, default=repr)
    )
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_message,
    ]
    handler = logging.StreamHandler(stream)
    handler.setLevel(level.upper())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _name_library],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                render,
                _stars(secrets),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(least)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def secret_parts(url: str) -> list[str]:
    """Return what of an address must not be shown: its password, and a webhook's path."""
    if url.startswith("amqp") and "," in url:  # a list of brokers
        every = {secret for each in url.split(",") for secret in secret_parts(each)}
        return sorted(every, key=len, reverse=True)
    parts = urlsplit(url)
    secrets = [parts.password or "", unquote(parts.password or "")]
    if parts.scheme.startswith("http"):
        secrets.append(parts.path.strip("/"))
        # The secret is the last part; a user's number or a short path would star out half a log.
        secrets += [part for part in parts.path.split("/")[-2:] if len(part) > SHORTEST_SECRET]
    return sorted({s for s in secrets if len(s) >= SHORTEST_SECRET}, key=len, reverse=True)


def _name_library(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """File a library's sentence under one event name, so that ours stay countable."""
    record = event["_record"]
    return {**event, "event": "library", "library": record.name, "message": event["event"]}


def _without_message(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Show an exception's type and place: its message may quote what it choked on."""
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


def _stars(secrets: Sequence[str]) -> Processor:
    # A quotation mark in a password is escaped by the time the line is written.
    escaped = (json.dumps(secret, ensure_ascii=False)[1:-1] for secret in secrets)
    hidden = tuple(dict.fromkeys([*secrets, *escaped]))

    def replace(_: WrappedLogger, __: str, line: EventDict | str) -> str:
        text = str(line)
        for secret in hidden:
            text = text.replace(secret, "***")
        return text

    return replace

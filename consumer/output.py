"""What we print: nothing in it acts on a terminal, and a failure to print is one line."""

import codecs
import csv
import errno
import io
import json
import os
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import TextIO

ESCAPING = "call_consumer.escape"
"""The name of the codec error handler that escapes what a code page lacks."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet take a cell for a formula, and run it."""
SHOWN_IDS = 3


class OutputFailed(Exception):
    """Raised when stdout, stderr or a file of ours cannot be written; says which and why."""

    def __init__(self, name: str, error: OSError) -> None:
        super().__init__(f"{name} cannot be written: {error.strerror or error}")
        self.broken_pipe = error.errno == errno.EPIPE


def escaped(text: str) -> str:
    r"""Write what is not printable as JSON does, ``\u001b``: a JSON text stays the same JSON.

    Not printable are controls, line and paragraph breaks, what turns the direction of writing or
    has no width, all spaces but the plain one, and halves of surrogate pairs.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def shown_id(id_: str) -> str:
    """Write an id so that it is one word on one line, and can be given back: see `ids_of`."""
    if re.fullmatch(r"[!#-z|}~][!-~]*", id_):
        return id_
    return escaped(json.dumps(id_, ensure_ascii=False))


def shown_ids(ids: Collection[str]) -> str:
    """Write the first of *ids*, and whether there are more."""
    return ", ".join(map(shown_id, list(ids)[:SHOWN_IDS])) + (", …" if len(ids) > SHOWN_IDS else "")


def ids_of(word: str) -> set[str]:
    """Return the ids that *word* may name: itself and, if it is JSON, the id in that.

    JSON is what `shown_id` wrote, a line of ``dlq list --json``, or what has a ``request_id``: an
    event, or a line of ``show --json``.
    """
    value: object = None
    if word.startswith(('"', "{")):
        with suppress(ValueError, RecursionError):
            value = json.loads(word)
    if isinstance(value, dict):
        value = value.get("id", value.get("request_id"))
    return {word, value} if isinstance(value, str) else {word}


def say(*lines: str, err: bool = False) -> None:
    """Print lines, escaped, to stdout or stderr.

    Raises:
        OutputFailed: They cannot be written.
    """
    text = "".join(f"{escaped(line)}\n" for line in lines)
    try:
        write(sys.stderr if err else sys.stdout, text)
    except OSError as error:
        raise OutputFailed("stderr" if err else "stdout", error) from None


def say_csv(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table for a spreadsheet, escaped, in which no cell is a formula.

    Sources: https://www.rfc-editor.org/rfc/rfc4180, https://owasp.org/www-community/attacks/CSV_Injection

    Raises:
        OutputFailed: It cannot be written.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(heads)
    table.writerows([_cell(value) for value in row] for row in rows)
    try:
        write(sys.stdout, text.getvalue())
    except OSError as error:
        raise OutputFailed("stdout", error) from None


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return ("'" if text.startswith(FORMULA) else "") + escaped(text)


def write(stream: TextIO | None, text: str) -> None:
    """Write at once, so that what cannot be written is known at once.

    Raises:
        OSError: It cannot be written; a stream that was closed from the start is None.
    """
    if stream is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    stream.write(text)
    stream.flush()


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a person is at the other end; a stream closed from the start is None."""
    return stream is not None and stream.isatty()


def has_colours(stream: TextIO) -> bool:
    """Tell whether colours are wanted there.

    Source: https://no-color.org
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


def set_up() -> None:
    """Let stdout and stderr escape the characters that their code page lacks."""
    codecs.register_error(ESCAPING, _escape_unencodable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPING)


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_escape, error.object[error.start : error.end])), error.end


def close() -> None:
    """Drop what could not be written, about which Python would complain at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())

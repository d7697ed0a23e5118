"""A body read as strict JSON; nothing that it can hold raises."""

import json
import re
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

MAX_BODY_BYTES = 64 * 1024
MAX_DEPTH = 100
"""Of lists and objects within one another."""


@dataclass(frozen=True, slots=True)
class Invalid:
    """A body that is no request: *code* for programs, *description* for people, nothing quoted."""

    code: str
    description: str
    request_id: str | None = None


_NOT_TO_BE_READ = "the body is not JSON that can be read: NaN, or nested too deep"
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"\x78\x01": "zlib",
    b"\x78\x5e": "zlib",
    b"\x78\x9c": "zlib",
    b"\x78\xda": "zlib",
}
"""What bodies begin with that no JSON does. Raw deflate and brotli have no beginning of theirs."""
_AMQP_1_0 = re.compile(rb"\0(?:\x53|\x80\0{7})([\x70-\x78])")
"""How a section of AMQP 1.0 begins: a short or a long number says of which kind it is.

RabbitMQ hands AMQP 1.0 sections other than data to AMQP 0.9.1 as they are.
Source: https://www.rabbitmq.com/docs/conversions#amqpl-amqp
"""
_SECTIONS = {b"\x76": "sequence", b"\x77": "value"}


def _other_form(body: bytes) -> Invalid | None:
    """Recognise what people send instead of JSON."""
    for beginning, method in _COMPRESSED.items():
        if body.startswith(beginning):
            text = f"the body is compressed with {method}: send plain JSON"
            return Invalid("compressed", text)
    if (section := _AMQP_1_0.match(body)) is not None:
        kind = _SECTIONS.get(section[1], "encoded")
        text = f"the body is an AMQP 1.0 {kind} section: send the JSON in a data section"
        return Invalid("amqp_value", text)
    return None


def read_json(body: bytes) -> Any | Invalid:  # noqa: ANN401
    """Read *body* as strict JSON of at most `MAX_BODY_BYTES`."""
    if len(body) > MAX_BODY_BYTES:
        return Invalid("too_large", f"the body has {len(body)} bytes, {MAX_BODY_BYTES} are allowed")
    if (other := _other_form(body)) is not None:
        return other
    encoding = json.detect_encoding(body)
    if not encoding.startswith("utf-8"):
        return Invalid("not_utf8", f"the body is {encoding.upper()}: send UTF-8")
    try:
        text = body.decode(encoding)
    except UnicodeDecodeError as error:
        text = f"the body is not UTF-8 from byte {error.start} on"
        return Invalid("not_utf8", f"{text}: is it in a code page, as Windows-1251?")
    if _depth(text) > MAX_DEPTH:  # where the parser stops depends on Python's version
        return Invalid("not_json", _NOT_TO_BE_READ)
    try:
        value = _PARSER.decode(text)
        # Half of an escaped surrogate pair is a string that nobody can write again.
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        return Invalid("not_json", f"the body is not JSON at character {error.pos}: {error.msg}")
    except UnicodeEncodeError:
        return Invalid("not_utf8", "the body holds half of a surrogate pair")
    except ValueError:
        return Invalid("not_json", _NOT_TO_BE_READ)
    return value


def _depth(text: str) -> int:
    """Count how many lists and objects are open at once at most: or all, where all are few."""
    if (begun := text.count("[") + text.count("{")) <= MAX_DEPTH:
        return begun
    opened = (1 if mark in "[{" else -1 for mark in re.findall(r"[][{}]", _STRING.sub("", text)))
    return max(accumulate(opened), default=0)


def _no_constant(name: str) -> None:
    raise ValueError(name)


_PARSER = json.JSONDecoder(parse_constant=_no_constant)

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
_AMQP_1_0 = "is an AMQP 1.0 {} section: send the JSON in a data section"
_OTHER_FORMS = {
    b"\x1f\x8b": Invalid("compressed", "the body is compressed with gzip: send plain JSON"),
    b"\x28\xb5\x2f\xfd": Invalid("compressed", "the body is compressed with zstd: send plain JSON"),
    b"\x00\x53\x76": Invalid("amqp_value", "the body " + _AMQP_1_0.format("sequence")),
    b"\x00\x53\x77": Invalid("amqp_value", "the body " + _AMQP_1_0.format("value")),
}
"""What bodies begin with that no JSON does.

RabbitMQ hands AMQP 1.0 sections other than data to AMQP 0.9.1 as they are.
Source: https://www.rabbitmq.com/docs/conversions#amqpl-amqp
"""


def read_json(body: bytes) -> Any | Invalid:  # noqa: ANN401
    """Read *body* as strict JSON of at most `MAX_BODY_BYTES`."""
    if len(body) > MAX_BODY_BYTES:
        return Invalid("too_large", f"the body has {len(body)} bytes, {MAX_BODY_BYTES} are allowed")
    for beginning, invalid in _OTHER_FORMS.items():
        if body.startswith(beginning):
            return invalid
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
        value = json.loads(text, parse_constant=_no_constant)
        # Half of an escaped surrogate pair is a string that nobody can write again.
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        return Invalid("not_json", f"the body is not JSON at character {error.pos}: {error.msg}")
    except UnicodeEncodeError:
        return Invalid("not_utf8", "the body holds half of a surrogate pair")
    except ValueError:
        return Invalid("not_json", _NOT_TO_BE_READ)
    return value


def _depth(text: str) -> int:
    """Count how many lists and objects are open at once at the most."""
    opened = (1 if mark in "[{" else -1 for mark in re.findall(r"[][{}]", _STRING.sub("", text)))
    return max(accumulate(opened), default=0)


def _no_constant(name: str) -> None:
    raise ValueError(name)

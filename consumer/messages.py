"""The wire: what upstream systems publish, what we answer, and what our own headers say.

The contract is `schemas/`; this module mirrors it, and a test holds the two together.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import Annotated, Any, Literal

import phonenumbers
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from consumer.local_time import known_time_zone

MAX_BODY_BYTES = 64 * 1024
MAX_DEPTH = 100
"""Of lists and objects within one another."""
MAX_METADATA = 20
REQUESTED = "call.requested"
CANCEL = "call.cancel"
STARTED = "call.started"
FAILED = "call.failed"


Reason = Literal["refused", "exhausted", "unsure", "invalid", "expired", "cancelled", "blocked"]
ConfirmedBy = Literal["answer", "history", "ledger"]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request need not say, because the settings do."""

    line: str | None = None
    voice: str | None = None
    region: str | None = None


def to_e164(number: str, info: ValidationInfo) -> str:
    """Normalise a phone number; *possible* is enough, the vendor's own example is not *valid*."""
    region = info.context.region if isinstance(info.context, Defaults) else None
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException as error:
        hint = "" if region else ": write +<country code><number>, or set CALLS_DEFAULT_REGION"
        raise PydanticCustomError("phone_number", "is no phone number" + hint) from error
    verdict = phonenumbers.is_possible_number_with_reason(parsed)
    if verdict != phonenumbers.ValidationResult.IS_POSSIBLE:
        raise PydanticCustomError(
            "phone_number", "is not a possible phone number: check its length"
        )
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


# What `phonenumbers` reads as digits and as punctuation between them, and what it leaves out before
# and after: blanks, and marks that text is pasted with but nobody sees. No letters, no `x`, no `~`:
# they would be an extension, or keys to press.
_DIGIT = r"0-9\u0660-\u0669\u06F0-\u06F9\u0966-\u096F\uFF10-\uFF19"
_BETWEEN = (
    r" ()./\[\]\-\u00A0\u00AD\u200B\u2010-\u2015\u2053\u2060\u2212\u223C\u3000\u30FC"
    r"\uFF08\uFF09\uFF0D-\uFF0F\uFF3B\uFF3D"
)
_UNSEEN = r" \u00A0\u00AD\u061C\u2000-\u200F\u202A-\u202F\u205F-\u2064\u2066-\u2069\u3000\uFEFF"
_NUMBER = rf"[(\[\uFF08\uFF3B]?[+\uFF0B]?[{_BETWEEN}]*[{_DIGIT}][{_DIGIT}{_BETWEEN}]+"
_REQUEST_ID = r"[A-Za-z0-9._:][A-Za-z0-9._:-]*"
_RFC3339 = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
    r"[Tt]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?"
    r"([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)


_MOMENTS = ("2000-11-11T11:11:11.1+11:11", "2000-11-11T11:11:11Z")


def _moment(value: object) -> datetime:
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        try:
            # Python 3.11 reads six digits of a fraction, RFC 3339 allows more.
            short = re.sub(r"(\.\d{6})\d+", r"\1", value.upper())
            return datetime.fromisoformat(short).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    endings = [sample[start:] for sample in _MOMENTS for start in range(len(sample) + 1)]
    wrong = _first_wrong(value, _RFC3339, endings) if isinstance(value, str) else None
    text = "is not an RFC 3339 time with offset, as 2026-01-31T09:00:00Z"
    raise PydanticCustomError("moment", f"{text}: {wrong}" if wrong else text)


def _first_wrong(
    text: str, form: re.Pattern[str], endings: Iterable[str], before: int = 0
) -> str | None:
    """Name the first character of *text* after which no ending makes it fit *form*.

    Args:
        text: What does not fit.
        form: A pattern.
        endings: What to try; among them must be one for each beginning that fits.
        before: How many characters came before *text*.
    """
    for index, character in enumerate(text):
        begun = text[: index + 1]
        if not any(form.fullmatch(begun + ending) for ending in endings):
            return f"U+{ord(character):04X} at character {before + index + 1}"
    return None


def _few(metadata: dict[str, str]) -> dict[str, str]:
    if len(metadata) > MAX_METADATA:
        raise PydanticCustomError("too_many", f"holds more than {MAX_METADATA} pairs")
    return metadata


RequestId = Annotated[str, StringConstraints(max_length=128, pattern=f"^{_REQUEST_ID}$")]
LineOrVoice = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"\S")]
Moment = Annotated[datetime, BeforeValidator(_moment)]


AS_SENT = ConfigDict(
    frozen=True,
    extra="forbid",
    strict=True,
    hide_input_in_errors=True,
    regex_engine="rust-regex",
)
"""How messages are read: nothing is converted, and nothing unknown is let pass."""


def absent_rather_than_null(value: object) -> object:
    """Return the value of a field, which must not be null."""
    if value is None:
        raise PydanticCustomError("null", "is null: leave it out instead")
    return value


class CallRequested(BaseModel):
    """``call.requested`` as it arrives, its number in E.164."""

    model_config = AS_SENT

    request_id: RequestId
    to_number: Annotated[
        str,
        StringConstraints(max_length=42, pattern=f"^[{_UNSEEN}]*{_NUMBER}[{_UNSEEN}]*$"),
        AfterValidator(to_e164),
    ]
    text_to_pronounce: Annotated[
        str, StringConstraints(min_length=1, max_length=2000, pattern=r"\S")
    ]
    from_line: LineOrVoice | None = None
    voice: LineOrVoice | None = None
    not_before: Moment | None = None
    expires_at: Moment | None = None
    metadata: Annotated[dict[str, str], AfterValidator(_few)] | None = None
    time_zone: Annotated[str, AfterValidator(known_time_zone)] | None = None
    urgent: bool = False

    @property
    def not_before_s(self) -> float:
        """When it may be dialled, in seconds since the epoch; 0 if at any time."""
        return self.not_before.timestamp() if self.not_before else 0.0

    @property
    def expires_at_s(self) -> float | None:
        """When its time is over, in seconds since the epoch."""
        return self.expires_at.timestamp() if self.expires_at else None

    def has_expired(self, at: float) -> bool:
        """Tell whether its time is over at a moment, in seconds since the epoch."""
        return self.expires_at_s is not None and self.expires_at_s <= at

    def __repr__(self) -> str:
        """Leave the number and the text out: a repr ends up in logs."""
        return f"CallRequested(request_id={self.request_id!r})"

    __str__ = __repr__

    _no_null = field_validator("*", mode="before")(absent_rather_than_null)


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


def read_request(fields: object, defaults: Defaults) -> CallRequested | Invalid:
    """Read a request from parsed JSON, with *defaults* where it is silent; else what is wrong."""
    if not isinstance(fields, dict):
        return Invalid("not_an_object", "the body is JSON but not an object")
    request_id = readable_id(fields)
    try:
        call = CallRequested.model_validate(fields, context=defaults)
    except ValidationError as error:
        return Invalid("invalid_field", describe(error, fields, REQUESTED), request_id)
    line = call.from_line or defaults.line
    if line is None:
        text = "from_line: is missing, and no CALLS_DEFAULT_LINE is set"
        return Invalid("invalid_field", text, request_id)
    return call.model_copy(update={"from_line": line, "voice": call.voice or defaults.voice})


def read_body(body: bytes, defaults: Defaults) -> CallRequested | Invalid:
    """Read a request from bytes: `read_json`, then `read_request`."""
    fields = read_json(body)
    return fields if isinstance(fields, Invalid) else read_request(fields, defaults)


def readable_id(fields: object) -> str | None:
    """Return the request id of parsed JSON, if it can be shown and looked up.

    One that begins with a dash is: it was valid once, and the ledger may know it.
    """
    request_id = fields.get("request_id") if isinstance(fields, dict) else None
    if isinstance(request_id, str) and re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", request_id):
        return request_id
    return None


_NOT_ALLOWED = "has characters that are not allowed"
_PLAIN_WORDS = {
    "missing": "is missing",
    "string_too_long": "is too long",
    "string_too_short": "is empty",
    "string_type": "is not a string",
    "string_unicode": "is not valid Unicode",
    "dict_type": "is not an object",
    "bool_type": "is not true or false",
}


def describe(error: ValidationError, fields: Mapping[str, Any], message: str) -> str:
    """Say what is wrong with which of the *fields* of a *message*, never what it held."""
    words = _PLAIN_WORDS | {"extra_forbidden": f"is no field of {message}: check its spelling"}
    found = []
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else "body"
        # An unknown field's name is upstream's own text: shown only if it looks like a name.
        field = name if re.fullmatch(r"[A-Za-z_][A-Za-z_-]{0,39}", name) else "a field"
        if problem["type"] == "string_pattern_mismatch":
            found.append(f"{field}: {_mismatch(field, fields[name])}")
        else:
            found.append(f"{field}: {words.get(problem['type'], problem['msg'])}")
    return "; ".join(dict.fromkeys(found))[:500]


def _mismatch(field: str, text: str) -> str:
    """Say which character is the first that does not belong there, counting from 1."""
    if field == "request_id":
        wrong = _first_wrong(text, re.compile(_REQUEST_ID), [""])
        return f"{_NOT_ALLOWED}: {wrong}" if wrong else "is empty"
    if field == "to_number":
        shown = re.sub(rf"^[{_UNSEEN}]+|[{_UNSEEN}]+\Z", "", text)
        wrong = _first_wrong(shown, re.compile(_NUMBER), ["", "0", "00"], text.find(shown))
        return f"{_NOT_ALLOWED}: {wrong}" if wrong else "is too short"
    return "is nothing but blanks"


def rfc3339(moment: datetime) -> str:
    """Write *moment* in UTC with milliseconds, as 2026-01-31T09:00:00.000Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_moment(value: object) -> datetime | None:
    """Read an RFC 3339 time; None if it is none."""
    try:
        return _moment(value)
    except PydanticCustomError:
        return None

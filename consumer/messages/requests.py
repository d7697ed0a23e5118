"""The wire: what upstream systems publish, what we answer, and what our own headers say.

The contract is `schemas/`; this module mirrors it, and a test holds the two together.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import phonenumbers
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from consumer.messages.bodies import Invalid, read_json
from consumer.messages.formats import NUMBER, REQUEST_ID, UNSEEN, Moment, mismatch
from consumer.messages.local_time import known_time_zone

MAX_METADATA = 20
REQUESTED = "call.requested"
CANCEL = "call.cancel"
STARTED = "call.started"
FAILED = "call.failed"
COMPLETED = "call.completed"


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
    written = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    verdict = phonenumbers.is_possible_number_with_reason(parsed)
    # What begins with zeros may be possible at home, and another number once it is written +….
    kept = written == number or _reads_as_itself(written)
    if verdict != phonenumbers.ValidationResult.IS_POSSIBLE or not kept:
        raise PydanticCustomError(
            "phone_number", "is not a possible phone number: check its length"
        )
    return written


def _reads_as_itself(number: str) -> bool:
    try:
        again = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.format_number(again, phonenumbers.PhoneNumberFormat.E164) == number


def _few(metadata: dict[str, str]) -> dict[str, str]:
    if len(metadata) > MAX_METADATA:
        raise PydanticCustomError("too_many", f"holds more than {MAX_METADATA} pairs")
    return metadata


RequestId = Annotated[str, StringConstraints(max_length=128, pattern=f"^{REQUEST_ID}$")]
LineOrVoice = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"\S")]
Number = Annotated[
    str,
    StringConstraints(max_length=42, pattern=f"^[{UNSEEN}]*{NUMBER}[{UNSEEN}]*$"),
    AfterValidator(to_e164),
]


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
    to_number: Number
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


def looks_like_a_name(field: str) -> bool:
    """Tell whether the name of an unknown field may be shown: it may be a text or a number."""
    return re.fullmatch(r"[A-Za-z_][A-Za-z_-]{0,39}", field) is not None


PLAIN_WORDS = {
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
    words = PLAIN_WORDS | {"extra_forbidden": f"is no field of {message}: check its spelling"}
    found = []
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else "body"
        # An unknown field's name is upstream's own text: shown only if it looks like a name.
        field = name if looks_like_a_name(name) else "a field"
        if problem["type"] == "string_pattern_mismatch":
            found.append(f"{field}: {mismatch(field, fields[name])}")
        else:
            found.append(f"{field}: {words.get(problem['type'], problem['msg'])}")
    return "; ".join(dict.fromkeys(found))[:500]

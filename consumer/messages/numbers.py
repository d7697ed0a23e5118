"""A phone number that a person names, read as that of a request."""

from pydantic import TypeAdapter, ValidationError

from consumer.messages.bodies import Invalid
from consumer.messages.formats import mismatch
from consumer.messages.requests import AS_SENT, PLAIN_WORDS, Defaults, Number

_NUMBERS: TypeAdapter[str] = TypeAdapter(Number, config=AS_SENT)


def read_number(value: object, defaults: Defaults) -> str | Invalid:
    """Read a phone number as that of a request, in E.164; else what is wrong with it."""
    try:
        return _NUMBERS.validate_python(value, context=defaults)
    except ValidationError as error:
        [problem] = error.errors(include_input=False, include_url=False)
    if problem["type"] == "string_pattern_mismatch":
        return Invalid("invalid_field", mismatch("to_number", str(value)))
    return Invalid("invalid_field", PLAIN_WORDS.get(problem["type"], problem["msg"]))

"""The contract in: `call.cancel`, with which an upstream takes a request back.

The contract is `schemas/`; this module mirrors it, and a test holds the two together.
"""

from typing import Annotated

from pydantic import BaseModel, StringConstraints, ValidationError, field_validator

from consumer.messages.bodies import Invalid, read_json
from consumer.messages.requests import (
    AS_SENT,
    CANCEL,
    RequestId,
    absent_rather_than_null,
    describe,
    readable_id,
)


class CallCancel(BaseModel):
    """``call.cancel`` as it arrives."""

    model_config = AS_SENT

    request_id: RequestId
    reason: Annotated[str, StringConstraints(max_length=200)] | None = None

    _no_null = field_validator("*", mode="before")(absent_rather_than_null)


def read_cancel(body: bytes) -> CallCancel | Invalid:
    """Read a cancellation from bytes; else what is wrong with it."""
    fields = read_json(body)
    if isinstance(fields, Invalid):
        return fields
    if not isinstance(fields, dict):
        return Invalid("not_an_object", "the body is JSON but not an object")
    try:
        return CallCancel.model_validate(fields)
    except ValidationError as error:
        return Invalid("invalid_field", describe(error, fields, CANCEL), readable_id(fields))

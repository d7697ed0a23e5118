"""New values for fields of a request, as a person writes them. Pure."""

import json
from typing import Any

from consumer.errors import OperatorError
from consumer.messages import CallRequested

FIELDS = tuple(sorted(set(CallRequested.model_fields) - {"request_id"}))
_TAKE_JSON = {"metadata": "a JSON object", "urgent": "true or false"}


class BadEdit(OperatorError):
    """Raised for a value that cannot be read; says what the field takes."""


def read_edit(name: str, text: str) -> Any:  # noqa: ANN401  # whatever a body may hold
    """Return the value that *text* gives the field *name*.

    Raises:
        BadEdit: There is none.
    """
    try:
        return json.loads(text) if name in _TAKE_JSON else text
    except (ValueError, RecursionError):
        raise BadEdit(f"takes {_TAKE_JSON[name]}") from None

"""The scopes that calls need, and those that a portal says it grants. Pure."""

import json

NEEDED_SCOPES = ("call", "telephony")


def granted_scopes(body: bytes) -> tuple[str, ...] | None:
    """Read the answer of the method `scope`; None where it is none, as a mock's may be."""
    try:
        result = json.loads(body)["result"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    named = isinstance(result, list) and all(isinstance(scope, str) for scope in result)
    return tuple(result) if named else None

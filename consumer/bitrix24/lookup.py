"""Look an answer up among the known errors: which row it is, and what to do about it."""

from collections.abc import Mapping

from consumer.bitrix24.errors import KNOWN_ERRORS, WAIT, KnownError, Meaning

_IN_FRONT = (
    "See who answers at CALLS_BITRIX24_URL: a proxy, a firewall or another site in front of it."
)
_UNKNOWN: Mapping[Meaning, str] = {
    "refused": "See the description, and the webhook's rights in the portal; fix that, replay.",
    "unavailable": WAIT,
    "unsure": "See in the call history whether it rang before you replay.",
}


def errors_of(code: str) -> list[KnownError]:
    """Return the rows of a code, compared case-insensitively."""
    return [row for row in KNOWN_ERRORS if row.code.upper() == code.upper()]


def advice_for(code: str, description: str, outcome: Meaning = "refused") -> str:
    """Return what a person should do about an answer.

    Args:
        code: Its error code, or ours where it had none (``HTTP_407``).
        description: Its description.
        outcome: What it meant for the call: that decides where no table knows the code.
    """
    rows = errors_of(code)
    begins = [row for row in rows if begins_as(description, row)]
    if begins:
        return begins[0].advice
    if rows and code.upper() != "ERROR_CORE":
        return rows[0].advice
    if outcome == "refused" and code.upper().startswith("HTTP_"):
        return _IN_FRONT
    return _UNKNOWN[outcome]


def is_transient(code: str) -> bool:
    """Tell whether a code means that the method did not run, and may run later."""
    return any(
        row.code.upper() == code.upper() and row.outcome == "unavailable" for row in KNOWN_ERRORS
    )


def begins_as(description: str, row: KnownError) -> bool:
    """Compare texts as the portal varies them: in case, and ``REST (API)`` for ``REST API``."""
    plain = description.lower().replace("(", "").replace(")", "")
    return plain.startswith(row.description.lower())

"""How times, phone numbers and ids are written, and the first character that does not fit."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

# What `phonenumbers` reads as digits and as punctuation between them, and what it leaves out before
# and after: blanks, and marks that text is pasted with but nobody sees. No letters, no `x`, no `~`:
# they would be an extension, or keys to press.
_DIGIT = r"0-9\u0660-\u0669\u06F0-\u06F9\u0966-\u096F\uFF10-\uFF19"
_BETWEEN = (
    r" ()./\[\]\-\u00A0\u00AD\u200B\u2010-\u2015\u2053\u2060\u2212\u223C\u3000\u30FC"
    r"\uFF08\uFF09\uFF0D-\uFF0F\uFF3B\uFF3D"
)
UNSEEN = r" \u00A0\u00AD\u061C\u2000-\u200F\u202A-\u202F\u205F-\u2064\u2066-\u2069\u3000\uFEFF"
NUMBER = rf"[(\[\uFF08\uFF3B]?[+\uFF0B]?[{_BETWEEN}]*[{_DIGIT}][{_DIGIT}{_BETWEEN}]+"

REQUEST_ID = r"[A-Za-z0-9._:][A-Za-z0-9._:-]*"

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


Moment = Annotated[datetime, BeforeValidator(_moment)]
"""A time with offset, in UTC once it is read."""

_NOT_ALLOWED = "has characters that are not allowed"


def mismatch(field: str, text: str) -> str:
    """Say which character of a request's field is the first that does not belong there, from 1."""
    if field == "request_id":
        wrong = _first_wrong(text, re.compile(REQUEST_ID), [""])
        return f"{_NOT_ALLOWED}: {wrong}" if wrong else "is empty"
    if field == "to_number":
        shown = re.sub(rf"^[{UNSEEN}]+|[{UNSEEN}]+\Z", "", text)
        wrong = _first_wrong(shown, re.compile(NUMBER), ["", "0", "00"], text.find(shown))
        return f"{_NOT_ALLOWED}: {wrong}" if wrong else "is too short"
    return "is nothing but blanks"


def rfc3339(moment: datetime) -> str:
    """Write *moment* in UTC with milliseconds, as 2026-01-31T09:00:00.000Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rfc3339_at(at: float) -> str:
    """Write a moment in seconds since the epoch, in UTC with milliseconds."""
    return rfc3339(datetime.fromtimestamp(at, UTC))


def read_moment(value: object) -> datetime | None:
    """Read an RFC 3339 time; None if it is none."""
    try:
        return _moment(value)
    except PydanticCustomError:
        return None

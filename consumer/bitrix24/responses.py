"""What Bitrix24's answers to `voximplant.infocall.startwithtext` mean. Pure."""

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from consumer.bitrix24.errors import KnownError
from consumer.bitrix24.known_words import IS_URL_RIGHT, MOVED, NO_CODE, SAYS_NO, UNDOCUMENTED
from consumer.bitrix24.lookup import begins_as, errors_of
from consumer.decision import Failure, Outcome, Placed, Refused, Unavailable, Unsure

LONGEST_DESCRIPTION = 10_000
"""Longer than any text: what quotes a request can be recognised only while it is whole."""
DEEPEST_ERROR = 8
"""How many objects and lists an error may be within."""
LONGEST_RETRY_AFTER_S = 86_400.0


_CLIENT_ERROR = 4  # hundred
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def read_response(status: int, body: bytes, headers: Mapping[str, str] = _NO_HEADERS) -> Outcome:
    """Say what an HTTP answer to `voximplant.infocall.startwithtext` means.

    By error code; by description where that is `ERROR_CORE` or empty; by status only where
    there is none.

    Args:
        status: The HTTP status.
        body: The raw body.
        headers: Response headers, names in lower case.
    """
    answer = _read_object(body)
    result = answer.get("result")
    if isinstance(result, dict) and result.get("RESULT") is True:
        call_id = result.get("CALL_ID")
        return Placed(_trim(str(call_id), 255) if call_id else None)
    failure = Failure(*_error_of(answer), status)
    if not failure.code and not failure.description:
        return _by_status(status, answer, headers)
    if failure.code.upper() in {"", "ERROR_CORE"}:
        return _by_description(failure, answer, headers)
    return _by_code(failure, headers)


def error_of(body: bytes) -> tuple[str, str]:
    """Return error code and description of any method's answer, empty where there are none."""
    return _error_of(_read_object(body))


@dataclass(frozen=True, slots=True)
class Usage:
    """What the portal says of the time its method has run for us, over ten minutes.

    Attributes:
        operating_s: Seconds used so far.
        reset_at: When the oldest of them drop out: seconds since the epoch, by the portal's clock.

    Source: https://apidocs.bitrix24.com/limits.html
    """

    operating_s: float
    reset_at: float


_ABSURD = 1e12
"""Seconds; NaN is not below it either."""


def read_usage(body: bytes) -> Usage | None:
    """Read the use of the portal's operating limit; None where the answer does not tell."""
    time = _read_object(body).get("time")
    if not isinstance(time, dict):
        return None
    used, reset_at = time.get("operating"), time.get("operating_reset_at")
    if not (isinstance(used, int | float) and isinstance(reset_at, int | float)):
        return None
    if not (abs(used) < _ABSURD and abs(reset_at) < _ABSURD):
        return None
    return Usage(float(used), float(reset_at))


def read_clock(headers: Mapping[str, str]) -> float | None:
    """Read the portal's clock in seconds since the epoch; None where the answer does not tell."""
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def read_names(body: bytes) -> dict[str, str] | None:
    """Read a map of ids and names; None if it is none. PHP writes an empty map as ``[]``."""
    result = _read_object(body).get("result")
    if isinstance(result, dict):
        return {str(key): html.unescape(str(name)) for key, name in result.items()}
    return {} if result == [] else None


@lru_cache(maxsize=1)  # both what an answer means and what it used are read of it
def _read_object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _error_of(answer: Mapping[str, Any]) -> tuple[str, str]:
    """Return code and description; both may be within an object, as in v3, or in a list of them."""
    code, within = _code_and_text(answer.get("error") or answer.get("errors"), DEEPEST_ERROR)
    beside = answer.get("error_description")
    return code, _trim(beside, LONGEST_DESCRIPTION) if isinstance(beside, str) else within


def _code_and_text(error: object, levels: int) -> tuple[str, str]:
    """Read what stands where an error does; the outermost one counts."""
    match error:
        case None | bool() | 0 | "" | "0":
            return "", ""
        case str() | int() | float():
            return _trim(str(error), 64), ""
        case list() if levels:
            read = (_code_and_text(each, levels - 1) for each in error)
            return next((found for found in read if any(found)), ("", ""))
        case dict() if levels:
            fields: dict[str, Any] = error
            code = _code_and_text(fields.get("code"), 0)[0]
            texts = (fields.get(name) for name in ("message", "error_description", "description"))
            text = next((text for text in texts if isinstance(text, str)), "")
            inner = _code_and_text(fields.get("error") or fields.get("errors"), levels - 1)
            return code or inner[0], _trim(text, LONGEST_DESCRIPTION) or inner[1]
        case _:
            return "", ""


def _trim(text: str, limit: int) -> str:
    """Make a portal's text fit for a header and a log line."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())[:limit]


def _by_code(failure: Failure, headers: Mapping[str, str]) -> Outcome:
    rows = errors_of(failure.code)
    if not rows:
        return _unknown(failure)
    begins = [row for row in rows if begins_as(failure.description, row)]
    return _known((begins or rows)[0], failure, headers)


def _by_description(
    failure: Failure, answer: Mapping[str, Any], headers: Mapping[str, str]
) -> Outcome:
    """Read the method's own errors: one code for all, several texts joined by ``; `` at times."""
    texts = [text.strip() for text in failure.description.split(";")]
    rows = [row for row in errors_of("ERROR_CORE") if any(begins_as(text, row) for text in texts)]
    if rows:
        doubtful = [row for row in rows if row.outcome == "unsure"]
        coded = replace(failure, code=failure.code or "ERROR_CORE")
        return _known((doubtful or rows)[0], coded, headers)
    if failure.code:
        return _unknown(failure)
    outcome = _by_status(failure.http_status or 0, answer, headers)
    described = replace(outcome.failure, description=failure.description)
    return replace(outcome, failure=described)


def _unknown(failure: Failure) -> Refused | Unsure:
    """Read an error that nobody knows: only a 4xx tells that the method did not run.

    It may concern one request or all. Counted as a fault of all, it costs at most a pause.
    """
    if (failure.http_status or 0) // 100 == _CLIENT_ERROR:
        return Refused(failure, "portal")
    return Unsure(failure)


def _known(row: KnownError, failure: Failure, headers: Mapping[str, str]) -> Outcome:
    failure = replace(failure, description=failure.description or row.description)
    if row.outcome == "refused":
        return Refused(failure, row.scope)
    if row.outcome == "unsure":
        return Unsure(failure)
    wait_s = _retry_after_s(headers)
    return Unavailable(failure, counts=row.scope != "rate", retry_after_s=wait_s)


def _by_status(
    status: int, answer: Mapping[str, Any], headers: Mapping[str, str]
) -> Unavailable | Refused | Unsure:
    code = f"HTTP_{status}"
    match status // 100, status:
        case _, 429 | 503:
            wait_s = _retry_after_s(headers)
            return Unavailable(Failure(code, NO_CODE, status), retry_after_s=wait_s)
        case 3, _:
            text = f"{MOVED}{_moved_to(headers)}: fix CALLS_BITRIX24_URL"
            return Refused(Failure(code, text, status), "portal")
        case _, 401 | 403 | 404:
            return Refused(Failure(code, IS_URL_RIGHT, status), "portal")
        case 4, _ if status != HTTPStatus.REQUEST_TIMEOUT:
            return Refused(Failure(code, NO_CODE, status), "portal")
        case 2, _ if _says_no(answer):
            return Refused(Failure("RESULT_FALSE", SAYS_NO, status), "portal")
        case 2, _:
            return Unsure(Failure("UNREADABLE_ANSWER", UNDOCUMENTED, status))
        case _:
            return Unsure(Failure(code, NO_CODE, status))


def _moved_to(headers: Mapping[str, str]) -> str:
    """Name the host of a redirect, and no more: its path may hold the secret."""
    try:
        where = urlsplit(headers.get("location", ""))
        host = where.hostname
    except ValueError:
        return ""
    return f" to {where.scheme}://{host}" if host else ""


def _says_no(answer: Mapping[str, Any]) -> bool:
    result = answer.get("result")
    return result is False or (isinstance(result, dict) and result.get("RESULT") is False)


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """Read ``Retry-After``, seconds or a date, as seconds from now; 0 where it says nothing."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), LONGEST_RETRY_AFTER_S)
    try:
        then = parsedate_to_datetime(value)
        now = parsedate_to_datetime(headers["date"])
        return min(max((then - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER_S)
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0.0

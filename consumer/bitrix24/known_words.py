"""The codes and descriptions that are known, and so quote no request: the vendor's, and ours."""

import re

from consumer.bitrix24.errors import KNOWN_ERRORS
from consumer.errors import LOGIN

NO_CODE = "no error code"
IS_URL_RIGHT = f"{NO_CODE}: is CALLS_BITRIX24_URL right?"
SAYS_NO = "the portal did not start the call"
UNDOCUMENTED = "the answer is not as documented"
MOVED = "the portal moved"
UNREACHABLE = "the portal could not be reached"
ANSWER_LOST = "the answer was lost"
NOT_RENEWED = "TOKEN_NOT_RENEWED"
NOT_RENEWED_TEXT = "the access token has expired, and could not be renewed in time"
TOKENS_AWAY = "the tokens cannot be read, because the ledger cannot"
SERVER_AWAY = "the authorisation server"
KNOWN_WORDS = frozenset(
    {word for row in KNOWN_ERRORS for word in (row.code, row.description)}
    | {IS_URL_RIGHT, NO_CODE, SAYS_NO, UNDOCUMENTED, MOVED, UNREACHABLE, ANSWER_LOST}
    | {NOT_RENEWED_TEXT, TOKENS_AWAY, SERVER_AWAY, LOGIN}
)
"""What a code or a description may begin with that quotes no request: the vendor's, and ours."""

_OURS = re.compile(r"HTTP_\d{3}|(CONNECT|READ|WRITE|REMOTE|LOCAL|PROXY)[A-Z_]{1,30}|TIMEOUT_ERROR")
_KNOWN_CODES = {row.code.upper() for row in KNOWN_ERRORS} | {
    "RESULT_FALSE",
    "UNREADABLE_ANSWER",
    "WORKER_ERROR",
    "LEDGER_DOWN",
    "OAUTH_UNAVAILABLE",
    NOT_RENEWED,
}


def code_label(code: str) -> str:
    """Return *code* if it is one that we know, else ``other``: a metric must not grow for ever."""
    upper = code.upper()
    return upper if upper in _KNOWN_CODES or _OURS.fullmatch(upper) else "other"


def code_of(error: Exception) -> str:
    """Turn an error's class into a code: ``ReadTimeout`` into ``READ_TIMEOUT``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).upper()

"""What the operations say, for somebody who has a page and no command line. Pure."""

import re
from datetime import UTC, datetime

_COMMANDS = (
    (r"--set (\w+)=…", r"a new \1"),
    (r"with --set", "with a changed field"),
    (r"--set", "a changed field"),
    (r"call-consumer block remove (\S+) first", r"remove \1 under Blocks first"),
    (r": dlq show .*|`", ""),
)


def in_page_words(text: str) -> str:
    """Say without commands what advice for the command line says."""
    for pattern, words in _COMMANDS:
        text = re.sub(pattern, words, text)
    return text


def clock(at: float | None) -> str:
    """Write a time in UTC, with its day where that is not today's; 0 is never, and is empty."""
    if not at:
        return ""
    moment, now = datetime.fromtimestamp(at, UTC), datetime.now(UTC)
    return f"{moment:%H:%M:%S}" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def number(count: int | None) -> str:
    """Write a count; None is unknown."""
    return "?" if count is None else f"{count:,}"

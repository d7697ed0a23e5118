"""Stars over what an error must not repeat, but not over known words. Pure."""

import re
from functools import cache

from consumer.bitrix24.known_words import KNOWN_WORDS
from consumer.masking import masked

SHOWN_DESCRIPTION = 200


@cache  # not at import: no other pattern takes so long to compile, and few processes need it
def _known_words() -> re.Pattern[str]:
    # The portal puts words in parentheses at times: ``REST (API)``.
    words = sorted(KNOWN_WORDS, key=len, reverse=True)
    patterns = (r"[()]*".join(map(re.escape, each)) for each in words)
    return re.compile("|".join(patterns), re.IGNORECASE)


def redacted(text: str, hidden: tuple[str, ...]) -> str:
    """Put stars over what is hidden, but not where the vendor, or we, begin with known words."""
    begins = [0, *(found.end() for found in re.finditer(r";\s*", text))]
    found = [_known_words().match(text, begin) for begin in begins]
    known = [range(*each.span()) for each in found if each is not None]
    return masked(text, hidden, known)[:SHOWN_DESCRIPTION]

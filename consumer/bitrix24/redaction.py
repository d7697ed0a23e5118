"""Stars over what an error must not repeat, but not over known words. Pure."""

import re

from consumer.bitrix24.known_words import KNOWN_WORDS
from consumer.masking import masked

SHOWN_DESCRIPTION = 200

_KNOWN = re.compile(
    "|".join(
        # The portal puts words in parentheses at times: ``REST (API)``.
        r"[()]*".join(map(re.escape, words))
        for words in sorted(KNOWN_WORDS, key=len, reverse=True)
    ),
    re.IGNORECASE,
)


def redacted(text: str, hidden: tuple[str, ...]) -> str:
    """Put stars over what is hidden, but not where the vendor, or we, begin with known words."""
    begins = [0, *(found.end() for found in re.finditer(r";\s*", text))]
    found = [_KNOWN.match(text, begin) for begin in begins]
    known = [range(*each.span()) for each in found if each is not None]
    return masked(text, hidden, known)[:SHOWN_DESCRIPTION]

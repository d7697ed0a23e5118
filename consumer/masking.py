"""Stars in place of what must not be shown, and of nothing else. Pure."""

import re
from collections.abc import Collection, Iterable

STARS = "***"
LONG = 8
"""Characters; what is shorter is hidden only as a whole word, not the ``e`` in *exceed*."""
PART = 16
"""Characters of a text in a row that give it away, where it is quoted in part."""
LAST_DIGITS = 7
"""Digits at a number's end that give it away, however the rest is written."""


def masked(text: str, hidden: Iterable[str], known: Collection[range] = ()) -> str:
    """Put stars over everything in *text* that is hidden.

    Args:
        text: Printable words with single blanks, as `plain` writes them.
        hidden: Texts and secrets, found whole or in long parts, and numbers in any notation.
        known: Where *text* says what anybody may know, whatever is hidden.
    """
    covered = [False] * len(text)
    for part in {plain(each) for each in hidden} - {""}:
        for start, end in _places(part, text):
            covered[start:end] = [True] * (end - start)
    for span in known:
        covered[span.start : span.stop] = [False] * len(span)
    return _starred(text, covered)


def plain(text: str) -> str:
    """Bring a text to one line of printable words."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def pattern_of(part: str) -> str:
    """Return a pattern for *part*: a short one must not be within another word."""
    whole = re.escape(part)
    return whole if len(part) >= LONG else rf"(?<!\w){whole}(?!\w)"


def _places(part: str, text: str) -> Iterable[tuple[int, int]]:
    patterns = [pattern_of(part)]
    if re.fullmatch(r"\+?[0-9]{7,15}", part):
        patterns.append(_notations(part.lstrip("+")))
    for pattern in patterns:
        yield from (found.span() for found in re.finditer(pattern, text))
    pieces = {part[i : i + PART] for i in range(len(part) - PART + 1)}
    yield from ((i, i + PART) for i in range(len(text) - PART + 1) if text[i : i + PART] in pieces)


def _notations(digits: str) -> str:
    """Return a pattern for a number with signs between its digits, or without its first ones."""
    between = r"\W{0,3}"
    first = "".join(f"(?:{digit}{between})?" for digit in digits[:-LAST_DIGITS])
    return rf"\+?{first}{between.join(digits[-LAST_DIGITS:])}"


def _starred(text: str, covered: list[bool]) -> str:
    out = []
    for index, character in enumerate(text):
        if not covered[index]:
            out.append(character)
        elif index == 0 or not covered[index - 1]:
            out.append(STARS)
    return "".join(out)

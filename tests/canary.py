"""What no output may show: planted in every input, looked for in every output.

A suite that has an output of its own hands it to `seen_in`, whatever it is: a log, an event, a
metric, a page, a trace, an error.
"""

from __future__ import annotations

import re

SECRET = "canary5ecret-of-the-webhook"
PASSWORD = "canary-passw0rd"
TOKEN = "canary-t0ken-of-a-login"
NUMBER = "+12025550110"
ANY_NUMBER = re.compile(r"202\W{0,2}55[5-7]\W?\d{4}")
"""Every number that a test or a fault run calls."""
TEXT = "Canary: your parcel waits at the blue door."
_PIECE = 16


def seen_in(output: str | bytes, *, number: bool = False, text: bool = False) -> list[str]:
    """Name what *output* shows and must not.

    Args:
        output: All of it, as it leaves us.
        number: Whether the number may be shown there, as in an event.
        text: Whether the text may, as in a dead letter.
    """
    shown = output.decode(errors="replace") if isinstance(output, bytes) else output
    hidden = {"secret": SECRET, "password": PASSWORD, "token": TOKEN}
    found = [name for name, value in hidden.items() if value in shown]
    if not number and ANY_NUMBER.search(shown):
        found.append("number")
    if not text and any(piece in shown for piece in _pieces(TEXT)):
        found.append("text")
    return found


def _pieces(text: str) -> list[str]:
    return [text[at : at + _PIECE] for at in range(0, len(text) - _PIECE, 4)]

"""The requests of the demo: something is special about each."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from consumer.messages import rfc3339

MISSING_LINE = "reg404"


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the demo.

    Attributes:
        id: None if it cannot be read.
        oddity: What is special about it.
        copies: How often it is published.
        taken_back: Whether it is taken back then.
    """

    id: str | None
    oddity: str
    text: str
    body: bytes
    copies: int = 1
    taken_back: bool = False

    @property
    def name(self) -> str:
        return self.id or "(no id)"


def _ask(
    request_id: str,
    oddity: str,
    to: str,
    *,
    copies: int = 1,
    taken_back: bool = False,
    **fields: str,
) -> Request:
    text = f"This is {request_id}, a call of the demo."
    body = {"request_id": request_id, "to_number": to, "text_to_pronounce": text, **fields}
    return Request(request_id, oddity, text, json.dumps(body).encode(), copies, taken_back)


def requests(now: datetime) -> list[Request]:
    """Return requests of all kinds, each with a text of its own; the numbers are the sandbox's."""
    ago, soon, then = (rfc3339(now + timedelta(seconds=seconds)) for seconds in (-60, 3, 20))
    return [
        _ask("plain", "nothing", "+12025550100"),
        _ask("choosy", "names a voice", "+12025550101", voice="ukenglishmale"),
        _ask("engaged", "the line is busy", "+12025550184"),
        _ask("nobody-home", "nobody picks up", "+12025550185"),
        _ask("later", "not before 3 s from now", "+12025550102", not_before=soon),
        _ask(
            *("cancelled", "not before 20 s, then taken back", "+12025550107"),
            not_before=then,
            taken_back=True,
        ),
        _ask("twice", "published twice", "+12025550103", copies=2),
        _ask("busy-once", "the portal is unavailable, once", "+12025550111"),
        _ask("busy-twice", "the portal is unavailable, twice", "+12025550112"),
        _ask("busy-always", "the portal is unavailable, always", "+12025550182"),
        _ask("doubt-rang", "answer lost, the phone rings", "+12025550161"),
        _ask("doubt-silent", "answer lost, no phone rings, once", "+12025550180"),
        _ask("refused", "the portal refuses the number", "+12025550123"),
        _ask("no-line", "no such line", "+12025550104", from_line=MISSING_LINE),
        _ask("too-short", "a number too short to be one", "+1202555"),
        _ask("too-late", "expired a minute ago", "+12025550105", expires_at=ago),
        Request(None, "not JSON at all", "", b"Please call +12025550106!"),
    ]

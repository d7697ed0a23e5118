"""One dead letter, as it is read and told; what groups of them have in common."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aio_pika.abc import AbstractIncomingMessage

from consumer.bitrix24.lookup import advice_for
from consumer.messages import (
    MAX_BODY_BYTES,
    CallRequested,
    looks_like_a_name,
    read_json,
    read_moment,
    readable_id,
)
from consumer.operations.deaths import DEATHS, id_of, own_headers

ADVICE = {
    "exhausted": "See whether the portal is well again, then replay.",
    "unsure": "Replay it: the call history is asked first. OPERATING.md: A call in doubt.",
    "invalid": "Replay with --set if that fixes it; else fix it upstream, and discard this one.",
    "expired": "Discard it, or replay it with --set expires_at=…",
    "cancelled": "Upstream took it back: discard it.",
    "blocked": "Do what the description says, then replay; or discard it.",
    "broker": "Somebody moved it here, or the broker did: see its log; then replay.",
}

BEGINNING_BYTES = 200

Kind = tuple[str, str | None, str | None]
"""Reason, code and description."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A request that failed.

    Attributes:
        id: Its request id, else its AMQP message id.
        key: Tells it from all others in the queue but exact copies of it.
        reason: As in `call.failed`, or `broker` if the broker itself put it here.
        attempt: The last attempt made.
        fields: The body as parsed, empty if it cannot be.
        headers: Ours, and what we would have written for what the broker put here.
    """

    id: str
    key: str
    failed_at: str | None
    reason: str
    code: str | None
    description: str | None
    http_status: int | None
    attempt: int | None
    replay: int
    body: bytes = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False)
    headers: Mapping[str, Any]

    @property
    def number(self) -> str | None:
        """The number as sent."""
        return _text(self.fields.get("to_number"))

    @property
    def line(self) -> str | None:
        """The line as sent."""
        return _text(self.fields.get("from_line"))

    @property
    def kind(self) -> Kind:
        """What it has in common with those that failed alike."""
        return self.reason, self.code, self.description

    @property
    def expired(self) -> bool:
        """Whether its time is over, so that a replay would only fail again."""
        expiry = read_moment(self.fields.get("expires_at"))
        return expiry is not None and expiry <= datetime.now(UTC)

    @property
    def advice(self) -> str:
        """What a person should do."""
        if self.code == "request_id_reused":
            return (
                "Publish it with an id of its own, discard this: a replay announces the other one."
            )
        if self.reason == "broker" and self.code in DEATHS:
            return DEATHS[self.code].advice
        told = advice_for(self.code or "", self.description or "")
        return told if self.reason == "refused" else ADVICE.get(self.reason, told)

    def as_json(self, *, unmask: bool) -> str:
        """Write it as one line of JSON, complete enough to be an export."""
        told = {name: getattr(self, name) for name in _TOLD}
        request = self._request(unmask=unmask)
        body: object = request or (_text_of(self.body) if unmask else "…")
        return json.dumps(told | {"headers": self._own, "request": body}, ensure_ascii=False)

    def as_cells(self, *, unmask: bool) -> Sequence[object]:
        """Return what a row of a table with `COLUMNS` has to say of it."""
        told = {name: getattr(self, name) for name in _TOLD}
        request = self._request(unmask=unmask)
        fields = {name: request.get(name) for name in CallRequested.model_fields}
        found = fields | self._own | told
        return [_cell(found.get(name)) for name in COLUMNS]

    def _request(self, *, unmask: bool) -> Mapping[str, object]:
        """Return the request's fields, as far as they may be seen."""
        if unmask:
            return self.fields
        shown = {k: _shown(k, v) for k, v in self.fields.items()}
        return {k if looks_like_a_name(k) else "…": v for k, v in shown.items()}

    @property
    def _own(self) -> dict[str, object]:
        return {name: str(self.headers[name]) for name in _OWN if name in self.headers}


_HARMLESS = (
    *("request_id", "from_line", "voice", "not_before", "expires_at"),
    *("time_zone", "urgent"),
)
_TOLD = ("id", "failed_at", "reason", "code", "description", "http_status", "attempt", "replay")
_OWN = ("x-first-seen-at", "x-unsure-since")
COLUMNS = (*_TOLD, *_OWN, *CallRequested.model_fields)
"""Of a table for a spreadsheet: the names that `as_json` uses, in one row."""


def masked(number: object) -> str | None:
    """Leave of a number what tells calls apart without telling whom: +12•••••••01."""
    if not isinstance(number, str):
        return None
    if not re.fullmatch(r"\+?[0-9]{7,15}", number):
        return "•••"
    return f"{number[:3]}{'•' * (len(number) - 5)}{number[-2:]}"


def _shown(name: str, value: object) -> object:
    """Return what may be seen of a field: one that we do not know may hold anything."""
    if name == "to_number":
        return masked(value)
    return value if name in _HARMLESS else "…"


def _cell(value: object) -> object:
    """Return what fits in a cell: a word, else JSON."""
    return value if isinstance(value, str | None) else json.dumps(value, ensure_ascii=False)


def _text_of(body: bytes) -> str:
    """Return an unreadable body, or what one begins with that may have any size."""
    if len(body) <= MAX_BODY_BYTES:
        return body.decode(errors="replace")
    return f"{body[:BEGINNING_BYTES].decode(errors='replace')}… ({len(body)} bytes in all)"


def read_dead_letter(message: AbstractIncomingMessage, requests: str) -> DeadLetter:
    """Read what the dead-letter queue of the queue *requests* holds, whatever that is."""
    headers = own_headers(message, requests)
    fields = read_json(message.body)
    readable: dict[str, Any] = fields if isinstance(fields, dict) else {}
    digest = hashlib.sha256(message.body).hexdigest()
    return DeadLetter(
        id=readable_id(readable) or id_of(message),
        key=json.dumps([id_of(message), digest, sorted(headers.items())]),
        failed_at=_text(headers.get("x-failed-at")),
        reason=_text(headers.get("x-reason")) or "broker",
        code=_text(headers.get("x-code")),
        description=_text(headers.get("x-description")),
        http_status=_number(headers.get("x-http-status")),
        attempt=_number(headers.get("x-attempt")),
        replay=_number(headers.get("x-replay")) or 0,
        body=message.body,
        fields=readable,
        headers=headers,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


@dataclass(slots=True)
class Group:
    """Dead letters that failed alike; times are RFC 3339."""

    example: DeadLetter
    count: int = 0
    replayed: int = 0
    first: str | None = None
    last: str | None = None

    @property
    def title(self) -> str:
        """What they have in common."""
        letter = self.example
        return f"{letter.reason} {letter.code or ''}: {letter.description or ''}"


class Groups:
    """Dead letters by reason, code and description."""

    def __init__(self, letters: Iterable[DeadLetter] = ()) -> None:
        self._found: dict[Kind, Group] = {}
        for letter in letters:
            self.add(letter)

    def add(self, letter: DeadLetter) -> None:
        """Count one more."""
        found = self._found.setdefault(letter.kind, Group(letter))
        found.count += 1
        found.replayed += letter.replay > 0
        if letter.failed_at is not None:
            found.first = min(found.first or letter.failed_at, letter.failed_at)
            found.last = max(found.last or letter.failed_at, letter.failed_at)

    @property
    def largest_first(self) -> list[Group]:
        """The groups, in order."""
        return sorted(self._found.values(), key=lambda g: -g.count)

"""What a reply can be: JSON, a page, a broken connection, silence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Error:
    """A JSON error; *observed* is the status that portals really send, where it is another."""

    status: int
    code: str | int
    description: str
    observed: int | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """Something that is not JSON."""

    status: int
    content: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What a placed call is answered with, perhaps incomplete.

    "truncated" is half a JSON text in a whole HTTP answer, "cut" half an HTTP answer.
    """

    result: bool = True
    call_id: bool = True
    damage: Literal["truncated", "cut"] | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset and nothing is answered."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing comes for the switch `hold_s`, then the connection is reset."""


@dataclass(frozen=True, slots=True)
class Json:
    """An answer in JSON, still to be written; *damage* as in `Result`."""

    status: int
    payload: Mapping[str, object]
    damage: Literal["truncated", "cut"] | None = None


Reply = Json | Page | Reset | Silence

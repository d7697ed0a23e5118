"""The methods of a portal that place nothing: lines, voices, statistics, and what it has at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.sandbox.answers import INFOCALL
from consumer.sandbox.history import Calendar, Call, statistic
from consumer.sandbox.request import RestRequest
from consumer.sandbox.rules import has_scope, right_to

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from consumer.sandbox.switches import Switches

VOICES = {
    "ruinternalfemale": "Russian: internal female",
    "ruinternalmale": "Russian: internal male",
    "usenglishmale": "American English: male",
    "usenglishfemale": "American English: female",
    "ukenglishmale": "British English: male",
    "ukenglishfemale": "British English: female",
    "auenglishfemale": "Australian English: female",
    "eurgermanmale": "German: male",
    "eurgermanfemale": "German: female",
    "eurfrenchfemale": "French: female",
    "euritalianfemale": "Italian: female",
    "eurspanishfemale": "Spanish: female",
}


@dataclass(frozen=True, slots=True)
class View:
    """What such a method sees of the portal.

    Attributes:
        switches: How it behaves.
        ended: The calls that are over.
        calendar: How it writes and reads dates.
        now: Its time, in Unix seconds.
    """

    switches: Switches
    ended: Sequence[Call]
    calendar: Calendar
    now: float


def has_method(switches: Switches, request: RestRequest) -> bool:
    return request.method in _available(switches)


def _available(switches: Switches) -> list[str]:
    return [name for name in (INFOCALL, *METHODS) if right_to(name, switches) != "absent"]


def _lines(view: View, _: RestRequest) -> dict[str, object]:
    return {"result": view.switches.lines or []}  # PHP writes an empty map so


def _statistic(view: View, request: RestRequest) -> dict[str, object]:
    # An infocall belongs to no user, so who may see only their own sees none.
    visible = view.ended if view.switches.history == "any" else ()
    return statistic(visible, request.params, view.calendar)


def _method_get(view: View, request: RestRequest) -> dict[str, object]:
    asked = RestRequest(request.text("name").lower(), request.credential, {})
    exists = has_method(view.switches, asked)
    available = exists and has_scope(view.switches, asked)
    return {"result": {"isExisting": exists, "isAvailable": available}}


METHODS: Mapping[str, Callable[[View, RestRequest], dict[str, object]]] = {
    "voximplant.line.get": _lines,
    "voximplant.tts.voices.get": lambda _, __: {"result": VOICES},
    "voximplant.statistic.get": _statistic,
    "server.time": lambda view, _: {"result": view.calendar.iso(view.now)},
    "scope": lambda view, _: {"result": list(view.switches.scopes)},
    "methods": lambda view, _: {"result": _available(view.switches)},
    "method.get": _method_get,
}

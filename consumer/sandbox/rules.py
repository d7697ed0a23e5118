"""What a portal checks by the request and its switches alone: credential, rights, line, number."""

from __future__ import annotations

from collections.abc import Callable

from consumer.sandbox.answers import INFOCALL
from consumer.sandbox.request import RestRequest
from consumer.sandbox.switches import Right, Switches

Rule = Callable[[Switches, RestRequest], bool]
"""Tells whether a portal with these switches lets this request pass."""

SCOPES = {  # What a method is in the scope of; the others are in every webhook's reach.
    INFOCALL: "call",
    "voximplant.line.get": "telephony",
    "voximplant.tts.voices.get": "telephony",
    "voximplant.statistic.get": "telephony",
}


def right_to(method: str, switches: Switches) -> Right:
    match method:
        case "voximplant.statistic.get":
            return switches.history
        case "voximplant.line.get":
            return switches.line_list
        case _:
            return "any"


def anyhow(_switches: Switches, _request: RestRequest) -> bool:
    return True


def authenticates(_switches: Switches, request: RestRequest) -> bool:
    return request.credential is not None or request.token is not None


def knows_credential(switches: Switches, request: RestRequest) -> bool:
    return request.token is not None or request.credential == ("1", switches.secret)


def has_scope(switches: Switches, request: RestRequest) -> bool:
    scope = SCOPES.get(request.method)
    return scope is None or scope in switches.scopes


def permits(switches: Switches, request: RestRequest) -> bool:
    return right_to(request.method, switches) != "denied"


def not_base_line(_switches: Switches, request: RestRequest) -> bool:
    return request.line != "LINK_BASE_NUMBER"


def has_line(switches: Switches, request: RestRequest) -> bool:
    return request.line in switches.lines


def has_allowance(switches: Switches, request: RestRequest) -> bool:
    return switches.allowance != 0 or request.is_sip


def dialable(_switches: Switches, request: RestRequest) -> bool:
    return request.dialled not in (("", "0") if request.is_sip else ("",))

"""What a portal checks, stage by stage, and which answer it gives where a check fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from consumer.sandbox.limits import Limits
from consumer.sandbox.methods import has_method
from consumer.sandbox.request import RestRequest
from consumer.sandbox.rules import (
    Rule,
    anyhow,
    authenticates,
    dialable,
    has_allowance,
    has_line,
    has_scope,
    knows_credential,
    not_base_line,
    permits,
)
from consumer.sandbox.switches import Switches

if TYPE_CHECKING:
    from consumer.sandbox.answers import Stage

Passes = Callable[[Limits, Switches, RestRequest], bool]


def _by(rule: Rule) -> Passes:
    return lambda _, switches, request: rule(switches, request)


GATES: Mapping[Stage, tuple[Passes, str]] = {
    "rate": (Limits.within_rate, "QUERY_LIMIT_EXCEEDED"),
    "transport": (_by(anyhow), ""),
    "closed": (_by(anyhow), ""),
    "method": (_by(has_method), "ERROR_METHOD_NOT_FOUND"),
    "auth": (_by(authenticates), "NO_AUTH_FOUND"),
    "credential": (_by(knows_credential), "INVALID_CREDENTIALS"),
    "scope": (_by(has_scope), "insufficient_scope"),
    "hold": (_by(anyhow), ""),
    "plan": (_by(anyhow), ""),
    "user": (_by(anyhow), ""),
    "app": (_by(anyhow), ""),
    "operating": (Limits.within_operating, "OPERATION_TIME_LIMIT"),
    "permission": (_by(permits), "ACCESS_DENIED"),
    "base line": (_by(not_base_line), "base line"),
    "line": (_by(has_line), "no line"),
    "allowance": (_by(has_allowance), "monthly limit"),
    "number": (_by(dialable), "bad number"),
    "controller": (_by(anyhow), ""),
}
"""In the order in which a portal checks; `answers` may end a request at any of them."""

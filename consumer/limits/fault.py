"""Which answers are a fault of the whole portal, and of which kind. Pure."""

import re
from dataclasses import dataclass
from typing import Literal

from consumer.decision import Outcome, Placed, Refused, Unavailable, Unsure
from consumer.errors import LOGIN

Kind = Literal["refused", "rate", "connection", "doubt", "bug"]
KINDS: tuple[Kind, ...] = ("refused", "rate", "connection", "doubt", "bug")
Lines = Literal["all", "rented", "default"]
SIP_LINE = re.compile(r"(reg|sip)\d")


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong that is no single request's fault; faults of one kind count together.

    Attributes:
        lines: Which lines' calls can meet it: all, those that are no SIP lines, or the default.
        retry_after_s: The shortest wait that the portal asked for, in seconds.
        advice: What a person must do before any call can be placed; empty where it is not certain
            that all would meet the fault.
    """

    kind: Kind
    code: str = ""
    lines: Lines = "all"
    retry_after_s: float = 0.0
    advice: str = ""

    def can_meet(self, line: str | None, default_line: str | None) -> bool:
        """Tell whether a call by *line* could have met it."""
        match self.lines:
            case "all":
                return True
            case "rented":
                return not SIP_LINE.match(line or "")
            case "default":
                return line == default_line


def fault_of(outcome: Outcome, *, on_default_line: bool) -> Fault | None:
    """Tell a portal-wide fault from a request's own.

    Args:
        outcome: What the portal answered.
        on_default_line: Whether the call went by the line that requests use which name none.
    """
    match outcome:
        case Placed():
            return None
        case Refused(failure, "portal"):
            return Fault("refused", failure.code.upper())
        case Refused(failure, "login"):
            return Fault("refused", failure.code.upper(), advice=LOGIN)
        case Refused(failure, "rented lines"):
            return Fault("refused", failure.code.upper(), "rented")
        case Refused(failure, "line") if on_default_line:
            return Fault("refused", failure.code.upper(), "default")
        case Refused():
            return None
        case Unavailable(failure, counts, retry_after_s):
            kind: Kind = "connection" if counts else "rate"
            return Fault(kind, failure.code.upper(), retry_after_s=retry_after_s)
        case Unsure(failure):
            return Fault("doubt", failure.code.upper())

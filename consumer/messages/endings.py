"""How a call ended, in the words of `call.completed`."""

from dataclasses import dataclass
from typing import Literal

CallOutcome = Literal[
    "answered", "busy", "no_answer", "declined", "unreachable", "failed", "unknown"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How one call ended.

    Attributes:
        code: The portal's; empty where the history shows nothing.
        description: What the code means, in words without personal data.
        duration_s: Seconds of speech; 0 if nobody answered.
        cost: What the portal says it cost, in *cost_currency*.
    """

    outcome: CallOutcome
    code: str
    description: str
    duration_s: float
    cost: float | None = None
    cost_currency: str | None = None


def in_words(outcome: CallOutcome, duration_s: float | None = None) -> str:
    """Say how a call ended: *no answer*, or *answered, 12 s*."""
    if outcome == "unknown":
        return "not in the call history"
    spoken = f", {duration_s:g} s" if duration_s else ""
    return outcome.replace("_", " ") + spoken


NEVER_SHOWN = Ending(
    outcome="unknown",
    code="",
    description="the call history does not show the call",
    duration_s=0,
)
"""How a call ends that the history does not show."""

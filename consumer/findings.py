"""What a look into the portal's call history shows about one call."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Found:
    """The call history holds a call that only this request can have placed."""

    call_id: str


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """The call history holds a call that this request or another one in doubt placed."""


@dataclass(frozen=True, slots=True)
class NotFound:
    """A complete answer holds no such call; *conclusive* if the history has shown calls of ours."""

    conclusive: bool


@dataclass(frozen=True, slots=True)
class NoHistory:
    """The portal does not let us read its call history."""


@dataclass(frozen=True, slots=True)
class LookUpFailed:
    """This look-up decides nothing.

    Attributes:
        reason: In a word, for the log: no answer, an error, or a call that only may be ours.
    """

    reason: str = ""


HistoryFinding = Found | Ambiguous | NotFound | NoHistory | LookUpFailed

"""The plan of a replay: what goes back, how, and what that leads to."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from consumer.limits.calling_hours import CallingHours
from consumer.messages import CallRequested, Defaults, Invalid, read_request
from consumer.operations.dead_letter import DeadLetter
from consumer.operations.dead_letters import Replay
from consumer.operations.pauses import Pauses

EVENING = 18
"""The hour, where the command runs, from which many calls may still ring when people sleep."""
MORNING = 8
MANY = 10
"""So many phones are worth a warning."""
ANY_TIME = CallingHours()
LENIENT = Defaults(line="the worker's")
NOT_PAUSED = Pauses()


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A request that waits for the calling hours, to be dialled at *opens_at* or to expire."""

    id: str
    opens_at: float
    expires: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a replay will do.

    Attributes:
        letters: What goes back.
        how: What is changed about it.
        started: The ids of those that the ledger has as started.
        pause_after: So many that fail alike make the worker pause.
        speed: How many go in a second at most.
        begins: The time now, where the command runs.
        hours: When people may be phoned, as the settings have it where the command runs.
        defaults: What requests need not say.
        paused: Who places no calls now, and why.
        blocked: How many each block would stop again, by its id.
    """

    letters: Sequence[DeadLetter]
    how: Replay
    started: Collection[str]
    pause_after: int
    speed: float
    begins: datetime
    hours: CallingHours = ANY_TIME
    defaults: Defaults = LENIENT
    paused: Pauses = NOT_PAUSED
    blocked: Mapping[str, int] = field(default_factory=dict)

    @property
    def calls(self) -> Sequence[CallRequested]:
        """What would be called, as the edits leave it."""
        read = (read_request({**x.fields, **self.how.edits}, self.defaults) for x in self.dialled)
        return [call for call in read if isinstance(call, CallRequested)]

    @property
    def lasts(self) -> timedelta:
        """How long it will take at least."""
        return timedelta(seconds=len(self.letters) / self.speed)

    @property
    def dialled(self) -> Sequence[DeadLetter]:
        """Those that somebody's phone will ring for, if nothing goes wrong again."""
        return [
            letter
            for letter in self.letters
            if (letter.reason != "invalid" or self.how.edits)
            and (not letter.expired or "expires_at" in self.how.edits)
            and (letter.id not in self.started or self.how.redial)
        ]

    @property
    def scheduled(self) -> Sequence[Scheduled]:
        """Those whose turn comes outside of the calling hours."""
        if self.hours.hours is None and self.hours.days is None:
            return []
        now = self.begins.timestamp()
        turns = ((now + n / self.speed, letter) for n, letter in enumerate(self.dialled))
        found = [self._scheduled(letter, turn) for turn, letter in turns]
        return [each for each in found if each is not None]

    def _scheduled(self, letter: DeadLetter, turn: float) -> Scheduled | None:
        call = read_request({**letter.fields, **self.how.edits}, self.defaults)
        if isinstance(call, Invalid) or call.urgent:
            return None
        due = max(turn, call.not_before_s)
        opens_at = self.hours.opens_at(due, call.time_zone)
        if opens_at == due:
            return None
        return Scheduled(letter.id, opens_at, expires=call.has_expired(opens_at))

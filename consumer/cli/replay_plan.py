"""The plan of a replay: how many and how long, what failed how, and what a person should know."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from consumer.cli.console import Failed
from consumer.cli.dead_letters import entries_of
from consumer.cli.plan import Chosen, causes, chosen_letters, counted
from consumer.limits.calling_hours import CallingHours
from consumer.messages import CallRequested, Defaults, Invalid, read_request
from consumer.operations.dead_letter import DeadLetter, Groups
from consumer.operations.dead_letters import Replay
from consumer.operations.pauses import Pauses, blocked_at_hand, pauses_at_hand
from consumer.output import say, shown_id
from consumer.settings import Settings

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


async def planned(
    settings: Settings, what: Chosen, how: Replay, rate: float | None
) -> Sequence[DeadLetter]:
    """Say what a replay would do, before it does it, and return what is chosen.

    Raises:
        Failed: An edited request would be refused, or as `chosen_letters` has it.
        NoSuchDeadLetter: An id names none.
    """
    letters = await chosen_letters(settings, what)
    for letter in letters:
        if (mistake := how.mistake(letter)) is not None:
            raise Failed(f"{shown_id(letter.id)} would be refused after --set: {mistake}")
    plan = await _plan_of(settings, letters, how, rate)
    lasts_s = plan.lasts.total_seconds()
    say(f"{counted(len(letters))}, about {lasts_s:.0f} s at {plan.speed:g} a second", err=True)
    say(*causes(letters), *warnings_of(plan), err=True)
    return letters


async def _plan_of(
    settings: Settings, letters: Sequence[DeadLetter], how: Replay, rate: float | None
) -> Plan:
    """Gather what warnings need to know."""
    entries = await entries_of(settings, letters) or {}
    defaults = settings.request_defaults
    plan = Plan(
        letters=letters,
        how=how,
        started=[id_ for id_, entry in entries.items() if entry.state == "started"],
        pause_after=settings.pause_after,
        speed=min(x for x in (rate, settings.rate_per_s or None, float("inf")) if x),
        begins=datetime.now().astimezone(),
        hours=CallingHours(settings.calling_hours, settings.calling_days, settings.time_zone),
        defaults=replace(defaults, line=defaults.line or "the worker's"),
        paused=await pauses_at_hand(settings),
    )
    return replace(plan, blocked=await blocked_at_hand(settings, plan.calls))


def _expired(plan: Plan) -> str | None:
    expired = [x.id for x in plan.letters if x.expired and "expires_at" not in plan.how.edits]
    text = f"{_some(expired)} expired and will fail again: --set expires_at=… fixes it"
    return text if expired else None


def _came_back(plan: Plan) -> str | None:
    again = [x.id for x in plan.letters if x.replay]
    text = f"{_some(again)} came back after a replay before: was the cause fixed?"
    return text if again else None


def _unreadable(plan: Plan) -> str | None:
    unread = [x.id for x in plan.letters if x.reason == "invalid" and not plan.how.edits]
    text = f"{_some(unread)} cannot be read and will fail again: --set may fix it"
    return text if unread else None


def _one_number(plan: Plan) -> str | None:
    many = "to_number" in plan.how.edits and len(plan.letters) > 1
    return f"all {len(plan.letters)} will call the same number" if many else None


def _in_doubt(plan: Plan) -> str | None:
    unsure = [x.id for x in plan.letters if x.reason == "unsure"]
    text = f"{_some(unsure)} was in doubt about another number: no look-up, dialled once"
    edited = "to_number" in plan.how.edits and not plan.how.redial
    return text if unsure and edited else None


def _started(plan: Plan) -> str | None:
    then = "dialled again" if plan.how.redial else "announced again, not dialled"
    text = f"{_some(plan.started)} was already started and will be {then}"
    return text if plan.started else None


def _scheduled(plan: Plan) -> str | None:
    found = [each for each in plan.scheduled if not each.expires]
    if not found:
        return None
    first, last = (_clock(plan, each(x.opens_at for x in found)) for each in (min, max))
    until = f"until {first}" if first == last else f"the first until {first}, the last until {last}"
    return f"{_some([x.id for x in found])} will wait for the calling hours: {until}"


def _expires_waiting(plan: Plan) -> str | None:
    found = [each.id for each in plan.scheduled if each.expires]
    text = f"{_some(found)} will expire before the calling hours begin: --set expires_at=… fixes it"
    return text if found else None


def _paused(plan: Plan) -> str | None:
    if not plan.paused.words:
        return None
    then = "what is replayed waits meanwhile" if plan.paused.stops_all else "the others go on"
    return f"{plan.paused.words}; {then}"


def _blocked(plan: Plan) -> str | None:
    if not plan.blocked:
        return None
    ids = ", ".join(plan.blocked)
    first = next(iter(plan.blocked))
    return (
        f"{sum(plan.blocked.values())} would be blocked again, by {ids}: "
        f"call-consumer block remove {first} first, once it is over"
    )


def _late(plan: Plan) -> str | None:
    """Nobody must be rung at 23:00 because of a replay; calling hours see to that."""
    if plan.hours.hours is not None:
        return None
    ends = plan.begins + plan.lasts
    evening = plan.begins.replace(hour=EVENING, minute=0, second=0, microsecond=0)
    if (ends < evening and plan.begins.hour >= MORNING) or plan.how.edits.keys() & _TIMES:
        return None
    unlimited = [x.id for x in plan.dialled if x.fields.get("expires_at") is None]
    text = (
        f"{_some(unlimited)} have no expires_at and may ring late: it is {plan.begins:%H:%M} here, "
        f"and the last goes at about {ends:%H:%M}, or later if the worker has to wait: "
        "--set expires_at=… ends that, --set not_before=… puts it off"
    )
    return text if len(unlimited) >= MANY else None


def _may_pause(plan: Plan) -> str | None:
    most = max((found.count for found in Groups(plan.letters).largest_first), default=0)
    text = (
        f"if {plan.pause_after} in a row fail as before, the worker pauses and the others "
        "wait until the portal is well: its log and /readyz say so"
    )
    return text if most >= plan.pause_after else None


_TIMES = {"expires_at", "not_before"}
_WARNINGS: Sequence[Callable[[Plan], str | None]] = (
    _expired,
    _came_back,
    _unreadable,
    _one_number,
    _in_doubt,
    _started,
    _paused,
    _blocked,
    _scheduled,
    _expires_waiting,
    _late,
    _may_pause,
)
"""In this order; what one needs to know of the ledger or the worker, `_plan_of` gathers."""


def warnings_of(plan: Plan) -> Sequence[str]:
    """Say what a person should know before the replay begins, a line each."""
    return [text for each in _WARNINGS if (text := each(plan)) is not None]


def _clock(plan: Plan, at: float) -> str:
    """Write a time by the clock where the command runs; with its day, where that is another."""
    moment = datetime.fromtimestamp(at, plan.begins.tzinfo)
    return f"{moment:%H:%M}" if moment.date() == plan.begins.date() else f"{moment:%Y-%m-%d %H:%M}"


def _some(ids: Collection[str]) -> str:
    first = ", ".join(map(shown_id, list(ids)[:3]))
    return f"{len(ids)} ({first}{', …' if len(ids) > 3 else ''})"  # noqa: PLR2004

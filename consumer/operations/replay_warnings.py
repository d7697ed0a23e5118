"""What a person should know before a replay begins."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from consumer.operations.dead_letter import Groups
from consumer.operations.replay_plan import Plan
from consumer.output import shown_ids

EVENING = 18
"""The hour, where the command runs, from which many calls may still ring when people sleep."""
MORNING = 8
MANY = 10
"""So many phones are worth a warning."""


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
    return f"{len(ids)} ({shown_ids(ids)})"

"""Replay and discard dead letters, take requests back: the plan, a yes, then it is done."""

import math
from collections.abc import Sequence
from functools import partial

import structlog
from starlette.responses import Response

from consumer.operations.carry_out import discard_all, replay_all
from consumer.operations.dead_letter import DeadLetter, Groups
from consumer.operations.dead_letters import Replay
from consumer.operations.edits import FIELDS, BadEdit, read_edit
from consumer.operations.jobs import Job, Work
from consumer.operations.planning import plan_of
from consumer.operations.replay_warnings import warnings_of
from consumer.operations.survey import MOST
from consumer.operations.upstream import cancellation, publish_cancellations
from consumer.web.confirm import Ask, ask, see_may_order, see_may_send_back
from consumer.web.letters import OVERVIEW, Selection, survey
from consumer.web.visit import BadForm, Visit, counted, go_to, in_page_words

log = structlog.get_logger(__name__)


async def prepare(visit: Visit) -> Response:
    """Show what a replay or a discard would take, and ask how, or why."""
    selection = visit.kept(Selection)
    if selection.taken is None or not selection.taken.fresh:
        selection.taken = survey(visit, selection.choice, MOST, MOST)
    found = selection.taken
    await found.wait()
    if found.error:
        raise BadForm(found.error)
    name = visit.request.url.path.split("/")[1] if found.ready else "pending"
    return visit.soon(found, name, selection=selection, fields=FIELDS, word=visit.word)


async def plan_replay(visit: Visit) -> Response:
    """Ask whether to replay, with what a person should know before."""
    await see_may_send_back(visit)
    letters = _taken(visit)
    how = Replay(redial=bool(visit.field("redial")), edits=_edits(visit))
    for letter in letters:
        if (mistake := how.mistake(letter)) is not None:
            raise BadForm(f"{letter.id} would be refused with that change: {mistake}")
    rate = _rate(visit)
    plan = await plan_of(visit.settings, letters, how, rate)
    changed = [f"{name} becomes {_shown(name, value)}" for name, value in how.edits.items()]
    lasts = f"about {plan.lasts.total_seconds():.0f} s, at {plan.speed:g} a second"
    return ask(
        visit,
        Ask(
            title=f"Replay {counted(letters, 'dead letter')}",
            yes=f"Replay {counted(letters, 'dead letter')}",
            back=visit.request.url.path,
            lines=[*_causes(letters), *changed, lasts],
            warnings=[in_page_words(text) for text in warnings_of(plan)],
            act=partial(_replay, letters=letters, how=how, rate=rate),
        ),
    )


async def _replay(
    visit: Visit, letters: Sequence[DeadLetter], how: Replay, rate: float | None
) -> Response:
    await see_may_send_back(visit)
    work = partial(replay_all, visit.settings, letters, how, rate, who=visit.session.who)
    return _begin(visit, Job("replayed", visit.session.who, [each.id for each in letters]), work)


async def plan_discard(visit: Visit) -> Response:
    """Ask whether to discard."""
    letters, why = _taken(visit), visit.reason
    return ask(
        visit,
        Ask(
            title=f"Discard {counted(letters, 'dead letter')}",
            yes=f"Discard {counted(letters, 'dead letter')} for good",
            back=visit.request.url.path,
            lines=[*_causes(letters), f"because: {why}"],
            warnings=["nothing brings them back"],
            act=partial(_discard, letters=letters, why=why),
        ),
    )


async def _discard(visit: Visit, letters: Sequence[DeadLetter], why: str) -> Response:
    work = partial(discard_all, visit.settings, letters, why, who=visit.session.who)
    return _begin(visit, Job("discarded", visit.session.who, [each.id for each in letters]), work)


def _begin(visit: Visit, job: Job, work: Work) -> Response:
    """Begin a job; what was looked at before is out of date."""
    for kept in visit.session.kept.values():
        if isinstance(kept, Selection):
            kept.taken = None
    visit.session.kept.pop(OVERVIEW, None)
    return go_to(f"/jobs/{visit.desk.jobs.begin(job, work)}")


async def plan_cancel(visit: Visit) -> Response:
    """Ask whether to take requests back."""
    await see_may_order(visit)
    reason, ids = visit.reason, visit.ids
    bodies = {id_: cancellation(id_, reason) for id_ in ids}
    if not bodies:
        raise BadForm("Write the ids of requests, one on each line")
    title, lines = f"Take back {counted(ids, 'request')}", [*ids[:5], f"because: {reason}"]
    act = partial(_cancel, bodies=bodies, reason=reason)
    return ask(visit, Ask(title=title, yes=title, back="/waiting", lines=lines, act=act))


async def _cancel(visit: Visit, bodies: dict[str, bytes], reason: str) -> Response:
    def done(id_: str) -> None:
        log.warning("cancel.asked", request_id=id_, who=visit.session.who, why=reason)

    url, exchange = visit.settings.needed("rabbitmq_url"), visit.settings.exchange
    await publish_cancellations(url, exchange, bodies, done)
    title = f"{counted(list(bodies), 'request')} taken back"
    text = "What was not dialled yet is never dialled. What is started stays so."
    return visit.page("done", title=title, text=text)


def _taken(visit: Visit) -> Sequence[DeadLetter]:
    taken = visit.kept(Selection).taken
    if taken is None or not taken.ready or not taken.letters:
        raise BadForm("No dead letter is chosen any more: look again")
    return taken.letters


def _edits(visit: Visit) -> dict[str, object]:
    told = {name: text for name in FIELDS if (text := visit.field(f"set-{name}"))}
    try:
        return {name: read_edit(name, text) for name, text in told.items()}
    except BadEdit as error:
        raise BadForm(str(error)) from None


def _rate(visit: Visit) -> float | None:
    if not (text := visit.field("rate")):
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise BadForm("At most so many a second: write a number above 0, as 0.5")
    return rate


def _shown(name: str, value: object) -> object:
    return {"to_number": "another number", "text_to_pronounce": "another text"}.get(name, value)


def _causes(letters: Sequence[DeadLetter]) -> list[str]:
    return [f"{found.count:,} {found.title}" for found in Groups(letters).largest_first]

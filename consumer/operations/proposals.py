"""What an operator is about to do to requests, told with its number before it is done."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import partial

import structlog

from consumer.errors import OperatorError
from consumer.operations.carry_out import discard_all, replay_all
from consumer.operations.dead_letter import DeadLetter, Groups
from consumer.operations.dead_letters import Replay
from consumer.operations.jobs import Job, Work
from consumer.operations.planning import plan_of
from consumer.operations.replay_warnings import warnings_of
from consumer.operations.rights import see_may_look, see_may_order, see_may_send_back
from consumer.operations.upstream import cancellation, publish_cancellations
from consumer.output import shown_id
from consumer.settings import Settings

SOME = 5
HIDDEN = {"to_number": "another number", "text_to_pronounce": "another text"}

log = structlog.get_logger(__name__)


class NothingChosen(OperatorError):
    """Raised where there is nothing to do it to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What a person has to say yes to; it is carried out at once by *act*, or it is a *job*.

    Attributes:
        yes: What is done, with the number.
        lines: What that comes to.
        warnings: What to know before.
        allow: Raises `NotAllowed` where the broker does not let this user.
        act: Does it, and says how it went.
    """

    title: str
    yes: str
    lines: Sequence[str]
    warnings: Sequence[str] = ()
    allow: Callable[[], Awaitable[None]]
    act: Callable[[], Awaitable[str]] | None = None
    job: tuple[Job, Work] | None = None


async def propose_replay(
    settings: Settings,
    letters: Sequence[DeadLetter],
    how: Replay,
    rate_per_s: float | None,
    who: str,
) -> Proposal:
    """Propose to send dead letters back.

    Raises:
        NothingChosen: There is none, or one would be refused as it is edited.
        NotAllowed: The broker does not let this user.
    """
    await see_may_send_back(settings)
    for letter in letters:
        if (mistake := how.mistake(letter)) is not None:
            text = f"{shown_id(letter.id)} would be refused with that change: {mistake}"
            raise NothingChosen(text)
    plan = await plan_of(settings, letters, how, rate_per_s)
    changed = [f"{name} becomes {HIDDEN.get(name, value)}" for name, value in how.edits.items()]
    lasts = f"about {max(1.0, plan.lasts.total_seconds()):.0f} s, at {plan.speed:g} a second"
    what = f"Replay {counted(letters, 'dead letter')}"
    job = Job("replayed", who, [letter.id for letter in letters])
    return Proposal(
        title=what,
        yes=what,
        lines=[*causes_of(letters), *changed, lasts],
        warnings=warnings_of(plan),
        allow=partial(see_may_send_back, settings),
        job=(job, partial(replay_all, settings, letters, how, rate_per_s, who=who)),
    )


def propose_discard(
    settings: Settings, letters: Sequence[DeadLetter], why: str, who: str
) -> Proposal:
    """Propose to remove dead letters.

    Raises:
        NothingChosen: There is none.
    """
    what = f"Discard {counted(letters, 'dead letter')}"
    job = Job("discarded", who, [letter.id for letter in letters])
    return Proposal(
        title=what,
        yes=f"{what} for good",
        lines=[*causes_of(letters), f"because: {why}"],
        warnings=["nothing brings them back"],
        allow=partial(see_may_look, settings),
        job=(job, partial(discard_all, settings, letters, why, who=who)),
    )


async def propose_cancel(settings: Settings, ids: Collection[str], why: str, who: str) -> Proposal:
    """Propose to take requests back.

    Raises:
        NothingChosen: No id is named.
        BadRequest: A word is no id.
        NotAllowed: The broker does not let this user.
    """
    await see_may_order(settings)
    what = f"Take back {counted(ids, 'request')}"
    return Proposal(
        title=what,
        yes=what,
        lines=[*map(shown_id, list(ids)[:SOME]), *["…"][: len(ids) > SOME], f"because: {why}"],
        allow=partial(see_may_order, settings),
        act=partial(_cancel, settings, {id_: cancellation(id_, why) for id_ in ids}, why, who),
    )


async def _cancel(settings: Settings, bodies: Mapping[str, bytes], why: str, who: str) -> str:
    def done(id_: str) -> None:
        log.warning("cancel.asked", request_id=id_, who=who, why=why)

    url = settings.needed("rabbitmq_url")
    await publish_cancellations(url, settings.exchange, bodies, done)
    return "What was not dialled yet is never dialled. What is started stays so."


def counted(things: Sized, name: str) -> str:
    """Write how many there are.

    Raises:
        NothingChosen: There is none.
    """
    if not len(things):
        raise NothingChosen(f"no {name} is chosen")
    return f"{len(things):,} {name}{'s' if len(things) > 1 else ''}"


def causes_of(letters: Sequence[DeadLetter]) -> list[str]:
    """Say what they failed of, a line for each cause."""
    return [f"{found.count:,} {found.title}" for found in Groups(letters).largest_first]

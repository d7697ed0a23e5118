"""Every action is asked back once, with its number; a yes counts once."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.responses import Response

from consumer.messages import CANCEL
from consumer.rabbitmq.rights import see_may_publish
from consumer.web.visit import Visit, go_to


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a person has to say yes to: *yes* is on the button, with the number; *act* does it."""

    title: str
    yes: str
    back: str
    lines: Sequence[str]
    warnings: Sequence[str] = ()
    act: Callable[[Visit], Awaitable[Response]]


def ask(visit: Visit, question: Ask) -> Response:
    """Send the browser to the question."""
    return go_to(f"/confirm/{visit.session.keep(question)}")


async def show(visit: Visit) -> Response:
    """Show a question."""
    return visit.page("confirm", ask=visit.kept(Ask), word=visit.word)


async def yes(visit: Visit) -> Response:
    """Do what was asked, once."""
    question = visit.kept(Ask)
    del visit.session.kept[visit.word]
    return await question.act(visit)


async def see_may_order(visit: Visit) -> None:
    """See that this user may take requests back: to pause and to block calls come to the same.

    Raises:
        NotAllowed: The broker says no.
    """
    url = visit.settings.needed("rabbitmq_url")
    await see_may_publish(url, visit.settings.exchange, CANCEL)


async def see_may_send_back(visit: Visit) -> None:
    """See that this user may publish to the queue of requests.

    Raises:
        NotAllowed: The broker says no.
    """
    await see_may_publish(visit.settings.needed("rabbitmq_url"), "", visit.settings.queue)

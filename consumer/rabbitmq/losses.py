"""A broker that cannot be used, a link that is lost, a message not confirmed: an exception each."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import aiormq.exceptions
import structlog

from consumer.errors import OperatorError
from consumer.unreachable import cause_of

LINK_BROKE = "the link to the broker broke"
_LOSSES = (aiormq.exceptions.AMQPError, OSError, RuntimeError)
"""What aio-pika raises over a lost link; that it is closed is a plain RuntimeError."""
FailureReason = Literal["unroutable", "nacked", "forbidden", "timed_out", "disconnected"]
_HINTS: dict[FailureReason, str] = {
    "unroutable": "no queue takes it yet: start the worker once, it declares them",
    "nacked": "the queue is full or refuses it: see the broker",
    "forbidden": "this user may not publish there: see Rights on the broker in OPERATING.md",
    "timed_out": "the broker did not confirm in time: it may have arrived all the same",
    "disconnected": "the link to the broker broke: it may have arrived all the same",
}
NEVER_SENT = "nothing was sent"
"""The hint where there was no link yet."""

log = structlog.get_logger(__name__)


class BrokerUnavailable(OperatorError):
    """Raised when the broker cannot be used at all; says what to fix, and no password."""


class ConnectionLost(BrokerUnavailable):
    """Raised when a link that stood is lost or does not answer; its cause is what was raised."""


class NotPublished(OperatorError):
    """Raised when the broker did not confirm a message; *reason* tells what happened to it.

    ``unroutable``: no queue for it. ``nacked``: a queue refused it. ``forbidden``: the broker
    refused this user. ``timed_out`` and ``disconnected``: it may have arrived all the same, if it
    was *sent*.
    """

    def __init__(self, reason: FailureReason, detail: str = "", *, sent: bool = True) -> None:
        told = f"{reason}: {detail}" if detail else reason
        super().__init__(f"not published ({told}): {_HINTS[reason] if sent else NEVER_SENT}")
        self.reason = reason


def words_of(error: BaseException) -> str:
    """Return what the broker said, made fit for one line."""
    text = next((str(part) for part in reversed(error.args) if isinstance(part, str)), "")
    return " ".join(text.split()).rstrip(".") or type(error).__name__


def why_lost(error: BaseException) -> str:
    """Say why a link that stood was lost: in the broker's words, where it had any."""
    if isinstance(error, aiormq.exceptions.ConnectionClosed | aiormq.exceptions.AMQPChannelError):
        return words_of(error)
    return cause_of(error)


class LossLog:
    """Says that the link was lost once for each reason, until it is back.

    Where a queue is missing, it is lost again at each attempt to come back.
    """

    def __init__(self) -> None:
        self._said = ""

    def lost(self, _: object, error: BaseException | None) -> None:
        if error is None or isinstance(error, asyncio.CancelledError):
            return
        reason = why_lost(error)
        if reason != self._said:
            log.warning("broker.lost", reason=reason)
        self._said = reason

    def back(self, _: object) -> None:
        self._said = ""
        log.info("broker.back")


@contextmanager
def link_losses() -> Iterator[None]:
    """Let all that a lost link may raise be one exception.

    Raises:
        ConnectionLost: The link is lost, or does not answer.
    """
    try:
        with nameless_losses():
            yield
    except _LOSSES as error:
        raise ConnectionLost(f"{LINK_BROKE} ({why_lost(error)})") from error


@contextmanager
def nameless_losses() -> Iterator[None]:
    """Name what aiormq gives the calls under way: a CancelledError, or a bare Exception.

    The task itself is not cancelled then.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling() > 0:
            raise  # by somebody who wants the task to end
        raise ConnectionLost(LINK_BROKE) from None
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise ConnectionLost(LINK_BROKE) from None

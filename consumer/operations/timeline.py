"""What happened to one request, in the order of time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from consumer.ledger import LedgerDown
from consumer.ledger.completions import Completion
from consumer.messages import read_moment
from consumer.messages.endings import in_words
from consumer.operations.dead_letter import DeadLetter
from consumer.operations.ledger_at_hand import ledger_at_hand
from consumer.operations.report import Report
from consumer.operations.reports import known_to_ledger
from consumer.settings import Settings


@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """Something that happened; *at* is in seconds since the epoch."""

    at: float
    what: str
    detail: str = ""


def timeline(report: Report, ended: Completion | None = None) -> list[Moment]:
    """Tell what is known of a request, the oldest first.

    Args:
        report: What the ledger and the dead letters know of it.
        ended: How its latest call ended, if that is known.
    """
    known = [*_from_entry(report), *_from_letter(report), *_from_act(report)]
    if ended is not None:
        ending = in_words(ended.ending.outcome, ended.ending.duration_s)
        known.append(Moment(ended.completed_at, "completed", ending))
    return sorted(moment for moment in known if moment.at)


def _from_entry(report: Report) -> Iterator[Moment]:
    entry = report.entry
    if entry is None:
        return
    yield Moment(entry.first_seen_at, "published")
    if entry.first_claimed_at != entry.claimed_at:
        yield Moment(entry.first_claimed_at, "first dialled")
    tries = f"attempt {entry.attempt}" if entry.state != "delayed" else ""
    yield Moment(entry.claimed_at, "dialled", tries)
    yield Moment(entry.unsure_since or 0.0, "in doubt", "the answer to the call was lost")
    yield Moment(entry.cancelled_at, "taken back", entry.cancelled_for or "")
    if entry.state != "placing":
        yield Moment(entry.changed_at, entry.state, report.detail)


def _from_letter(report: Report) -> Iterator[Moment]:
    letter = report.letter
    failed_at = read_moment(letter.failed_at) if letter is not None else None
    if letter is not None and failed_at is not None and report.entry is None:
        yield Moment(failed_at.timestamp(), "failed", f"{letter.reason} {letter.code or ''}")


def _from_act(report: Report) -> Iterator[Moment]:
    act = report.act
    if act is not None:
        detail = f"by {act.done_by}" + (f": {act.reason}" if act.reason else "")
        yield Moment(act.done_at, act.act, detail)


async def told_of(
    settings: Settings, request_id: str, letter: DeadLetter | None
) -> tuple[Report, list[Moment], str]:
    """Tell what is known of a request, what happened to it, and why the ledger cannot be read."""
    report, ended, trouble = Report(request_id=request_id), None, ""
    try:
        async with ledger_at_hand(settings) as ledger:
            (report,) = await known_to_ledger(ledger, [request_id])
            ended = (await ledger.completions.latest([request_id])).get(request_id)
    except LedgerDown as error:
        trouble = str(error)
    report = replace(report, letter=letter)
    return report, timeline(report, ended), trouble

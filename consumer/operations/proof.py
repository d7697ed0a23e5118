"""What many requests came to, in one sentence. Pure."""

from collections import Counter
from collections.abc import Sequence

from consumer.messages.endings import in_words
from consumer.operations.report import Report
from consumer.output import shown_ids


def total(reports: Sequence[Report]) -> str:
    """Sum up: how many came to what, and whether anybody was phoned twice."""
    counts = Counter(report.outcome for report in reports)
    told = [f"{counts[each]:,} {each}" for each in ("started", "failed", "waiting")]
    told += [f"{counts[each]:,} {each}" for each in ("in doubt", "unknown") if counts[each]]
    sums = [", ".join([*told, *_dialled(reports)]), ", ".join(_ended(reports))]
    return "; ".join(filter(None, sums))


def _ended(reports: Sequence[Report]) -> list[str]:
    """Say how many calls ended how; nothing, where that is known of none."""
    started = [report for report in reports if report.outcome == "started"]
    counts = Counter(report.entry.outcome for report in started if report.entry)
    known = [(outcome, count) for outcome, count in counts.most_common() if outcome]
    if not known:
        return []
    still_open = sum(report.is_open for report in started)
    told = [f"{count:,} {in_words(each)}" for each, count in known]
    others = {"not known yet": still_open, "not followed up": counts[None] - still_open}
    return told + [f"{count:,} {words}" for words, count in others.items() if count]


def _dialled(reports: Sequence[Report]) -> list[str]:
    twice = [report.request_id for report in reports if report.times_dialled > 1]
    perhaps = [report.request_id for report in reports if report.earlier_doubts]
    told = []
    if twice:
        told.append(f"{len(twice)} dialled more than once ({shown_ids(twice)})")
    if perhaps:
        told.append(f"{len(perhaps)} perhaps to another number before ({shown_ids(perhaps)})")
    if told or not reports:
        return told
    each = all(report.times_dialled == 1 for report in reports)
    return ["each dialled once" if each else "none dialled twice"]

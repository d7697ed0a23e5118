"""What the numbers mean: medians, paired ratios, and the bars they are held against."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

from tests.benchmarks.measures import Share, Throughput
from tests.benchmarks.scale import Scale
from tests.benchmarks.stage import Run
from tests.benchmarks.subjects import BY_HAND, OURS, SUBJECTS

COMPARED = 10
"""The concurrency at which costs are compared: the worker's default."""
LEAST = {1: 0.8, 10: 1.15, 50: 1.8}
"""Of the calls a second that the worker written by hand places, by concurrency."""
LEAST_WITH_POSTGRES = {10: 0.6, 50: 1.0}
MOST_CPU = 0.9
"""Of the CPU time of the worker written by hand, at `COMPARED` in flight."""
CAVEAT = (
    "By hand and Celery: no ledger, no pace, no metrics, no log; a call that is delivered twice"
    " rings twice.\nMedians of {rounds} rounds, each of all three in turn; ratios are medians of"
    " the rounds' own ratios."
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A number, and whether it is what was promised; None: nothing was."""

    what: str
    seen: str
    bar: str = ""
    met: bool | None = None


@dataclass
class Results:
    """All that was measured; what was left out is None."""

    about: dict[str, str] = field(default_factory=dict)
    ceiling_per_s: float | None = None
    throughput: Throughput | None = None
    latency_s: dict[str, list[list[float]]] | None = None
    shares: list[Share] | None = None
    starts_s: list[float] | None = None
    waiting: dict[int, Run] | None = None
    with_postgres: Throughput | None = None
    scale: Scale | None = None

    def findings(self) -> list[Finding]:
        """Hold what was measured against what is promised."""
        found: list[Finding] = []
        if self.throughput is not None:
            found += _throughput(self.throughput, LEAST, "ours / by hand")
            found += _cpu(self.throughput)
        if self.with_postgres is not None:
            found += _throughput(
                self.with_postgres, LEAST_WITH_POSTGRES, "with PostgreSQL / by hand"
            )
        if self.latency_s is not None:
            found += _latency(self.latency_s)
        if self.shares is not None:
            found += _shares(self.shares)
        if self.starts_s is not None:
            seen_s = median(self.starts_s)
            found.append(_less("start to ready, s", seen_s, 2, "{:.2f}"))
        if self.waiting is not None:
            found += _waiting(self.waiting)
        if self.scale is not None:
            found += _scale(self.scale)
        return found


def _less(what: str, seen: float, bar: float, form: str) -> Finding:
    return Finding(what, form.format(seen), f"< {bar:g}", seen < bar)


def _throughput(runs: Throughput, bars: dict[int, float], whose: str) -> list[Finding]:
    found = []
    for concurrency, least in bars.items():
        if concurrency in runs:
            ratio = paired(runs[concurrency], BY_HAND.name, lambda run: run.calls_per_s)
            what = f"calls/s at {concurrency} in flight, {whose}"
            found.append(Finding(what, f"{ratio:.2f}", f">= {least:g}", ratio >= least))
    return found


def _cpu(runs: Throughput) -> list[Finding]:
    ratio = paired(runs[COMPARED], BY_HAND.name, lambda run: run.cpu_s_per_10k)
    what = f"CPU at {COMPARED} in flight, ours / by hand"
    return [Finding(what, f"{ratio:.2f}", f"<= {MOST_CPU:g}", ratio <= MOST_CPU)]


def _latency(taken: dict[str, list[list[float]]]) -> list[Finding]:
    found, medians_ms = [], {}
    for name, rounds in taken.items():
        pooled_ms = [1000 * seconds for one in rounds for seconds in one]
        medians_ms[name] = median(pooled_ms)
        p99_ms = quantiles(pooled_ms, n=100, method="inclusive")[98]
        seen = f"{medians_ms[name]:.1f}, {p99_ms:.1f}"
        found.append(Finding(f"publish to API at 2/s, ms: median, p99: {name}", seen))
    more_ms = medians_ms[OURS.name] - medians_ms[BY_HAND.name]
    found.append(_less("publish to API, ms: medians, ours - by hand", more_ms, 5, "{:.1f}"))
    return found


def _shares(shares: Sequence[Share]) -> list[Finding]:
    return [
        Finding(
            f"share of an allowed {share.rate_per_s}/s; refusals",
            f"{share.share:.1%}; {share.refused}",
            ">= 99 %; 0",
            share.share >= 0.99 and not share.refused,
        )
        for share in shares
    ]


def _waiting(runs: dict[int, Run]) -> list[Finding]:
    few, many = runs
    found = [
        Finding(f"calls/s with {waiting:,} waiting", f"{run.calls_per_s:.0f}")
        for waiting, run in runs.items()
    ]
    found.append(_less(f"peak MB with {many:,} waiting", runs[many].peak_mb, 120, "{:.0f}"))
    grows = runs[many].peak_mb / runs[few].peak_mb
    found.append(_less(f"peak memory, {many:,} / {few:,} waiting", grows, 1.1, "{:.2f}"))
    return found


def _scale(seen: Scale) -> list[Finding]:
    at = f"{seen.settled:,} settled, {seen.waiting:,} waiting"
    return [
        Finding(f"calls/s: {at}", f"{seen.calls_per_s:.0f}"),
        _less(f"start to ready, s: {at}", seen.start_s, 2, "{:.2f}"),
        _less(f"look-up, ms: {at}", seen.look_up_ms, 1, "{:.3f}"),
        _less(f"peak MB: {at}", seen.peak_mb, 120, "{:.0f}"),
    ]


def paired(runs: dict[str, list[Run]], peer: str, value: Callable[[Run], float]) -> float:
    """Return the median of ours / *peer*'s, round by round."""
    both = zip(runs[OURS.name], runs[peer], strict=True)
    return median(value(ours) / value(theirs) for ours, theirs in both)


def comparison(runs: Throughput) -> str:
    """Write the table of everyone's medians, and of ours against each peer's."""
    values: list[tuple[Callable[[Run], float], str]] = [
        (lambda run: run.calls_per_s, "{:.0f}"),
        (lambda run: run.cpu_s_per_10k, "{:.1f}"),
        (lambda run: run.peak_mb, "{:.0f}"),
    ]
    lines = [
        ["", "in flight", "calls/s", "ours/its", "CPU s per 10,000", "ours/its", "MB", "ours/its"]
    ]
    for concurrency, by_name in runs.items():
        for subject in SUBJECTS:
            line = [subject.name, str(concurrency)]
            for value, form in values:
                ratio = "" if subject is OURS else f"{paired(by_name, subject.name, value):.2f}"
                line += [form.format(median(map(value, by_name[subject.name]))), ratio]
            lines.append(line)
    return table(lines)


def verdicts(findings: Sequence[Finding]) -> str:
    """Write the table of what was promised and what was seen."""
    words = {None: "", True: "met", False: "MISSED"}
    lines = [[f.what, f.seen, f.bar, words[f.met]] for f in findings]
    return table([["", "seen", "bar", ""], *lines])


def table(lines: Sequence[Sequence[str]]) -> str:
    """Write *lines*, the first of them heads, as a table that Markdown can show too."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]
        for line in (lines[0], *lines[1:])
    ]
    padded.insert(1, rule)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)

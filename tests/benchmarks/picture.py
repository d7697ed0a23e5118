"""The README's picture: calls a second and CPU time, by calls in flight."""

from collections.abc import Callable
from pathlib import Path
from statistics import median

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.measures import Throughput
from tests.benchmarks.stage import Run
from tests.benchmarks.subjects import SUBJECTS

COLOURS = ("#1f6feb", "#8c959f", "#d0d7de")
WIDTH = 0.27


def draw(runs: Throughput, file: Path) -> None:
    """Draw *runs* as bars; the kind of picture follows from the file's name."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 9}):
        figure = Figure(figsize=(7.2, 2.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        _bars(left, runs, "calls a second", lambda run: run.calls_per_s)
        _bars(right, runs, "CPU seconds for 10,000 calls", lambda run: run.cpu_s_per_10k)
        left.legend(frameon=False, fontsize=8)
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _bars(axes: Axes, runs: Throughput, title: str, value: Callable[[Run], float]) -> None:
    for n, (subject, colour) in enumerate(zip(SUBJECTS, COLOURS, strict=True)):
        places = [place + (n - 1) * WIDTH for place in range(len(runs))]
        heights = [median(map(value, by_name[subject.name])) for by_name in runs.values()]
        bars = axes.bar(places, heights, WIDTH, color=colour, label=subject.name)
        axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
    axes.set_title(title, fontsize=9)
    axes.set_xticks(range(len(runs)), [f"{concurrency} in flight" for concurrency in runs])
    axes.set_yticks([])
    axes.margins(y=0.12)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)

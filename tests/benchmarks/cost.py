"""What a process and its children cost, from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time so far in seconds, and the most memory held at any time in MB."""

    cpu_s: float
    peak_mb: float


def cost_of(pid: int) -> Cost:
    """Add up what *pid* and its descendants have used; memory that they share counts for each."""
    family = [pid, *_descendants(pid)]
    return Cost(sum(map(_cpu_s, family)), sum(map(_peak_mb, family)))


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (thread / "children").read_text().split()):
            found += [child, *_descendants(child)]
    return found


def _cpu_s(pid: int) -> float:
    # The second field is the command's name, in brackets, and may hold blanks.
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, after_name[11:13])) / TICKS_PER_S


def _peak_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.removesuffix("kB")) * 1024 / 1e6
    return 0.0

"""A `call-consumer` process that a test has started."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


@dataclass
class Command:
    """A `call-consumer` process."""

    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    @property
    def code(self) -> int | None:
        return self.process.poll()

    def log(self, event: str = "") -> list[dict[str, Any]]:
        """Return the log lines so far, perhaps only those of one *event*."""
        lines = [json.loads(line) for line in self.stdout.read_text().splitlines()]
        return [line for line in lines if event in ("", line["event"])]

    def type(self, line: str) -> None:
        """Write a line to its stdin, if it has one."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.close()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

"""A `call-consumer` process that a test has started."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

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


def commands_of(group: click.Group) -> dict[str, click.Command]:
    """Return the commands of a group by name, loaded."""
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}

"""The tables of OPERATING.md and of the sandbox's README list what the code has, and no more."""

import json
import re
from pathlib import Path
from typing import get_args

import click
import pytest
from pydantic import SecretStr

from consumer import metrics
from consumer.bitrix24.call_endings import KNOWN_ENDINGS
from consumer.bitrix24.errors import KNOWN_ERRORS, REPORTED_FAILURES, KnownError
from consumer.cli.main import main
from consumer.messages import Reason
from consumer.sandbox import NUMBERS, Switches
from consumer.settings import Settings
from tests.commands import commands_of

ROOT = Path(__file__).parents[2]
OPERATING = (ROOT / "OPERATING.md").read_text(encoding="utf-8")
SANDBOX = (ROOT / "consumer/sandbox/README.md").read_text(encoding="utf-8")
SUFFIXES = {"counter": "_total", "info": "_info"}
SOURCES = [p.read_text(encoding="utf-8") for p in (ROOT / "consumer").rglob("*.py")]
NAME = r'"([a-z_]+\.[a-z_]+)"'
LOGS = (rf"log\.\w+\(\s*{NAME}", rf'Announcement\((?:[^()"]|\([^()]*\))*{NAME}')
"""How the code names an event where it logs it, or has it logged."""
GLOSSARY = {"Dead letter", "Replay", "Ledger", "In doubt", "Pause"}


def section(document: str, heading: str) -> str:
    """Return what stands under a heading of the second level."""
    return document.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """Return the words in code that rows of tables begin with."""
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)


def answer_row(answer: KnownError) -> str:
    """Say what becomes of a request that gets *answer*."""
    if answer.scope == "login":
        then = "the worker pauses at once; the request waits for a login"
    elif answer.outcome == "refused":
        then = "dead letter, `call.failed` refused"
    elif answer.outcome == "unavailable":
        counted = "" if answer.scope != "rate" else ", not counted"
        then = f"delay queue{counted}; after the last `call.failed` exhausted"
        then = then if answer.scope != "rate" else f"delay queue{counted}"
    elif answer.code in REPORTED_FAILURES:
        then = "looked up in the call history; retried where that cannot tell"
    else:
        then = "looked up in the call history; dead letter `unsure` where that cannot tell"
    return f"| `{answer.code}` {answer.description} | {answer.outcome} | {then} | {answer.advice} |"


def default_of(field: str) -> str:
    """Write the default of a setting as one writes the setting."""
    value = Settings.model_fields[field].default
    match value:
        case None:
            return ""
        case bool():
            return f"`{str(value).lower()}`"
        case float():
            return f"`{value:g}`"
        case tuple():
            return f"`{','.join(map(str, value))}`"
        case SecretStr():
            return f"`{value.get_secret_value()}`"
        case _:
            return f"`{value}`"


def number_entry(number: str) -> str:
    """Name what the sandbox answers when *number* is called."""
    times = NUMBERS[number].times
    return f"`{number[-4:]}` {NUMBERS[number].name}" + (f" x{times}" if times else "")


def commands(group: click.Group, prefix: str = "") -> list[str]:
    found = []
    for name, command in commands_of(group).items():
        if isinstance(command, click.Group):
            found += commands(command, f"{prefix}{name} ")
        else:
            found.append(f"{prefix}{name}")
    return found


def test_it_begins_with_symptoms_and_explains_its_words() -> None:
    beginning = OPERATING.partition("\n## ")[0]

    assert beginning.split("\n")[2] == "| symptom | section |"
    assert set(re.findall(r"^\* \*\*(.+?)\*\*", beginning, re.MULTILINE)) == GLOSSARY


@pytest.mark.parametrize("answer", KNOWN_ERRORS, ids=lambda a: f"{a.code} {a.description}")
def test_every_known_answer_has_its_row(answer: KnownError) -> None:
    assert answer_row(answer) in OPERATING


def test_no_row_of_answers_is_left_over() -> None:
    rows = section(OPERATING, "What each answer of the portal means").split("\n")

    assert [row for row in rows if row.startswith("| `")] == list(map(answer_row, KNOWN_ERRORS))


def test_every_code_of_the_history_has_its_row_and_no_other() -> None:
    rows = re.findall(
        r"^\| `(.+?)` \| (.+?) \| `(\w+)` \|$",
        section(OPERATING, "Did anyone pick up"),
        re.MULTILINE,
    )

    assert rows == [(known.code, known.description, known.outcome) for known in KNOWN_ENDINGS]


def test_every_setting_is_listed_with_its_default_and_no_other() -> None:
    rows = re.findall(
        r"^\| `CALLS_([A-Z0-9_]+)` \| (\S*) ?\|", section(OPERATING, "Settings"), re.MULTILINE
    )

    assert rows == [(field.upper(), default_of(field)) for field in Settings.model_fields]


def test_every_command_is_listed_and_no_other() -> None:
    known = commands(main)
    rows = first_cells(section(OPERATING, "Commands"))
    listed = {
        next(filter(row.removeprefix("call-consumer ").startswith, [*known, row])) for row in rows
    }

    assert listed == set(known)


def test_every_log_event_is_explained_and_no_other() -> None:
    logged = {
        name for source in SOURCES for pattern in LOGS for name in re.findall(pattern, source)
    }

    assert set(first_cells(section(OPERATING, "Log"))) == logged


def test_every_metric_is_explained_and_no_other() -> None:
    shown = {
        f"{family.name}{SUFFIXES.get(family.type, '')}" for family in metrics.REGISTRY.collect()
    }

    assert set(first_cells(section(OPERATING, "Metrics"))) == shown


def test_every_reason_is_explained_and_no_other() -> None:
    explained = set(first_cells(section(OPERATING, "Something failed")))

    assert explained == {*get_args(Reason), "broker"}


def test_every_number_of_the_sandbox_is_listed_and_no_other() -> None:
    listed = re.findall(r"`\d{4}` .+?(?= ·|\.$)", section(SANDBOX, "Numbers"), re.MULTILINE)

    assert listed == list(map(number_entry, NUMBERS))


def test_every_switch_of_the_sandbox_is_listed_as_it_is_at_first_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", section(SANDBOX, "Switches"), re.MULTILINE)

    assert {name: json.loads(value) for name, value in rows} == json.loads(
        Switches().model_dump_json()
    )

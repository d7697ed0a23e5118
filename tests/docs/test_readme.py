"""README.md and OPERATING.md say what the code does: their tables are held to it."""

import re
from pathlib import Path
from typing import get_args

import click
import pytest

from consumer import metrics
from consumer.bitrix24.errors import KNOWN_ERRORS, REPORTED_FAILURES, KnownError
from consumer.cli.main import main
from consumer.messages import Reason
from consumer.sandbox import NUMBERS
from consumer.settings import Settings

ROOT = Path(__file__).parents[2]
OPERATING = (ROOT / "OPERATING.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
SUFFIXES = {"counter": "_total", "info": "_info"}
SOURCES = [p.read_text(encoding="utf-8") for p in (ROOT / "consumer").rglob("*.py")]


def answer_row(answer: KnownError) -> str:
    """Say what becomes of a request that gets *answer*."""
    if answer.outcome == "refused":
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


def number_entry(number: str) -> str:
    """Name what the sandbox answers when *number* is called."""
    times = NUMBERS[number].times
    return f"`{number[-4:]}` {NUMBERS[number].answer.name}" + (f" x{times}" if times else "")


@pytest.mark.parametrize("answer", KNOWN_ERRORS, ids=lambda a: f"{a.code} {a.description}")
def test_every_known_answer_has_its_row(answer: KnownError) -> None:
    assert answer_row(answer) in README


def test_no_row_of_answers_is_left_over() -> None:
    rows = re.findall(r"^\| `\w+` .*\| (?:refused|unavailable|unsure) \|.*$", README, re.MULTILINE)

    assert rows == [answer_row(answer) for answer in KNOWN_ERRORS]


@pytest.mark.parametrize("number", NUMBERS)
def test_every_number_of_the_sandbox_is_listed(number: str) -> None:
    assert number_entry(number) in README


def test_every_setting_is_listed_with_its_default_and_no_other() -> None:
    listed = re.findall(r"^\| `CALLS_([A-Z0-9_]+)` \|", README, re.MULTILINE)

    assert listed == [field.upper() for field in Settings.model_fields]


def commands(group: click.Group, prefix: str = "") -> list[str]:
    found = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, f"{prefix}{name} ")
        else:
            found.append(f"{prefix}{name}")
    return found


@pytest.mark.parametrize("command", commands(main))
def test_every_command_is_named(command: str) -> None:
    assert f"`call-consumer {command}" in README


def test_every_log_event_is_explained_and_no_other() -> None:
    logged = {
        name
        for source in SOURCES
        for name in re.findall(r'log\.\w+\(\s*"([a-z_.]+)"', source)
        if "." in name
    }
    explained = set(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", OPERATING, re.MULTILINE))

    assert explained == logged


def test_every_metric_is_explained_and_no_other() -> None:
    shown = {
        f"{family.name}{SUFFIXES.get(family.type, '')}" for family in metrics.REGISTRY.collect()
    }
    explained = set(re.findall(r"^\| `(call_consumer_\w+)` \|", OPERATING, re.MULTILINE))

    assert explained == shown


def test_every_reason_is_explained() -> None:
    explained = set(re.findall(r"^\| `([a-z]+)` \| .* \| .* \|$", OPERATING, re.MULTILINE))

    assert explained == {*get_args(Reason), "broker"}


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README + OPERATING):
        assert (ROOT / target).exists(), target

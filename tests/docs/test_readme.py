"""README.md is short, and what it names exists."""

import re
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from consumer.cli.main import main
from consumer.demo.requests import requests
from tests.commands import commands_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPERATING = (ROOT / "OPERATING.md").read_text(encoding="utf-8")
MOST_WORDS = 1200
DOCUMENTS = [
    file
    for pattern in ("*.md", "*/README.md", "*/*/README.md")
    for file in ROOT.glob(pattern)
    if not file.relative_to(ROOT).parts[0].startswith((".", "mutants"))
]

NAMING_SECTIONS = [
    file
    for folder in ("consumer", "helm", "docker", "CHANGELOG.md")
    for file in [ROOT / folder, *(ROOT / folder).rglob("*")]
    if file.suffix in {".py", ".json", ".yaml", ".md"}
    and "OPERATING.md" in file.read_text(encoding="utf-8")
]


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def anchors_of(file: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a document."""
    text = file.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_it_is_read_in_five_minutes() -> None:
    assert len(README.split()) <= MOST_WORDS


def test_its_demo_shows_requests_of_the_demo() -> None:
    shown = re.findall(r"^(\S+) +(.+?) +call\.(?:started|failed|completed) ", README, re.MULTILINE)
    known = {(request.name, request.oddity) for request in requests(datetime.now(UTC))}

    assert shown
    assert set(shown) <= known


def test_its_settings_have_the_defaults_of_the_full_table() -> None:
    rows = re.findall(r"^\| `(CALLS_\w+)` \| (\S*) ?\|", README, re.MULTILINE)
    full = dict(re.findall(r"^\| `(CALLS_\w+)` \| (\S*) ?\|", OPERATING, re.MULTILINE))

    assert rows
    assert [(name, full.get(name)) for name, _ in rows] == rows


def test_its_commands_exist() -> None:
    rows = re.findall(r"^\| `call-consumer (.+)` \|", README, re.MULTILINE)

    assert rows
    for row in rows:
        *groups, first = row.split("`")[0].split()
        group: click.Command = main
        for each in groups:
            assert isinstance(group, click.Group)
            group = commands_of(group)[each]
        assert isinstance(group, click.Group)
        assert {first, *re.findall(r"`(\w+)", row)} <= commands_of(group).keys()


@pytest.mark.parametrize("file", NAMING_SECTIONS, ids=name_of)
def test_sections_of_operating_that_are_named_elsewhere_exist(file: Path) -> None:
    text = re.sub(r"\s+", " ", file.read_text(encoding="utf-8"))
    sections = re.findall(r"OPERATING\.md[,:] \*?([A-Z][\w' ]+)", text)
    headings = re.findall(r"^## (.+)$", OPERATING, re.MULTILINE)

    assert set(sections) <= set(headings)


@pytest.mark.parametrize("file", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(file: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8")):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = file.parent / path if path else file
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link

"""Write the number of a release wherever it stands."""

import re
import tomllib
from datetime import date
from pathlib import Path

PLACES = {
    "pyproject.toml": r'^version = "(.+)"$',
    "helm/call-consumer/Chart.yaml": r"^version: (.+)$",
    "helm/call-consumer/Chart.yaml ": r'^appVersion: "(.+)"$',
    "docker/Dockerfile": r"^ARG VERSION=(\S+)",
}
"""By the file, the line that the version stands in."""

UNRELEASED = "## [Unreleased]\n"


class Refused(Exception):
    """Raised when there is nothing to release, or not so; says what to do."""


def current(folder: Path) -> str:
    """Return the version in pyproject.toml."""
    text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    return str(tomllib.loads(text)["project"]["version"])


def bump(folder: Path, version: str, today: date) -> None:
    """Write *version* into every place, and give it a section in the CHANGELOG.

    Raises:
        Refused: It is no newer version, or the CHANGELOG says nothing of it.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise Refused(f"{version}: is no version: write three numbers, as 0.2.0")
    if _numbers(version) < _numbers(current(folder)):
        raise Refused(f"{version}: is older than {current(folder)}: write a newer one")
    changelog = folder / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8")
    if not notes(text, "Unreleased"):
        raise Refused("CHANGELOG.md: says nothing under [Unreleased]: write what has changed")
    section = f"{UNRELEASED}\n## [{version}] - {today.isoformat()}\n"
    changelog.write_text(text.replace(UNRELEASED, section, 1), encoding="utf-8")
    for name, line in PLACES.items():
        _write(folder / name.strip(), line, version)


def notes(changelog: str, version: str) -> str:
    """Return what the CHANGELOG says of *version*."""
    section = re.search(
        rf"^## \[{re.escape(version)}\].*?\n(.*?)(?=^## \[|\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    return section[1].strip() if section else ""


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def _write(file: Path, line: str, version: str) -> None:
    text = file.read_text(encoding="utf-8")
    (found,) = re.finditer(line, text, re.MULTILINE)
    file.write_text(text[: found.start(1)] + version + text[found.end(1) :], encoding="utf-8")

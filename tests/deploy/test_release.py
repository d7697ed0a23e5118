"""A release: the number stands everywhere, and the package is as its reader needs it."""

import re
import shutil
import sys
import tarfile
import zipfile
from datetime import date
from pathlib import Path

import pytest

from tests.home import HOME, PROJECT, ROOT
from tests.release.sbom import build_wheel, run
from tests.release.version import PLACES, Refused, bump, current, notes

TODAY = date(2026, 12, 24)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Lend a copy of what a release writes to."""
    for name in {*(place.strip() for place in PLACES), "CHANGELOG.md"}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def changed(folder: Path, name: str) -> list[str]:
    before = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [
        line
        for line in (folder / name).read_text(encoding="utf-8").splitlines()
        if line not in before
    ]


def test_a_release_writes_its_number_into_every_place(folder: Path) -> None:
    bump(folder, "7.8.9", TODAY)

    assert current(folder) == "7.8.9"
    assert changed(folder, "pyproject.toml") == ['version = "7.8.9"']
    chart = changed(folder, "helm/call-consumer/Chart.yaml")
    assert chart == ["version: 7.8.9", 'appVersion: "7.8.9"']
    (arguments,) = changed(folder, "docker/Dockerfile")
    assert arguments.startswith("ARG VERSION=7.8.9 REVISION=")
    assert changed(folder, "CHANGELOG.md") == ["## [7.8.9] - 2026-12-24"]


def test_what_was_unreleased_becomes_the_notes(folder: Path) -> None:
    before = notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), "Unreleased")

    bump(folder, "7.8.9", TODAY)

    after = (folder / "CHANGELOG.md").read_text(encoding="utf-8")
    assert notes(after, "7.8.9") == before
    assert notes(after, "Unreleased") == ""


def test_a_release_that_says_nothing_is_refused(folder: Path) -> None:
    bump(folder, "7.8.9", TODAY)

    with pytest.raises(Refused, match=r"says nothing under \[Unreleased\]"):
        bump(folder, "7.8.10", TODAY)


@pytest.mark.parametrize("version", ["0.0.9", "1.0", "v1.0.0", "1.0.0rc1"])
def test_a_number_that_is_none_or_older_is_refused(folder: Path, version: str) -> None:
    with pytest.raises(Refused, match=f"{version}: is "):
        bump(folder, version, TODAY)

    assert not changed(folder, "pyproject.toml")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dist")
    build_wheel(ROOT, target)
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", target, cwd=ROOT)
    return target


def metadata(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith("METADATA")]
        return archive.read(name).decode()


def test_the_packages_page_says_who_where_and_how_mature_and_its_links_hold(built: Path) -> None:
    told = metadata(next(built.glob("*.whl")))
    head, _, readme = told.partition("\n\n")

    for name in ("Author", "Keywords", "License-Expression"):
        assert f"\n{name}: " in head
    assert "\nClassifier: Development Status :: " in head
    assert re.findall(r"^Project-URL: (\w+),", head, re.MULTILINE) == list(PROJECT["urls"])
    links = re.findall(r"\]\(([^)\s]+)\)", readme)
    of_files = [link for link in links if not link.startswith(("#", "http"))]
    assert of_files == []
    version = PROJECT["version"]
    assert f"{HOME}/blob/v{version}/OPERATING.md#settings" in links


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is an sdist, not a repository")
def test_the_sdist_holds_all_that_make_and_the_tests_need(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    ours = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).split()

    assert {name for name in ours if (ROOT / name).is_file()} - held == set()

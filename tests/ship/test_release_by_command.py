"""A release, from the first file to the tag, in a repository of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.release.sbom import run
from tests.release.version import current

ARGUMENTS = (sys.executable, "-m", "tests.release")
VERSION = "99.0.0"


@pytest.fixture
def repository(clone: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(clone, tmp_path / "repository")
    run("git", "init", "--quiet", cwd=folder)
    for key, value in {"user.name": "A. Tester", "user.email": "tester@example.com"}.items():
        run("git", "config", key, value, cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run("git", "commit", "--quiet", "--message", "All of it", cwd=folder)
    return folder


def test_one_command_builds_verifies_and_tags_everything(repository: Path) -> None:
    told = run(*ARGUMENTS, VERSION, "--without-image", cwd=repository)

    assert f"git push origin HEAD v{VERSION}" in told
    assert {file.name for file in (repository / "dist" / VERSION).iterdir()} == {
        *("NOTES.md", "SHA256SUMS"),
        *(f"call-consumer-{VERSION}.cdx.json", f"call-consumer-{VERSION}.tgz"),
        *(f"call_consumer-{VERSION}.tar.gz", f"call_consumer-{VERSION}-py3-none-any.whl"),
    }
    assert run("git", "tag", "--points-at", "HEAD", cwd=repository).strip() == f"v{VERSION}"
    assert current(repository) == VERSION
    assert run("git", "status", "--porcelain", cwd=repository) == ""


def test_a_release_without_its_image_must_be_asked_for(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")

    done = subprocess.run(
        [*ARGUMENTS, VERSION], cwd=repository, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "no container engine answers" in done.stderr


def test_a_release_that_is_refused_leaves_everything_as_it_was(repository: Path) -> None:
    (repository / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n")
    run("git", "commit", "--quiet", "--all", "--message", "Say nothing", cwd=repository)
    before = run("git", "rev-parse", "HEAD", cwd=repository)

    done = subprocess.run(
        [*ARGUMENTS, VERSION], cwd=repository, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "says nothing under [Unreleased]" in done.stderr
    assert run("git", "rev-parse", "HEAD", cwd=repository) == before
    assert run("git", "tag", cwd=repository) == ""

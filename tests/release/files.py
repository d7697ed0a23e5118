"""The files of a release, built and verified."""

import hashlib
import json
import os
import sys
import tarfile
import tempfile
from pathlib import Path
from subprocess import CalledProcessError

import helm_python

from tests.release.sbom import build_wheel, install, run, write_sbom
from tests.release.version import Refused, current, notes
from tests.ship.engine import base_python, docker

CHECKSUMS, NOTES = "SHA256SUMS", "NOTES.md"


def build_files(folder: Path, target: Path) -> None:
    """Build wheel, sdist, chart, bill of materials, notes and checksums of a clean checkout."""
    version = current(folder)
    os.environ["SOURCE_DATE_EPOCH"] = run("git", "log", "-1", "--format=%ct", cwd=folder).strip()
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", target, cwd=folder)
    wheel = build_wheel(folder, target)
    helm_python.package(folder / "helm" / "call-consumer", destination=target)
    with tempfile.TemporaryDirectory() as venv:
        install(Path(venv), folder, wheel)
        _expect(run(Path(venv, "bin", "call-consumer"), "--version"), version)
        write_sbom(target / f"call-consumer-{version}.cdx.json", Path(venv), folder)
    changelog = (folder / "CHANGELOG.md").read_text(encoding="utf-8")
    said = notes(changelog, version) or notes(changelog, "Unreleased")
    (target / NOTES).write_text(f"{said}\n", encoding="utf-8")
    lines = [f"{_digest(file)}  {file.name}\n" for file in sorted(target.iterdir())]
    (target / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def verify_files(folder: Path, target: Path) -> None:
    """See that the files are whole, bear the version, and that the sdist gives the same wheel.

    Raises:
        Refused: Something is not as it must be.
    """
    version = current(folder)
    run("sha256sum", "--check", "--quiet", CHECKSUMS, cwd=target)
    with helm_python.Chart.load_archive(
        (target / f"call-consumer-{version}.tgz").read_bytes()
    ) as chart:
        _expect(f"{chart.metadata['version']} {chart.metadata['appVersion']}", version)
    bill = json.loads((target / f"call-consumer-{version}.cdx.json").read_text(encoding="utf-8"))
    _expect(bill["metadata"]["component"]["version"], version)
    with tempfile.TemporaryDirectory() as name:
        sdist = f"call_consumer-{version}"
        with tarfile.open(target / f"{sdist}.tar.gz") as archive:
            archive.extractall(name, filter="data")
        again = build_wheel(Path(name, sdist), Path(name))
        if _digest(again) != _digest(target / again.name):
            raise Refused(f"{again.name}: the sdist gives another wheel than the repository")


def need_engine() -> None:
    """See that a container engine answers.

    Raises:
        Refused: None does.
    """
    try:
        docker("version")
    except (FileNotFoundError, CalledProcessError):
        raise Refused(
            "no container engine answers: start one, or say ARGS=--without-image"
        ) from None


def build_image(folder: Path, name: str) -> None:
    """Build the image with the labels of a release, and see that it runs."""
    version = current(folder)
    labels = {
        "PYTHON": base_python(),
        "VERSION": version,
        "REVISION": run("git", "rev-parse", "HEAD", cwd=folder).strip(),
        "CREATED": run("git", "log", "-1", "--format=%cI", cwd=folder).strip(),
    }
    arguments = [f"--build-arg={key}={value}" for key, value in labels.items()]
    docker(
        "build",
        "--quiet",
        *arguments,
        "--tag",
        name,
        "--file",
        folder / "docker/Dockerfile",
        folder,
    )
    _expect(docker("run", "--rm", name, "--version"), version)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _expect(told: str, version: str) -> None:
    if version not in told:
        raise Refused(f"expected version {version}, found: {told}")

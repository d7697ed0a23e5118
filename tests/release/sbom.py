"""The bill of materials of what the image installs, as CycloneDX: `make sbom`."""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def install(venv: Path, folder: Path, wheel: Path) -> None:
    """Install into *venv* what the image holds: the packages of its lock file, and ours."""
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    into = (sys.executable, "-m", "pip", "--python", venv, "--quiet", "install")
    lock = folder / "docker" / "requirements.lock"
    run(*into, "--disable-pip-version-check", "--require-hashes", "-r", lock)
    run(*into, "--disable-pip-version-check", "--no-deps", wheel)


def write_sbom(file: Path, venv: Path, folder: Path) -> None:
    """Write the bill of materials of *venv*; it is validated first."""
    program = Path(sys.executable).with_name("cyclonedx-py")
    options = ("--output-reproducible", "--pyproject", folder / "pyproject.toml", "-o", file)
    run(program, "environment", *options, venv / "bin" / "python")


def build_wheel(folder: Path, target: Path) -> Path:
    """Build the wheel of *folder* into *target*."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", target, cwd=folder)
    (wheel,) = target.glob("*.whl")
    return wheel


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program and return what it printed; its complaints go to stderr.

    Raises:
        CalledProcessError: It failed.
    """
    return subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> None:
    """Write the bill of materials of this checkout to dist/."""
    file = ROOT / "dist" / "call-consumer.cdx.json"
    file.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(folder / "venv", ROOT, build_wheel(ROOT, folder))
        write_sbom(file, folder / "venv", ROOT)
    sys.stdout.write(f"{file.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()

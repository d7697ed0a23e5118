"""A release by one command: `make release VERSION=0.2.0`. CONTRIBUTING.md has the steps.

All is done in a clone, and nothing changes here until everything is built and verified.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.release.files import build_files, build_image, need_engine, verify_files
from tests.release.sbom import ROOT, run
from tests.release.version import Refused, bump, current


def main() -> None:
    """Read the arguments, and release, or build the files of the commit that is checked out."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("version", nargs="?", help="as 0.2.0; else only the files of this commit")
    parser.add_argument("--dry-run", action="store_true", help="build and verify, tag nothing")
    parser.add_argument("--without-image", action="store_true", help="where no engine answers")
    given = parser.parse_args()
    try:
        release(given.version, dry_run=given.dry_run, with_image=not given.without_image)
    except (Refused, subprocess.CalledProcessError, FileNotFoundError) as error:
        sys.exit(f"Not released, and nothing is changed here: {error}")


def release(version: str | None, *, dry_run: bool, with_image: bool) -> None:
    """Build and verify everything, then tag it.

    Raises:
        Refused: Something is not as it must be.
    """
    if run("git", "status", "--porcelain", cwd=ROOT):
        raise Refused("there are changes that are not committed")
    if with_image:
        need_engine()
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name, "call-consumer")
        run("git", "clone", "--quiet", ROOT, clone)
        if version:
            _tag(clone, version)
        target = _fresh(ROOT / "dist" / current(clone))
        build_files(clone, target)
        verify_files(clone, target)
        if with_image:
            build_image(clone, f"call-consumer:{current(clone)}")
        if version and not dry_run:
            run(
                "git",
                "fetch",
                "--quiet",
                clone,
                f"refs/tags/v{version}:refs/tags/v{version}",
                cwd=ROOT,
            )
            run("git", "merge", "--quiet", "--ff-only", f"v{version}", cwd=ROOT)
    _tell(target, None if dry_run else version)


def _tag(clone: Path, version: str) -> None:
    if run("git", "tag", "--list", f"v{version}", cwd=clone):
        raise Refused(f"v{version}: exists already")
    for key in ("user.name", "user.email"):
        run("git", "config", key, run("git", "config", key, cwd=ROOT).strip(), cwd=clone)
    bump(clone, version, datetime.now(UTC).date())
    run("git", "commit", "--quiet", "--all", "--message", f"Release {version}", cwd=clone)
    run("git", "tag", "--annotate", f"v{version}", "--message", f"Release {version}", cwd=clone)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _tell(target: Path, version: str | None) -> None:
    files = "".join(f"  {file.name}\n" for file in sorted(target.iterdir()))
    sys.stdout.write(f"Built and verified, in {target.relative_to(ROOT)}:\n{files}")
    if version:
        sys.stdout.write(f"Publish it: git push origin HEAD v{version}\n")


if __name__ == "__main__":
    main()

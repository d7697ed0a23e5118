"""What editors, hosts and robots read agrees with what the project does."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.home import HOME, PROJECT, ROOT

WORKFLOWS = {path.stem: path for path in (ROOT / ".github" / "workflows").iterdir()}
PLACEHOLDER = "call-consumer.invalid"
YAML_STYLE = (
    "{extends: default, rules: {document-start: disable, truthy: {check-keys: false},"
    " line-length: {max: 100}}}"
)
OURS = [
    file
    for pattern in ("*.*", ".github/**/*.*", "consumer/**/*.py", "docker/**/*", "helm/**/*.*")
    for file in ROOT.glob(pattern)
    if file.is_file()
    and not file.name.startswith(".coverage")
    and file.suffix not in {".db", ".json", ".lock", ".svg"}
]
TOLD = [
    *WORKFLOWS.values(),
    *(ROOT / name for name in (".pre-commit-config.yaml", "SECURITY.md", "CONTRIBUTING.md")),
    ROOT / ".github" / "pull_request_template.md",
]


def targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z]+):", text, re.MULTILINE))


def workflow(name: str) -> dict[Any, Any]:
    return dict(yaml.safe_load(WORKFLOWS[name].read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", TOLD, ids=lambda path: path.name)
def test_every_target_that_is_named_is_one(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"(?:run: |entry: |`|^)make ([a-z]+)", text, re.MULTILINE)

    assert named
    assert set(named) <= targets()


def test_the_yaml_is_in_order() -> None:
    files = [ROOT / ".github", ROOT / ".pre-commit-config.yaml"]
    yamllint = (sys.executable, "-m", "yamllint", "--strict", "--config-data", YAML_STYLE)
    done = subprocess.run([*yamllint, *files], capture_output=True, text=True, check=False)

    assert done.stdout + done.stderr == ""


def test_ci_knows_the_versions_of_python_that_the_package_names() -> None:
    named = re.findall(r":: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    text = WORKFLOWS["ci"].read_text(encoding="utf-8")

    assert f"default: '{str(named).replace(chr(39), chr(34))}'" in text
    assert f"""'["{named[0]}", "{named[-1]}"]'""" in text
    assert f"ARG PYTHON={named[-1]}\n" in (ROOT / "docker" / "Dockerfile").read_text()
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_ci_may_change_nothing_and_only_a_release_writes() -> None:
    assert workflow("ci")["permissions"] == {"contents": "read"}
    assert workflow("release")["permissions"] == {"contents": "write"}
    assert workflow("release")[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true


def test_no_expression_is_pasted_into_a_shell() -> None:
    for name in WORKFLOWS:
        for job in workflow(name)["jobs"].values():
            for step in job["steps"]:
                assert "${{" not in step.get("run", "")


def test_editors_break_lines_where_ruff_does() -> None:
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]

    assert f"max_line_length = {ruff['line-length']}\n" in (ROOT / ".editorconfig").read_text()


def test_the_home_is_the_same_everywhere_and_no_other_place_is_made_up() -> None:
    urls = {
        url
        for file in OURS
        for url in re.findall(r"https?://[^ \n\"'`)>]*", file.read_text(encoding="utf-8"))
    }
    homes = {url for url in urls if PLACEHOLDER in url or url.startswith(HOME)}

    assert homes
    assert all(re.match(rf"{re.escape(HOME)}($|[/;#$,\\])", url) for url in homes)
    assert all(url.startswith(HOME) for url in PROJECT["urls"].values())
    assert f" SOURCE={HOME}\n" in (ROOT / "docker" / "Dockerfile").read_text()

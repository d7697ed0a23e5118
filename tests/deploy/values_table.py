"""The table of values in the chart's README, made from values.yaml: `make docs` renews it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "helm" / "call-consumer"
README = CHART / "README.md"
BEGIN, END = "<!-- made from values.yaml by `make docs` -->\n", "<!-- until here -->"


def table(text: str) -> str:
    """Return a row for each key that has a comment above it, or no keys below it."""
    rows = [f"| `{key}` | {default} | {what} |" for key, default, what in _rows(text)]
    return "\n".join(["| value | default | |", "|---|---|---|", *rows]) + "\n"


def _rows(text: str) -> Iterator[tuple[str, str, str]]:
    comment: list[str] = []
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        if said := re.match(r" *# ?(?!---)(.*)", line):
            comment.append(said[1])
        elif key := re.match(r"( *)(\w+):", line):
            path = [(indent, name) for indent, name in path if indent < len(key[1])]
            path.append((len(key[1]), key[2]))
            names = [name for _, name in path]
            value = _value_at(yaml.safe_load(text), names)
            is_group = isinstance(value, dict) and bool(value)
            if comment or not is_group:
                default = "" if is_group else f"`{json.dumps(value)}`"
                yield ".".join(names), default, " ".join(comment).replace("|", r"\|")
            comment = []
        else:
            comment = []


def _value_at(values: Any, names: list[str]) -> Any:  # noqa: ANN401  # whatever YAML holds
    for name in names:
        values = values[name]
    return values


def renewed(readme: str) -> str:
    """Return the README with the table of the values as they are."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    values = (CHART / "values.yaml").read_text(encoding="utf-8")
    return f"{before}{BEGIN}\n{table(values)}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(renewed(README.read_text(encoding="utf-8")), encoding="utf-8")

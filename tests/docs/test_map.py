"""The package's docstring is a map of the code, and names every module."""

import re
from pathlib import Path

import consumer

PACKAGE = Path(consumer.__file__).parent
MAP = consumer.__doc__ or ""


def modules(folder: Path) -> set[str]:
    return {file.stem for file in folder.glob("*.py")} - {"__init__", "__main__"}


def test_the_map_names_every_module_at_the_top_and_no_other() -> None:
    named = re.findall(r"^    (\w+) {2,}\S", MAP, re.MULTILINE)

    assert sorted(named) == sorted(modules(PACKAGE))


def test_the_map_names_every_module_in_the_rooms_and_no_other() -> None:
    named = {
        room: set(re.split(r",\s+", names))
        for room, names in re.findall(r"^    (\w+)/ +([^:]+):", MAP, re.MULTILINE)
    }

    assert named == {file.parent.name: modules(file.parent) for file in PACKAGE.glob("*/*.py")}

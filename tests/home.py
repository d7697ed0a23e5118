"""Where the project lives, as pyproject.toml says; it is the same everywhere."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HOME: str = PROJECT["urls"]["Homepage"]

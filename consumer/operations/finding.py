"""What a look at one thing that the worker needs came to."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """How one item is: *fix* says what to do where it is not well."""

    item: str
    state: State
    detail: str
    fix: str = ""

"""What is asked of a portal, however it came."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class RestRequest:
    """A request to a REST method.

    Attributes:
        credential: A webhook's user id and secret.
        token: OAuth's access token.
    """

    method: str
    credential: tuple[str, str] | None
    params: Mapping[str, object]
    client: str = ""
    token: str | None = None

    def text(self, name: str) -> str:
        """Read a parameter as PHP would turn it into a string."""
        match self.params.get(name):
            case str(text):
                return text
            case bool(yes):
                return "1" if yes else ""
            case int() | float() as number:
                return str(number)
            case _:
                return ""

    @property
    def line(self) -> str:
        return self.text("FROM_LINE")

    @property
    def is_sip(self) -> bool:
        return self.line.startswith(("reg", "sip"))

    @property
    def digits(self) -> str:
        """The number to call as `NUMBERS` has it: a plus and digits."""
        return "+" + re.sub(r"[^0-9]", "", self.text("TO_NUMBER"))

    @property
    def dialled(self) -> str:
        """What is dialled: SIP lines get the number as it came, others what can be dialled."""
        number = self.text("TO_NUMBER")
        return number if self.is_sip else re.sub(r"[^0-9#*+,;]", "", number)

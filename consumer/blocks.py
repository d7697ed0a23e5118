"""Blocks: which requests an operator wants nobody to be phoned for. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

BlockKind = Literal["metadata", "line", "number"]


@dataclass(frozen=True, slots=True)
class Block:
    """What the requests have in common that are not to be dialled.

    Attributes:
        key: The metadata's; empty for a line or a number.
        value: The metadata's, the line's id, or the number's keyed digest: never the number.
        reason: The operator's, for people.
        created_at: Seconds since the epoch.
        created_by: Who made it.
    """

    id: str
    kind: BlockKind
    key: str
    value: str = field(repr=False)
    reason: str
    created_at: float
    created_by: str


class Blocks:
    """All blocks, found by what they stop: thousands of them cost a request no more than one.

    Args:
        blocks: In any order. Of several for the same thing the oldest counts.
    """

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        latest_first = sorted(blocks, key=lambda block: block.created_at, reverse=True)
        self._blocks = {(block.kind, block.key, block.value): block for block in latest_first}

    def find(self, metadata: Mapping[str, str], line: str | None, number: str) -> Block | None:
        """Return a block that stops a request.

        Args:
            metadata: The request's.
            line: The line it would be dialled from.
            number: Its number's keyed digest.
        """
        wanted = _targets(metadata, line, number) if self._blocks else ()
        return next((self._blocks[each] for each in wanted if each in self._blocks), None)


def _targets(
    metadata: Mapping[str, str], line: str | None, number: str
) -> Iterator[tuple[BlockKind, str, str]]:
    yield "number", "", number
    yield "line", "", line or ""
    for key, value in metadata.items():
        yield "metadata", key, value

"""Blocks: which requests one stops, and which block counts where several do."""

import time

import pytest

from consumer.blocks import Block, BlockKind, Blocks


def block(kind: BlockKind, value: str, key: str = "", **changes: object) -> Block:
    known = {"id": "b1", "reason": "wrong text", "created_at": 1.0, "created_by": "ann"} | changes
    return Block(kind=kind, key=key, value=value, **known)  # type: ignore[arg-type]


CAMPAIGN = block("metadata", "42", "campaign")
LINE = block("line", "reg1", id="b2")
NUMBER = block("number", "d1gest", id="b3")

CASES: dict[str, tuple[dict[str, str], str | None, str, Block | None]] = {
    "nothing in common": ({"campaign": "43", "order": "42"}, "reg2", "other", None),
    "no metadata, no line": ({}, None, "other", None),
    "a pair among others": ({"order": "7", "campaign": "42"}, "reg2", "other", CAMPAIGN),
    "a value that only begins so": ({"campaign": "421"}, "reg2", "other", None),
    "the line": ({}, "reg1", "other", LINE),
    "a line of that name as metadata": ({"": "reg1", "line": "reg1"}, "reg2", "other", None),
    "the number": ({}, "reg2", "d1gest", NUMBER),
    "the digest as metadata": ({"": "d1gest"}, "d1gest", "other", None),
}


@pytest.mark.parametrize(("metadata", "line", "number", "found"), CASES.values(), ids=CASES)
def test_a_request_meets_the_blocks_for_what_it_has(
    metadata: dict[str, str], line: str | None, number: str, found: Block | None
) -> None:
    assert Blocks([CAMPAIGN, LINE, NUMBER]).find(metadata, line, number) == found


def test_without_blocks_nothing_is_stopped() -> None:
    assert Blocks().find({"campaign": "42"}, "reg1", "d1gest") is None


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_blocks_for_the_same_the_older_counts(order: int) -> None:
    newer = block("metadata", "42", "campaign", id="b9", created_at=2.0)

    assert Blocks([CAMPAIGN, newer][::order]).find({"campaign": "42"}, None, "") == CAMPAIGN


def test_thousands_of_blocks_take_no_longer_than_one() -> None:
    blocks = Blocks(block("metadata", str(n), "order", id=str(n)) for n in range(20_000))
    metadata = {f"key{n}": "x" for n in range(19)} | {"order": "19999"}
    began_at = time.monotonic()

    found = [blocks.find(metadata, "reg1", "d1gest") for _ in range(2_000)]

    assert {each.id for each in found if each} == {"19999"}
    assert time.monotonic() - began_at < 1  # a search through all would take minutes


def test_a_block_does_not_show_what_it_stops() -> None:
    assert "+12025550143" not in repr(block("metadata", "+12025550143", "phone"))

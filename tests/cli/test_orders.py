"""`pause`, `resume` and `block`: what they print, what they refuse, what they leave alone."""

import asyncio
import getpass
import json
import re
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from consumer import controls as live
from consumer.cli.main import main
from consumer.ledger import Entry, Ledger
from consumer.ledger.controls import Controls
from consumer.operations import controls
from tests.fakes import placing

ME = f"{getpass.getuser()}@{socket.gethostname()}"
NUMBER = "+12025550101"


def call(*arguments: str, **settings: str) -> Result:
    env = {f"CALLS_{name.upper()}": value for name, value in settings.items()}
    return CliRunner().invoke(main, arguments, env=env)


async def prepared(*entries: Entry) -> None:
    ledger = Ledger("sqlite:///call-ledger.db", "call.requested")
    await ledger.open()
    await ledger.begin()
    for entry in entries:
        await ledger.put(entry, None)
    await ledger.close()


@pytest.fixture(autouse=True)
def _a_ledger_at_once(monkeypatch: pytest.MonkeyPatch, _clean_surroundings: None) -> None:
    """Lend the ledger of a worker that has taken requests, and wait for nobody."""
    monkeypatch.setattr(live, "REFRESH_S", 0)
    monkeypatch.setattr(controls, "COMMITTED_S", 0)
    monkeypatch.setattr(controls, "IN_FORCE_WITHIN_S", 0.05)
    asyncio.run(prepared())


def held(queue: str = "call.requested") -> Controls:
    """Return what the ledger holds."""

    async def read() -> Controls:
        ledger = Ledger("sqlite:///call-ledger.db", queue)
        await ledger.open()
        found = await ledger.controls.read()
        await ledger.close()
        return found

    return asyncio.run(read())


# Pause and resume


def test_a_pause_says_since_when_by_whom_and_why() -> None:
    result = call("pause", "--reason", "wrong text")

    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(rf"paused since \d{{4}}-[^ ]+Z by {ME}: wrong text\n", result.stdout)
    pause = held().pause
    assert pause is not None
    assert (pause.reason, pause.by) == ("wrong text", ME)


def test_a_second_pause_is_no_failure_and_keeps_the_first_reason() -> None:
    first = json.loads(call("pause", "--reason", "wrong text", "--json").stdout)
    second = call("pause", "--reason", "something else", "--json")

    assert first == {
        "paused": True,
        "since": first["since"],
        "by": ME,
        "reason": "wrong text",
        "begun": True,
        "under_way": 0,
    }
    assert second.exit_code == 0
    assert json.loads(second.stdout) == first | {"begun": False}
    assert "keeps that reason" in second.stderr


def test_it_says_that_a_call_was_begun_before_and_may_still_ring() -> None:
    asyncio.run(prepared(*(placing(f"r-{n}") for n in range(2))))

    result = call("pause", "--reason", "wrong text")

    assert result.exit_code == 0
    assert "2 calls begun before" in result.stderr


def test_calls_are_resumed_and_where_they_were_not_paused_it_says_so() -> None:
    call("pause", "--reason", "wrong text")

    assert call("resume").stdout == "resumed\n"
    assert held().pause is None
    assert call("resume").stdout == "not paused\n"
    assert json.loads(call("resume", "--json").stdout) == {"paused": False, "resumed": False}


def test_another_queues_calls_are_left_alone_and_a_queue_without_workers_is_doubted() -> None:
    result = call("pause", "--reason", "wrong text", queue="call.reqested")

    assert result.exit_code == 0
    assert "no worker has taken a request from call.reqested" in result.stderr
    assert held().pause is None


# Blocks


BLOCKED = {
    ("--metadata", "campaign=4=2"): ("metadata", "campaign", "4=2"),
    ("--metadata", "campaign="): ("metadata", "campaign", ""),
    ("--line", "reg1"): ("line", "", "reg1"),
}


@pytest.mark.parametrize("what", BLOCKED, ids="".join)
def test_a_block_has_a_short_id_and_holds_what_was_said(what: tuple[str, str]) -> None:
    result = call("block", "add", *what, "--reason", "too early")

    (block,) = held().blocks
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(r"b-[0-9a-f]{4}\n", result.stdout)
    assert (block.id, block.reason, block.created_by) == (result.stdout.strip(), "too early", ME)
    assert (block.kind, block.key, block.value) == BLOCKED[what]


def test_a_number_is_read_as_that_of_a_request_and_never_shown() -> None:
    first = call("block", "add", "--number", "(202) 555-0101", "--reason", "r", default_region="US")
    again = call("block", "add", "--number", NUMBER, "--reason", f"asked {NUMBER}", "--json")
    shown = [call("block", "list").stdout, call("block", "list", "--json").stdout]

    assert json.loads(again.stdout)["id"] == first.stdout.strip()
    assert json.loads(again.stdout)["begun"] is False
    assert "a number" in shown[0]
    (block,) = held().blocks
    for text in [*shown, first.output, again.output]:
        assert "5550101" not in text
        assert block.value not in text


def test_blocks_are_listed_for_people_and_for_programs() -> None:
    ids = [
        call("block", "add", *what, "--reason", reason).stdout.strip()
        for what, reason in ((("--metadata", "k\x1b[2J=v"), "a\nb"), (("--line", "reg1"), "c"))
    ]

    table = call("block", "list").stdout.splitlines()
    lines = [json.loads(line) for line in call("block", "list", "--json").stdout.splitlines()]

    assert table[0].split() == ["ID", "STOPS", "SINCE", "BY", "REASON"]
    assert [row.split()[0] for row in table[1:]] == ids
    assert "metadata k\\u001b[2J=v" in table[1]
    assert table[1].endswith("a\\u000ab")
    assert [(x["id"], x["kind"], x["key"], x["value"]) for x in lines] == [
        (ids[0], "metadata", "k\x1b[2J", "v"),
        (ids[1], "line", None, "reg1"),
    ]
    assert [(x["by"], x["reason"]) for x in lines] == [(ME, "a\nb"), (ME, "c")]


def test_without_blocks_the_list_is_empty() -> None:
    for options in ((), ("--json",)):
        result = call("block", "list", *options)
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no blocks\n")


def test_a_block_is_removed_by_its_id_and_no_other() -> None:
    call("block", "add", "--line", "reg1", "--reason", "r")
    call("block", "add", "--line", "reg2", "--reason", "r")
    first, second = held().blocks

    result = call("block", "remove", first.id)
    gone = call("block", "remove", first.id)

    assert (result.exit_code, result.stdout) == (0, f"{first.id}\n")
    assert f'dlq replay --description "block {first.id},"' in result.stderr
    assert (gone.exit_code, gone.stdout) == (1, "")
    assert f"no block has the id {first.id}" in gone.stderr
    assert held().blocks == (second,)


# What changes nothing


REFUSED = {
    "a pause without a reason": ("pause",),
    "a blank reason": ("pause", "--reason", " "),
    "a long reason": ("pause", "--reason", "x" * 201),
    "a block of nothing": ("block", "add", "--reason", "r"),
    "a block without a reason": ("block", "add", "--line", "reg1"),
    "two lines": ("block", "add", "--line", "a", "--line", "b", "--reason", "r"),
    "a line and a number": ("block", "add", "--line", "a", "--number", NUMBER, "--reason", "r"),
    "a blank line": ("block", "add", "--line", " ", "--reason", "r"),
    "no pair": ("block", "add", "--metadata", "campaign", "--reason", "r"),
    "no number": ("block", "add", "--number", "12", "--reason", "r"),
}


@pytest.mark.parametrize("words", REFUSED.values(), ids=REFUSED)
def test_what_is_said_wrongly_changes_nothing(words: tuple[str, ...]) -> None:
    result = call(*words)

    assert (result.exit_code, result.stdout) == (2, "")
    assert held() == Controls(held().version)


def test_a_dry_run_says_what_holds_and_changes_nothing() -> None:
    before = held().version

    assert call("pause", "--reason", "r", "--dry-run").stdout == "not paused\n"
    assert "would pause" in call("pause", "--reason", "r", "--dry-run").stderr
    blocked = call("block", "add", "--line", "reg1", "--reason", "r", "--dry-run")
    assert (blocked.stdout, blocked.stderr) == ("", "would block it\n")
    assert held().version == before

    call("pause", "--reason", "r")
    added = call("block", "add", "--line", "reg1", "--reason", "r").stdout.strip()
    before = held().version
    assert call("resume", "--dry-run").stdout.endswith(": r\n")
    blocked = call("block", "add", "--line", "reg1", "--reason", "r", "--dry-run")
    assert blocked.stderr == f"{added} blocks it already\n"
    assert "would remove" in call("block", "remove", added, "--dry-run").stderr
    assert held().version == before


NEED_A_LEDGER = (
    ("pause", "--reason", "r"),
    ("resume",),
    ("block", "add", "--line", "reg1", "--reason", "r"),
    ("block", "list"),
    ("block", "remove", "b-7f3a"),
)


@pytest.mark.parametrize("words", NEED_A_LEDGER, ids=" ".join)
def test_where_there_is_no_ledger_none_is_made(words: tuple[str, ...]) -> None:
    result = call(*words, ledger_url="sqlite:///mistyped.db")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: mistyped.db holds no ledger: set CALLS_LEDGER_URL as the workers have it\n"
    )
    assert not Path("mistyped.db").exists()


@pytest.fixture
def _a_ledger_that_another_holds() -> Iterator[None]:
    db = sqlite3.connect("call-ledger.db", isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    yield
    db.close()


@pytest.mark.usefixtures("_a_ledger_that_another_holds")
def test_a_ledger_that_cannot_be_written_is_named_and_the_order_may_be_said_again() -> None:
    result = call("pause", "--reason", "r")

    assert result.exit_code == 1
    assert "call-ledger.db: database is locked" in result.stderr
    assert "say it again" in result.stderr

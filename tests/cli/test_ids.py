"""Ids are data: none is taken for an option, wherever it stands."""

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import aio_pika
import click
import pytest
from click.testing import CliRunner

from consumer.cli.dead_letters import dlq, show
from consumer.cli.discard import discard
from consumer.cli.main import main
from consumer.cli.replay import replay
from tests.workbench import Bench

COMMAND = str(Path(sys.executable).with_name("call-consumer"))
COMMANDS = {"replay": replay, "discard": discard, "show": show}
ODD_IDS = ("--redial", "--all", "-h", "--dry-run", "--not-replayed", "-x3F", "--", "a\n\x1b[2Jb")


def parsed(command: str, *words: str) -> dict[str, object]:
    """Return what a command understood, without what was not said."""
    helps = click.Context(dlq, help_option_names=["-h", "--help"])
    params = COMMANDS[command].make_context(command, list(words), helps).params
    return {name: value for name, value in params.items() if value not in (None, False, ())}


TAKEN: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "an id": (("replay", "a"), {"ids_": ("a",)}),
    "an id with a dash": (("replay", "-x3F"), {"ids_": ("-x3F",)}),
    "options behind an id are ids": (
        ("replay", "a", "--redial", "--all", "--", "-h"),
        {"ids_": ("a", "--redial", "--all", "--", "-h")},
    ),
    "options, then ids": (
        ("replay", "--redial", "--", "--all", "-h"),
        {"redial": True, "ids_": ("--all", "-h")},
    ),
    "nothing but ids": (("discard", "--", "--why", "x"), {"ids_": ("--why", "x")}),
    "all": (("replay", "--all", "--yes"), {"everything": True, "yes": True}),
    "a filter": (
        ("discard", "--code", "--all", "--why", "-h.", "--yes"),
        {"codes": ("--all",), "why": "-h.", "yes": True},
    ),
    "an id to show": (("show", "-x3F"), {"id_": "-x3F"}),
    "an option to show": (("show", "--", "--unmask"), {"id_": "--unmask"}),
    "unmasked": (("show", "--unmask", "a"), {"id_": "a", "unmask": True}),
    "unmasked, behind": (("show", "a", "--unmask"), {"id_": "a", "unmask": True}),
    "unmasked, with a dash": (("show", "-a", "--unmask"), {"id_": "-a", "unmask": True}),
}


@pytest.mark.parametrize(("words", "understood"), TAKEN.values(), ids=TAKEN)
def test_the_first_word_tells_ids_from_options(
    words: tuple[str, ...], understood: dict[str, object]
) -> None:
    assert parsed(*words) == understood


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "an id behind an option": (("replay", "--redial", "a"), "write -- before the ids"),
    "an id behind a value": (("discard", "--why", "x", "a"), "write -- before the ids"),
    "two ids that would edit": (("replay", "--set", "to_number=+1", "a"), "write -- before"),
    "all, last": (("discard", "--why", "x", "--all"), "comes first"),
    "a filter, last": (("discard", "--yes", "--why", "x", "--not-replayed"), "comes first"),
    "a filter with its value": (("replay", "--yes", "--reason=broker"), "comes first"),
    "an unknown option": (("discard", "--why", "x", "--redial"), "An id comes behind --"),
    "help, last": (("discard", "--why", "x", "-h"), "for help name the command"),
    "help, first": (("replay", "-h", "a"), "write -- before"),
    "help with an id": (("show", "a", "-h"), "for help name the command"),
    "two to show": (("show", "a", "b"), "unexpected extra argument (b)"),
    "no description": (("replay", "--description", " "), "is empty"),
}


@pytest.mark.parametrize(("words", "error"), REFUSED.values(), ids=REFUSED)
def test_what_may_be_an_option_or_an_id_is_refused(words: tuple[str, ...], error: str) -> None:
    with pytest.raises(click.UsageError) as raised:
        parsed(*words)

    assert error in raised.value.format_message()


# With dead letters


@pytest.fixture
async def odd(bench: Bench) -> Bench:
    """Lend dead letters whose ids look like options, or act on a terminal, and a plain one."""
    for second, id_ in enumerate((*ODD_IDS, "plain-1")):
        message = aio_pika.Message(
            b"no JSON\x1b[2J",
            message_id=id_,
            headers={
                "x-reason": "refused\x1b]0;title\x07",
                "x-code": "E\x9b2J",
                "x-description": "first\r\nFORGED ROW\u202e",
                "x-failed-at": f"2026-01-01T00:00:{second:02}Z",
            },
        )
        await bench.channel.default_exchange.publish(message, f"{bench.queue}.dlq")
    return bench


def environment(bench: Bench) -> dict[str, str]:
    names = ("rabbitmq_url", "exchange", "queue", "ledger_url")
    return dict(os.environ) | {f"CALLS_{name.upper()}": str(bench.given[name]) for name in names}


async def sh(bench: Bench, script: str, *words: str) -> tuple[int, str, str]:
    """Run a shell script, in which $C is our command and $1, $2 … are *words*."""
    done = await asyncio.to_thread(
        subprocess.run,
        ["/bin/sh", "-c", script, "sh", *words],
        env=environment(bench) | {"C": COMMAND},
        capture_output=True,
        check=False,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


PIPED: dict[str, tuple[str, tuple[str, ...]]] = {
    "all": ("dlq discard --why x", ("--all",)),
    "all, alone": ("dlq replay", ("--all",)),
    "a filter, alone": ("dlq replay", ("--not-replayed",)),
    "help": ("dlq discard --yes --why x", ("-h",)),
    "redial": ("dlq replay --yes", ("--redial", "plain-1")),
    "redial, first": ("dlq replay", ("--redial", "plain-1")),
    "a dry run": ("dlq discard --yes --why x", ("--dry-run", "plain-1")),
    "an edit": ("dlq replay", ("--set=to_number=+12025550199", "plain-1")),
}


@pytest.mark.parametrize(("command", "ids"), PIPED.values(), ids=PIPED)
async def test_an_id_from_a_pipe_that_looks_like_an_option_stops_the_command(
    odd: Bench, command: str, ids: tuple[str, ...]
) -> None:
    runner = CliRunner(env=environment(odd))

    # xargs puts what it reads behind the command, and leaves it no stdin.
    result = await asyncio.to_thread(runner.invoke, main, [*command.split(), *ids])

    assert result.exit_code != 0
    assert result.stdout == ""
    assert "--" in result.stderr.splitlines()[-1]
    assert await odd.count(f"{odd.queue}.dlq") == len(ODD_IDS) + 1


async def test_behind_two_dashes_every_id_works(odd: Bench) -> None:
    ids = [id_ for id_ in ODD_IDS if "\n" not in id_]
    script = 'printf "%s\\n" "$@" | xargs $C dlq discard --yes --why "a trial" --'

    code, stdout, stderr = await sh(odd, script, *ids)

    assert (code, sorted(stdout.splitlines())) == (0, sorted(ids))
    assert stderr.count("dead_letter.discarded") == len(ids)
    assert await odd.count(f"{odd.queue}.dlq") == 2


async def test_what_list_prints_can_be_piped_back(odd: Bench) -> None:
    kept = '--code "E\\u009b2J" --yes --why "a trial"'
    listed = await sh(odd, "$C dlq list --json | $C dlq discard --ids - --why x --dry-run")
    one = await sh(odd, "printf '%s\\n' '\"a\\n\\u001b[2Jb\"' | $C dlq discard --ids - --why x")
    shown = await sh(odd, "$C dlq show '\"a\\u000a\\u001b[2Jb\"'")
    none = await sh(odd, f"$C dlq discard --ids /dev/null {kept}")
    gone = await sh(odd, "$C dlq discard --ids - --why x < /dev/null; $C dlq discard --ids /no")

    assert len(listed[1].splitlines()) == len(ODD_IDS) + 1
    assert (one[0], one[1]) == (0, '"a\\n\\u001b[2Jb"\n')
    assert "no dead letter has the id" in shown[2]  # it has just been discarded
    assert none[:2] == (0, "")
    assert "nothing to discard" in none[2] + gone[2]
    assert await odd.count(f"{odd.queue}.dlq") == len(ODD_IDS)


async def on_a_terminal(bench: Bench, *arguments: str) -> str:
    """Run a command with all its streams on a terminal, and return what it wrote there."""

    def run() -> bytes:
        ours, theirs = pty.openpty()
        written = b""
        with subprocess.Popen(
            [COMMAND, *arguments],
            env=environment(bench),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ):
            os.close(theirs)
            with suppress(OSError):  # EIO: nobody has the other end any more
                while some := os.read(ours, 4096):
                    written += some
        os.close(ours)
        return written

    return (await asyncio.to_thread(run)).decode().replace("\r\n", "\n")


SHOWN = {
    "list": ("list", "--unmask"),
    "list --json": ("list", "--json", "--unmask"),
    "stats": ("stats",),
    "show": ("show", '"a\\n\\u001b[2Jb"', "--unmask"),
    "replay": ("replay", "--dry-run", "--", "a\n\x1b[2Jb"),
    "discard": ("discard", "--yes", "--why", "\x1b[2J", "--", "a\n\x1b[2Jb"),
    "an unknown id": ("show", "\x1b[2J\nFORGED"),
}


@pytest.mark.parametrize("arguments", SHOWN.values(), ids=SHOWN)
async def test_nothing_of_a_message_acts_on_a_terminal(
    odd: Bench, arguments: tuple[str, ...]
) -> None:
    written = await on_a_terminal(odd, "dlq", *arguments)

    assert written
    colours = re.compile(r"\x1b\[\d+m")  # the log's own
    assert all(colours.sub("", line).isprintable() for line in written.split("\n"))
    assert "\nFORGED" not in written
    if "list" in arguments[0] and "--json" in arguments:
        assert [json.loads(line)["id"] for line in written.splitlines()] == [*ODD_IDS, "plain-1"]


# What cannot be printed


async def test_the_record_of_a_discard_follows_the_act(odd: Bench) -> None:
    ids = "-- --redial --all -h"
    full = await sh(odd, f"$C dlq discard --why x {ids} > /dev/full")
    left = await odd.count(f"{odd.queue}.dlq")
    unkept = await sh(odd, "$C dlq discard --why x --to /dev/full -- plain-1")
    unlogged = await sh(odd, "$C dlq discard --why x -- plain-1 2> /dev/full")

    assert full[0] == unkept[0] == unlogged[0] == 1
    assert full[2].count("dead_letter.discarded") == len(ODD_IDS) + 1 - left == 1
    assert "discarded 1 of 3; the others are still dead letters" in full[2]
    assert full[2].splitlines()[-1].startswith("Error: stdout cannot be written: No space left")
    assert "discarded 0 of 1" in unkept[2]
    assert "dead_letter.discarded" not in unkept[2]
    assert unkept[2].splitlines()[-1].startswith("Error: --to /dev/full cannot be written")
    assert "Traceback" not in full[2] + unkept[2]
    assert await odd.count(f"{odd.queue}.dlq") == left


async def test_a_replay_that_cannot_print_stops_after_the_one_it_sent(odd: Bench) -> None:
    code, _, stderr = await sh(odd, "$C dlq replay -- plain-1 -h --all > /dev/full")

    assert code == 1
    assert "replayed 1 of 3" in stderr
    assert await odd.count(odd.queue) == 1


async def test_after_a_replay_one_knows_that_nobody_takes_requests(odd: Bench) -> None:
    code, stdout, stderr = await sh(odd, "$C dlq replay plain-1")

    assert (code, stdout) == (0, "plain-1\n")
    assert "no worker takes requests just now" in stderr


async def test_where_no_user_has_the_number_the_number_is_recorded(odd: Bench) -> None:
    script = (
        "import pwd; from consumer.cli.main import main; "
        "pwd.getpwuid = lambda uid: {}[uid]; "  # as for a user that no file lists
        "main(['dlq', 'discard', '--why', 'x', '--', 'plain-1'])"
    )

    code, _, stderr = await sh(
        odd, f'unset USER LOGNAME LNAME USERNAME; {sys.executable} -c "$1"', script
    )

    assert code == 0
    assert '"who": "' in stderr


BODY = b'{"request_id":"cr-1",\r"to_number":"+12025550123",\r\n "text_to_pronounce":"x"}'


async def test_a_body_with_line_breaks_survives_discard_and_publish(
    bench: Bench, tmp_path: Path
) -> None:
    message = aio_pika.Message(BODY, message_id="m")
    await bench.channel.default_exchange.publish(message, f"{bench.queue}.dlq")

    script = '$C dlq discard --why x --to "$1" -- cr-1 && $C publish "$1"'
    code, stdout, _ = await sh(bench, script, str(tmp_path / "kept.jsonl"))

    assert (code, stdout) == (0, "cr-1\ncr-1\n")
    [published] = await bench.take(bench.queue)
    assert published.message.body == BODY.replace(b"\n", b" ")

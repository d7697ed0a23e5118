"""What is printed acts on no terminal, and what cannot be printed is one line."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.output import escaped, has_colours, ids_of, shown_id

COMMAND = str(Path(sys.executable).with_name("call-consumer"))
ANY_TEXT = st.text(st.characters())  # halves of surrogate pairs too

ESCAPED = {
    "escape": ("\x1b[2J", "\\u001b[2J"),
    "line feed": ("a\r\nb", "a\\u000d\\u000ab"),
    "C1": ("\x9b2J", "\\u009b2J"),
    "bidi override": ("a\u202eb", "a\\u202eb"),
    "line separator": ("a\u2028b\u2029", "a\\u2028b\\u2029"),
    "zero width": ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
    "no-break space": ("a\u00a0b", "a\\u00a0b"),
    "half a pair": ("a\ud83d", "a\\ud83d"),
    "tag": ("\U000e0041", "\\udb40\\udc41"),
    "letters of all kinds": ("привет 你好 é 😀", "привет 你好 é 😀"),
}


@pytest.mark.parametrize(("text", "shown"), ESCAPED.values(), ids=ESCAPED)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


@given(ANY_TEXT)
def test_escaped_json_is_the_same_json(text: str) -> None:
    line = escaped(json.dumps(text, ensure_ascii=False))

    assert line.isprintable()
    assert json.loads(line) == text


@given(ANY_TEXT.filter(bool))
def test_an_id_is_shown_as_it_can_be_given_back(id_: str) -> None:
    shown = shown_id(id_)

    assert shown.isprintable()
    assert id_ in ids_of(shown)
    assert id_ in ids_of(json.dumps({"id": id_, "reason": "broker"}))
    assert " " not in shown or shown.startswith('"')


def test_two_ids_never_look_the_same() -> None:
    odd = ["a b", '"a b"', "a\u00a0b", '{"id":"x"}', "x", "--all", "a\\u00a0b", '"']

    assert len({shown_id(each) for each in odd}) == len(odd)


def run(*arguments: str, stdout: int = subprocess.PIPE, **environment: str) -> tuple[int, bytes]:
    done = subprocess.run(
        [COMMAND, *arguments],
        env=os.environ | environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )
    return done.returncode, done.stderr if stdout != subprocess.PIPE else done.stdout


@pytest.mark.parametrize("arguments", [("schema",), ("-h",), ("dlq", "list", "-h")], ids=" ".join)
def test_a_full_disk_is_one_line_and_exit_1(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        code, told = run(*arguments, stdout=full.fileno())

    assert (code, told.count(b"\n")) == (1, 1)
    assert b"No space left on device" in told


def test_a_full_disk_in_the_middle_of_a_look_at_the_broker_is_one_line(rabbitmq_url: str) -> None:
    with Path("/dev/full").open("wb") as full:
        code, told = run("check", stdout=full.fileno(), CALLS_RABBITMQ_URL=rabbitmq_url)

    assert (code, told.count(b"\n")) == (1, 1), told


def test_a_closed_pipe_is_no_news() -> None:
    end, other = os.pipe()
    os.close(end)

    assert run("schema", stdout=other) == (1, b"")
    os.close(other)


def test_a_closed_stdout_is_one_line_and_exit_1() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{COMMAND} schema >&-"], capture_output=True, check=False, text=True
    )

    assert (done.returncode, done.stderr) == (
        1,
        "Error: stdout cannot be written: Bad file descriptor\n",
    )


@pytest.mark.parametrize("code_page", ["ascii", "latin-1", "cp1251"])
def test_a_code_page_without_the_letter_gets_an_escape(code_page: str) -> None:
    name = "нет-é-😀.jsonl"

    done = subprocess.run(
        [COMMAND, "publish", name],
        env=os.environ | {"PYTHONIOENCODING": code_page, "CALLS_RABBITMQ_URL": "amqp://x/"},
        capture_output=True,
        check=False,
    )

    assert done.returncode == 2
    told = done.stderr.decode(code_page)
    assert "\\ud83d\\ude00" in told
    assert "Traceback" not in told
    assert "cannot be read: No such file" in told


def test_what_was_typed_is_quoted_without_effect() -> None:
    done = subprocess.run(
        [COMMAND, "schema", "\x1b[2J\nFORGED\u202e"], capture_output=True, check=False, text=True
    )

    assert done.returncode == 2
    assert "there is no schema \\u001b[2J\\u000aFORGED\\u202e" in done.stderr
    assert "\x1b" not in done.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("name", "value", "colours"),
    [("NO_COLOR", "1", []), ("NO_COLOR", "", ["terminal"]), ("TERM", "dumb", [])],
)
def test_colours_are_for_terminals_that_want_them(
    name: str, value: str, colours: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)

    streams = {"terminal": Terminal(), "file": io.StringIO()}

    assert [name for name, stream in streams.items() if has_colours(stream)] == colours

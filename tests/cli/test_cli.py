import asyncio
import contextlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from consumer.cli import main as cli
from consumer.messages import FAILED, REQUESTED, STARTED
from consumer.rabbitmq.connection import connect
from consumer.rabbitmq.declaration import declare
from consumer.rabbitmq.outgoing import build_message
from consumer.rabbitmq.publisher import Publisher
from consumer.rabbitmq.topology import Topology, build_topology
from tests.commands import Command, commands_of

COMMAND = str(Path(sys.executable).with_name("call-consumer"))
NOWHERE = "amqp://guest:hush@127.0.0.1:1/"


def call(*arguments: str, stdin: str | bytes | None = None, **settings: str) -> Result:
    environment = {f"CALLS_{name.upper()}": value for name, value in settings.items()}
    return CliRunner(env=environment).invoke(cli.main, arguments, input=stdin)


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in commands_of(group).items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


COMMANDS = {" ".join(path): command for path, command in commands(cli.main)}


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_help_and_so_has_every_option(path: str) -> None:
    result = call(*path.split(), "-h")

    assert result.exit_code == 0
    assert f"{path} " in result.stdout
    assert COMMANDS[path].help
    options = [each for each in COMMANDS[path].params if isinstance(each, click.Option)]
    assert [option.name for option in options if not option.help] == []


def test_the_version_is_that_of_the_package() -> None:
    version = importlib.metadata.version("call-consumer")

    assert call("--version").stdout.strip().endswith(version)


WHAT_IS_LOADED = """
import atexit, sys
atexit.register(lambda: sys.stderr.write(" ".join(name for name in sys.modules)))
from consumer.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("call-consumer s", {"sandbox", "schema", "show", "status"}),
        ("call-consumer --v", {"--version"}),
        ("call-consumer dlq re", {"replay"}),
    ],
)
def test_the_shell_completes_what_is_there_and_loads_no_other_command(
    line: str, expected: set[str]
) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    asked = {"_CALL_CONSUMER_COMPLETE": "bash_complete"} | words
    program = WHAT_IS_LOADED.replace("main()", "main(prog_name='call-consumer')")
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env=os.environ | asked, capture_output=True, text=True, check=True
    )

    assert {each.partition(",")[2] for each in done.stdout.split()} == expected
    assert "aio_pika" not in done.stderr.split() or "dlq" in line


def test_help_loads_no_command() -> None:
    command = [sys.executable, "-c", WHAT_IS_LOADED, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert not {"aio_pika", "httpx", "consumer.cli.run"} & set(done.stderr.split())


# Settings


def test_wrong_settings_are_a_line_each_and_exit_2() -> None:
    result = call("run", rabbitmq_url="http://hush", timeout_s="soon", retri_delays_s="5")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert [line.partition(":")[0] for line in sorted(result.stderr.splitlines())] == [
        "CALLS_BITRIX24_URL",
        "CALLS_RABBITMQ_URL",
        "CALLS_RETRI_DELAYS_S",
        "CALLS_TIMEOUT_S",
    ]
    assert "hush" not in result.stderr


NEEDY = {
    "publish": ["publish", "+12025550100", "Hello"],
    "events": ["events"],
    "cancel": ["cancel", "order-7"],
}


@pytest.mark.parametrize(
    "arguments",
    [
        *(pytest.param(arguments, id=name) for name, arguments in NEEDY.items()),
        pytest.param(["publish", "-"], id="publish -"),
    ],
)
def test_a_command_that_needs_a_broker_says_how_to_name_it(arguments: list[str]) -> None:
    result = call(*arguments)

    assert result.exit_code == 2
    assert result.stderr == (
        "CALLS_RABBITMQ_URL: is not set: write amqp://user:password@host:5672/\n"
    )


def test_certificates_that_cannot_be_read_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    result = call("lines", bitrix24_url="https://portal.example/rest/1/s3cr3t/")

    assert (result.exit_code, result.stderr) == (
        2,
        "SSL_CERT_FILE: cannot be read: /nowhere/ca.pem: no such file or directory\n",
    )


def test_a_command_that_needs_both_addresses_names_both() -> None:
    result = call("run")

    assert result.exit_code == 2
    assert result.stderr == (
        "CALLS_RABBITMQ_URL: is not set: write amqp://user:password@host:5672/\n"
        "CALLS_BITRIX24_URL: is not set: write https://portal/rest/<user>/<secret>/\n"
    )


@pytest.mark.parametrize("arguments", NEEDY.values(), ids=NEEDY)
def test_a_broker_that_does_not_answer_is_one_line_without_its_password(
    arguments: list[str],
) -> None:
    result = call(*arguments, rabbitmq_url=NOWHERE)

    assert result.exit_code == 1
    assert "no broker answers at 127.0.0.1:1" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "hush" not in result.stderr


# What is wrong with a request is said before anything is published

WRONG = {
    "a bad number": (["+1202555", "Hello"], "to_number: is not a possible phone number"),
    "no number": (["Anna", "Hello"], "not allowed: U+0041 at character 1"),
    "a national number": (["020 7946 0958", "Hello"], "write +<country code><number>"),
    "a blank text": (["+12025550100", " "], "text_to_pronounce: is nothing but blanks"),
    "a bad time": (["+12025550100", "Hello", "--not-before", "noon"], "not_before: is not an RFC"),
    "a bad id": (
        ["+12025550100", "Hello", "--request-id", "a b"],
        "not allowed: U+0020 at character 2",
    ),
    "no time zone": (["+12025550100", "Hello", "--time-zone", "CEST"], "time_zone: is no time"),
    "no pair": (["+12025550100", "Hello", "--metadata", "a"], "write KEY=VALUE"),
    "a pair twice": (
        ["+12025550100", "Hello", "--metadata", "a=1", "--metadata", "a=2"],
        "names a key twice",
    ),
    "an unknown option": (["+12025550100", "Hello", "--vioce", "x"], "No such option"),
    "a number without a text": (["+1 (202) 555-0100"], "the text is missing"),
    "a number without a country code or a text": (["2025550100"], "the text is missing"),
    "nothing": ([], "Missing argument 'TO|FILE'"),
    "a file that is not there": (["calls.jsonl"], "calls.jsonl: cannot be read: No such file"),
    "a folder": (["."], ".: cannot be read: Is a directory"),
    "options for a file": (["-", "--line", "reg1"], "with a FILE each line says all"),
    "a flag for a file": (["-", "--urgent"], "with a FILE each line says all"),
}


@pytest.mark.parametrize(("arguments", "error"), WRONG.values(), ids=WRONG)
def test_wrong_usage_of_publish_is_named_and_exit_2(arguments: list[str], error: str) -> None:
    result = call("publish", *arguments, rabbitmq_url=NOWHERE)

    assert result.exit_code == 2
    assert error in result.stderr
    assert result.stdout == ""


def test_a_default_region_makes_national_numbers_good() -> None:
    result = call("publish", "020 7946 0958", "Hello", rabbitmq_url=NOWHERE, default_region="GB")

    assert result.exit_code == 1  # for want of a broker only
    assert "no broker answers" in result.stderr


# With a broker


@dataclass(frozen=True, slots=True)
class Place:
    """A corner of the broker: exchange and queues of one test's own."""

    url: str
    topology: Topology

    @property
    def settings(self) -> dict[str, str]:
        names = {"exchange": self.topology.exchange, "queue": self.topology.requests.name}
        return {"rabbitmq_url": self.url, "retry_delays_s": "1"} | names

    @property
    def environment(self) -> dict[str, str]:
        ours = {f"CALLS_{name.upper()}": value for name, value in self.settings.items()}
        return dict(os.environ) | ours

    async def requests(self, count: int) -> list[dict[str, Any]]:
        """Take the next *count* requests out of the queue, as a worker would."""
        taken: list[dict[str, Any]] = []
        async with asyncio.timeout(20), await connect(self.url, "tests") as connection:
            channel = await connection.channel()
            queue = await channel.get_queue(self.topology.requests.name)
            async with queue.iterator() as messages:
                while len(taken) < count:
                    message = await anext(messages)
                    taken.append(json.loads(message.body))
                    await message.ack()
        return taken

    async def waiting(self) -> int | None:
        """Count the requests in the queue."""
        async with await connect(self.url, "tests") as connection:
            channel = await connection.channel()
            queue = await channel.get_queue(self.topology.requests.name)
            return queue.declaration_result.message_count

    async def announce(self, kind: str, **event: str) -> None:
        await self.say(kind, json.dumps(event).encode())

    async def say(self, kind: str, body: bytes) -> None:
        publisher = Publisher(self.url)
        message = build_message(body, {}, kind=kind)
        await publisher.publish(message, self.topology.exchange, kind, mandatory=True)
        await publisher.close()


@pytest.fixture
async def place(rabbitmq_url: str) -> AsyncIterator[Place]:
    mark = uuid4().hex[:8]
    topology = build_topology(f"calls.{mark}", f"{REQUESTED}.{mark}", [1])
    await declare(rabbitmq_url, topology)
    yield Place(rabbitmq_url, topology)
    queues = (topology.requests, *topology.delays.values(), topology.dead_letters)
    async with await connect(rabbitmq_url, "tests") as connection:
        channel = await connection.channel()
        for queue in queues:
            await channel.queue_delete(queue.name)
        await channel.exchange_delete(topology.exchange)


async def run(place: Place, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run a command in this process, in a thread that has no loop yet."""
    result = await asyncio.to_thread(call, *arguments, stdin=stdin, **place.settings)
    return result.exit_code, result.stdout, result.stderr


async def run_alone(place: Place, *arguments: str) -> tuple[int | None, str, str]:
    """Run a command in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *arguments,
        env=place.environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    return process.returncode, stdout.decode(), stderr.decode()


async def test_publish_prints_the_id_of_what_it_published(place: Place) -> None:
    code, stdout, stderr = await run_alone(place, "publish", "+1 (202) 555-0100", "Привет")

    assert (code, stderr) == (0, "")
    assert await place.requests(1) == [
        {
            "request_id": stdout.strip(),
            "to_number": "+1 (202) 555-0100",
            "text_to_pronounce": "Привет",
        }
    ]


async def test_publish_passes_on_what_its_options_say(place: Place) -> None:
    fields = {
        "from_line": ("--line", "reg1"),
        "voice": ("--voice", "ukenglishmale"),
        "request_id": ("--request-id", "order-7"),
        "not_before": ("--not-before", "2026-01-31T09:00:00Z"),
        "expires_at": ("--expires-at", "2126-01-31T09:00:00+03:00"),
        "time_zone": ("--time-zone", "Europe/Berlin"),
    }
    options = [part for option in fields.values() for part in option]
    options += ["--urgent", "--metadata", "campaign=4=2", "--metadata", "team="]

    code, stdout, _ = await run(place, "publish", "+12025550100", "Hello", *options)

    assert (code, stdout) == (0, "order-7\n")
    [request] = await place.requests(1)
    assert request == {
        "to_number": "+12025550100",
        "text_to_pronounce": "Hello",
        "urgent": True,
        "metadata": {"campaign": "4=2", "team": ""},
        **{name: value for name, (_, value) in fields.items()},
    }


def lines_of(*ids: str) -> bytes:
    common = {"to_number": "+12025550100", "text_to_pronounce": "Hello"}
    return b"\n\n".join(json.dumps({"request_id": each} | common).encode() for each in ids)


async def test_publish_takes_json_lines_from_a_file_and_leaves_blank_ones_out(
    place: Place, tmp_path: Path
) -> None:
    tmp_path.joinpath("calls.jsonl").write_bytes(lines_of("a", "b"))

    assert await run(place, "publish", "calls.jsonl") == (0, "a\nb\n", "")
    assert [each["request_id"] for each in await place.requests(2)] == ["a", "b"]


async def test_publish_takes_json_lines_from_stdin(place: Place) -> None:
    assert await run(place, "publish", "-", stdin=lines_of("a", "b")) == (0, "a\nb\n", "")
    assert [each["request_id"] for each in await place.requests(2)] == ["a", "b"]


async def test_invalid_lines_are_named_and_nothing_is_published(place: Place) -> None:
    stdin = lines_of("a", "b b") + b"\nHello\n"

    code, stdout, stderr = await run(place, "publish", "-", stdin=stdin)

    assert (code, stdout) == (1, "")
    assert stderr.splitlines()[0] == "Error: nothing was published"
    assert [line.partition(": ")[0] for line in stderr.splitlines()[1:]] == ["line 3", "line 4"]
    assert await place.waiting() == 0


async def test_before_a_worker_ever_ran_publish_says_to_start_one(place: Place) -> None:
    async with await connect(place.url, "tests") as connection:
        channel = await connection.channel()
        await channel.queue_delete(place.topology.requests.name)

    code, stdout, stderr = await run(place, "publish", "+12025550100", "Hello")

    assert (code, stdout) == (1, "")
    assert stderr.startswith("Error: not published (unroutable: call.requested): ")
    assert "start the worker once" in stderr


@pytest.mark.parametrize(
    "wait",
    [
        pytest.param([], id="at once"),
        pytest.param(["--wait"], id="waiting"),
    ],
)
async def test_where_even_the_exchange_is_missing_publish_says_to_start_a_worker(
    place: Place, wait: list[str]
) -> None:
    async with await connect(place.url, "tests") as connection:
        channel = await connection.channel()
        await channel.exchange_delete(place.topology.exchange)

    code, stdout, stderr = await run(place, "publish", "+12025550100", "Hello", *wait)

    assert (code, stdout) == (1, "")
    assert len(stderr.splitlines()) == 1
    assert "worker" in stderr


ENDS = {STARTED: 0, FAILED: 1}


@pytest.mark.parametrize(("kind", "exit_code"), ENDS.items(), ids=ENDS)
async def test_publish_waits_for_the_event_and_its_exit_tells_which(
    place: Place, kind: str, exit_code: int
) -> None:
    arguments = ("publish", "+12025550100", "Hello", "--wait", "--request-id", "mine")
    waiting = asyncio.create_task(run(place, *arguments))
    await place.requests(1)  # it was published, so its event is listened for

    await place.say(kind, b"no JSON")
    await place.announce(kind, request_id="another's")
    await place.announce(kind, request_id="mine")

    code, stdout, stderr = await waiting
    assert (code, stderr) == (exit_code, "")
    assert json.loads(stdout) == {"request_id": "mine", "type": kind}


async def test_publish_does_not_wait_for_ever(place: Place) -> None:
    arguments = ("--wait", "--within", "0.1", "--request-id", "mine")

    code, stdout, stderr = await run(place, "publish", "+12025550100", "Hello", *arguments)

    assert (code, stdout) == (1, "")
    assert stderr == (
        "Error: mine: no event within 0.1 s: it may wait in a queue; `events` shows more\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT], ids=["Ctrl-C"])
async def test_events_are_json_lines_until_ctrl_c(place: Place, number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "events",
        env=place.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert await process.stderr.readline() == b"listening\n"

    await place.announce(STARTED, request_id="a", text="Привет")
    await place.announce(FAILED, request_id="b")
    await place.say(STARTED, b"no JSON\x1b[2J")
    lines = [(await process.stdout.readline()).decode() for _ in range(3)]
    process.send_signal(number)
    _, stderr = await process.communicate()

    assert [json.loads(line) for line in lines] == [
        {"request_id": "a", "text": "Привет", "type": STARTED},
        {"request_id": "b", "type": FAILED},
        {"body": "no JSON\x1b[2J", "type": STARTED},
    ]
    assert "Привет" in lines[0]
    assert "\x1b" not in lines[2]
    assert process.returncode in (0, 1, 130)
    assert b"Traceback" not in stderr


SLOW_LOOK_UPS = """
import socket, time
look_up = socket.getaddrinfo
def slow(host, *args, **options):
    time.sleep(60 if host.endswith(".invalid") else 0)
    return look_up(host, *args, **options)
socket.getaddrinfo = slow
"""


def test_a_name_server_that_does_not_answer_holds_up_no_end(
    tmp_path: Path, call_consumer: Callable[..., Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.joinpath("sitecustomize.py").write_text(SLOW_LOOK_UPS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = call_consumer("events", rabbitmq_url="amqp://u:p@broker.invalid/")

    assert command.process.wait(20) == 1
    assert "no broker answers at broker.invalid:5672 (no answer in time)" in (
        command.stderr.read_text()
    )


@contextlib.contextmanager
def sandbox(*arguments: str) -> Iterator[str]:
    with subprocess.Popen(
        [COMMAND, "sandbox", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def test_the_sandbox_prints_the_address_that_the_worker_needs() -> None:
    with sandbox("--port", "0") as address:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/rest/1/sandbox-not-a-secret/", address)
        answer = httpx.get(f"{address}server.time")

    assert answer.status_code == 200


@pytest.mark.parametrize("host", ["localhost", "::"])
def test_the_sandbox_listens_over_both_families(host: str) -> None:
    with sandbox("--port", "0", "--host", host) as address:
        port = httpx.URL(address).port
        answers = [httpx.get(f"http://{ip}:{port}/sandbox") for ip in ("127.0.0.1", "[::1]")]

    assert [answer.status_code for answer in answers] == [200, 200]


def test_the_sandbox_at_an_address_of_ipv6_prints_it_in_brackets() -> None:
    with sandbox("--port", "0", "--host", "::1") as address:
        assert address.startswith("http://[::1]:")
        assert httpx.get(f"{address}server.time").status_code == 200


def test_a_port_that_is_taken_is_said_without_a_traceback() -> None:
    with sandbox("--port", "0") as address:
        port = str(httpx.URL(address).port)
        done = subprocess.run(
            [COMMAND, "sandbox", "--port", port], capture_output=True, check=False, text=True
        )

    assert done.returncode == 1
    assert done.stdout == ""
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def test_each_command_is_where_the_program_looks_for_it() -> None:
    context = click.Context(cli.main)
    for name, (_, text) in cli.COMMANDS.items():
        command = cli.main.get_command(context, name)

        assert command is not None
        assert command.name == name
        assert text.endswith(".")
        assert f"  {name} " in CliRunner().invoke(cli.main, ["--help"]).stdout

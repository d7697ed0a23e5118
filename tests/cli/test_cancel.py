"""`cancel` publishes what the contract says, for just the ids that were named."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import aio_pika
import pytest
from click.testing import CliRunner, Result

from consumer.cli.main import main
from consumer.messages import CANCEL, FAILED, STARTED
from consumer.output import ids_of
from consumer.rabbitmq.outgoing import build_message
from consumer.sandbox import SandboxPortal
from tests.commands import Command
from tests.workbench import Bench


async def cancel(bench: Bench, *arguments: str, stdin: str | None = None) -> Result:
    """Run the command in this process, in a thread that has no loop yet."""
    given = {name: str(bench.given[name]) for name in ("rabbitmq_url", "exchange", "queue")}
    env = {f"CALLS_{name.upper()}": value for name, value in given.items()}
    words = ["cancel", *arguments]
    return await asyncio.to_thread(CliRunner().invoke, main, words, input=stdin, env=env)


@pytest.fixture
def cancellations(bench: Bench) -> str:
    """Name the queue of cancellations, from which no worker takes them."""
    return f"{bench.queue}.cancel"


async def test_a_cancellation_is_published_as_the_contract_has_it(
    bench: Bench, cancellations: str
) -> None:
    result = await cancel(bench, "--reason", "moved", "--", "billing:1", "billing:2")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "billing:1\nbilling:2\n", "")
    first, second = await bench.take(cancellations, 2)
    assert first.fields == {"request_id": "billing:1", "reason": "moved"}
    assert second.fields == {"request_id": "billing:2", "reason": "moved"}
    assert first.message.type == first.message.routing_key == CANCEL
    assert first.message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert first.message.content_type == "application/json"


async def test_without_a_reason_none_is_sent(bench: Bench, cancellations: str) -> None:
    await cancel(bench, "billing:1")

    (seen,) = await bench.take(cancellations)
    assert seen.fields == {"request_id": "billing:1"}


LISTS = {
    "words": "a\nb\n",
    "from Windows": "\ufeffa\r\nb\r\n\r\n",
    "requests": '{"request_id": "a", "to_number": "+12025550100"}\n{"request_id": "b"}\n',
    "dead letters": '{"id": "a", "body": {"request_id": "x"}}\n{"id": "b"}\n',
    "twice the same": "a\nb\na\n",
}


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("words", [("--ids", "ids.txt"), ("--ids", "-"), ()], ids=str)
def test_ids_come_from_a_file_or_a_pipe(text: str, words: tuple[str, ...]) -> None:
    Path("ids.txt").write_text(text)

    arguments = ["cancel", *words, "--dry-run", *(() if words else ("--", "-"))]
    result = CliRunner().invoke(main, arguments, input=text)

    assert (result.exit_code, result.stderr) == (0, "would take back 2\n")
    assert result.stdout == "a\nb\n"


async def test_a_dash_is_stdin(bench: Bench, cancellations: str) -> None:
    result = await cancel(bench, "-", stdin="a\n")

    assert result.stdout == "a\n"
    assert (await bench.take(cancellations))[0]["request_id"] == "a"


def test_an_empty_list_takes_nothing_back() -> None:
    for words in (("--ids", "-"), ("-",)):
        result = CliRunner().invoke(main, ["cancel", *words], input="\n")
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == "nothing to take back\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "name IDs"),
        (("a", "--wait"), 1, "--wait: request_id: has characters that are not allowed"),
        (("a", "b c", '{"id": 1}'), 1, '"b c": request_id: has characters that are not allowed'),
        (("--reason", "x", "a"), 2, "write -- before the ids"),
        (("--reason", " ", "--", "a"), 2, "say in a few words why"),
        (("--reason", "x" * 201, "--", "a"), 2, "200 characters at most"),
        (("--ids", "nowhere.txt"), 2, "cannot be read"),
    ],
    ids=str,
)
async def test_what_names_no_request_takes_nothing_back(
    bench: Bench, cancellations: str, words: tuple[str, ...], code: int, said: str
) -> None:
    result = await cancel(bench, *words)

    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
    assert await bench.count(cancellations) == 0


@pytest.mark.parametrize("exchange", ["", "not-there"])
async def test_without_a_queue_for_cancellations_it_says_how_one_comes_about(
    bench: Bench, cancellations: str, exchange: str
) -> None:
    bench.given["exchange"] = exchange or bench.given["exchange"]
    await bench.channel.queue_delete(cancellations)

    result = await cancel(bench, "a", "b")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "no queue is bound" in result.stderr
    assert "start a worker of this version once" in result.stderr


# With --wait


async def answer(bench: Bench, cancellations: str, **outcomes: str) -> None:
    """Take what the command publishes, and tell what became of it: a reason, or started."""
    exchange = await bench.channel.get_exchange(bench.exchange)
    for seen in await bench.take(cancellations, len(outcomes)):
        outcome = outcomes[seen["request_id"]]
        kind = STARTED if outcome == "started" else FAILED
        body = json.dumps({"request_id": seen["request_id"], "reason": outcome}).encode()
        await exchange.publish(build_message(body, {}, kind=kind), kind)


@pytest.mark.parametrize(("outcome", "code"), [("cancelled", 0), ("started", 1), ("unsure", 1)])
async def test_it_waits_for_the_event_of_each_and_fails_unless_all_are_cancelled(
    bench: Bench, cancellations: str, outcome: str, code: int
) -> None:
    result, _ = await asyncio.gather(
        cancel(bench, "--wait", "--", "a", "b"),
        answer(bench, cancellations, a="cancelled", b=outcome),
    )

    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(event["request_id"], event["reason"]) for event in events] == [
        ("a", "cancelled"),
        ("b", outcome),
    ]
    assert result.exit_code == code
    assert result.stderr == ("Error: 1 ended otherwise than cancelled\n" if code else "")


async def test_a_worker_takes_back_what_waits_and_what_has_not_come_yet(
    bench: Bench, portal: SandboxPortal, call_consumer: Callable[..., Command]
) -> None:
    given = {name: bench.given[name] for name in ("rabbitmq_url", "exchange")}
    async with bench.running():
        waits = await bench.ask(not_before="2100-01-01T00:00:00Z")
        await bench.until_count(f"{bench.queue}.delay.2s", 1)
        command = call_consumer(
            "cancel", "--wait", "--reason", "moved", "--", waits, "new", **given
        )
        await bench.until(lambda: command.code is not None)
        await bench.ask(request_id="new")
        await bench.events("new", 2)

    events = [json.loads(line) for line in command.stdout.read_text().splitlines()]
    assert command.code == 0
    assert {event["request_id"] for event in events} == {waits, "new"}
    assert {event["description"] for event in events} == {"taken back: moved"}
    assert portal.calls == []


async def test_without_an_event_in_time_it_names_those_that_have_none(
    bench: Bench, cancellations: str
) -> None:
    result = await cancel(bench, "--wait", "--within", "0.1", "--", "a")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "call-consumer show" in result.stderr
    assert "a: no event within 0.1 s" in result.stderr
    assert await bench.count(cancellations) == 1


def test_a_request_or_an_event_names_its_id() -> None:
    assert "a" in ids_of('{"request_id": "a"}')
    assert ids_of('{"request_id": 1}') == {'{"request_id": 1}'}

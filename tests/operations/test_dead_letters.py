"""Dead letters: looked at without a trace, sent back once, given up with a record."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import aclosing

import aio_pika
import pytest
from click.testing import CliRunner

from consumer.cli.main import main
from consumer.ledger import Ledger
from consumer.ledger.completions import OpenCall
from consumer.messages import REQUESTED, read_moment
from consumer.operations.choice import Choice
from consumer.operations.dead_letter import DeadLetter, Groups, masked
from consumer.operations.dead_letters import Replay, discard_letters, look, send_back
from consumer.rabbitmq.browser import DeliveriesReturned, QueueBusy, browse
from consumer.rabbitmq.losses import BrokerUnavailable
from consumer.rabbitmq.topology import topology_of
from consumer.sandbox import SandboxPortal
from tests.canary import TEXT
from tests.commands import Command
from tests.ledger.test_completions import ANSWERED
from tests.links import Link
from tests.workbench import Bench

NO_BASE_LINE = "+12025550120"
NAMED = ("rabbitmq_url", "exchange", "queue")
BAD_NUMBER = "+12025550123"


async def fail(bench: Bench, *numbers: str) -> list[str]:
    """Have requests refused, one after the other, and return their ids."""
    ids = []
    async with bench.running():
        for number in numbers:
            ids.append(await bench.ask(number))
            await bench.event(ids[-1])
    return ids


async def letters(
    bench: Bench, choice: Choice | None = None, limit: int | None = None
) -> list[DeadLetter]:
    settings = bench.settings()
    found = look(bench.given["rabbitmq_url"], topology_of(settings), choice or Choice(), limit)
    return [letter async for letter in found]


async def fill(bench: Bench, count: int) -> list[str]:
    """Put plain dead letters into the queue, without a worker."""
    for number in range(count):
        body = json.dumps(bench.request(request_id=f"r{number:04}")).encode()
        headers = {"x-failed-at": f"2026-01-01T00:00:{number % 60:02}Z", "x-reason": "refused"}
        message = aio_pika.Message(body, headers={**headers}, message_id=f"m{number}")
        await bench.channel.default_exchange.publish(message, f"{bench.queue}.dlq")
    return [f"r{number:04}" for number in range(count)]


async def sent_back(bench: Bench, how: Replay | None = None) -> list[str]:
    done: list[str] = []

    async def each(letter: DeadLetter) -> None:
        done.append(letter.id)

    chosen = {letter.key for letter in await letters(bench)}
    topology = topology_of(bench.settings())
    await send_back(bench.given["rabbitmq_url"], topology, chosen, how or Replay(), each)
    return done


async def test_looking_leaves_everything_where_it_was(bench: Bench) -> None:
    ids = await fill(bench, 60)

    for limit in (None, 5, 5, None, 20, 1, 60, None, 7):
        found = [letter.id for letter in await letters(bench, limit=limit)]
        assert found[: limit or 60] == ids[: limit or 60]

    assert [letter.id for letter in await letters(bench)] == ids


@pytest.mark.parametrize("limit", [None, 3])
async def test_an_interrupted_look_leaves_everything_where_it_was(
    bench: Bench, limit: int | None
) -> None:
    ids = await fill(bench, 40)
    await letters(bench)  # all have come back once, so that the order is the tool's to keep

    looking = look(bench.given["rabbitmq_url"], topology_of(bench.settings()), Choice(), limit)
    async with aclosing(looking):
        async for _ in looking:
            break

    assert [letter.id for letter in await letters(bench)] == ids


async def test_a_lost_link_ends_a_look_with_an_error_and_loses_nothing(
    bench: Bench, link: Link
) -> None:
    ids = await fill(bench, 40)
    choice = Choice(ids=(ids[0], ids[-1]))
    looking = look(link.url, topology_of(bench.settings()), choice, 3)

    await anext(looking)
    link.cut()

    with pytest.raises(BrokerUnavailable, match="broke"):
        await anext(looking)

    assert sorted(letter.id for letter in await letters(bench)) == ids


CHOICES: dict[str, tuple[Choice, int]] = {
    "all": (Choice(), 3),
    "by reason": (Choice(reasons=("refused",)), 2),
    "by code, in any case": (Choice(codes=("error_core",)), 2),
    "by another code": (Choice(codes=("EXPIRED",)), 0),
    "invalid ones": (Choice(reasons=("invalid",)), 1),
    "of long ago": (Choice(until=read_moment("2020-01-01T00:00:00Z")), 0),
    "since long ago": (Choice(since=read_moment("2020-01-01T00:00:00Z")), 3),
    "that came back": (Choice(replayed=True), 0),
    "that did not": (Choice(replayed=False), 3),
    "by line": (Choice(line="reg151083"), 0),
    "by description": (Choice(description="link_base_number"), 1),
}


async def test_each_filter_chooses_what_it_says(bench: Bench) -> None:
    await fail(bench, NO_BASE_LINE, BAD_NUMBER, "0")

    found = {name: len(await letters(bench, choice)) for name, (choice, _) in CHOICES.items()}

    assert found == {name: count for name, (_, count) in CHOICES.items()}


async def test_groups_say_how_many_and_what_to_do(bench: Bench) -> None:
    ids = await fail(bench, NO_BASE_LINE, NO_BASE_LINE, BAD_NUMBER)

    groups = Groups(await letters(bench)).largest_first

    assert [(g.count, g.example.id) for g in groups] == [(2, ids[0]), (1, ids[2])]
    assert "from_line" in groups[0].example.advice
    assert "--set to_number" in groups[1].example.advice


async def test_a_replay_is_dialled_once_its_cause_is_mended(
    bench: Bench, portal: SandboxPortal
) -> None:
    portal.patch({"lines": {"sip7": "Office"}})
    (request_id,) = await fail(bench, "+12025550100")
    portal.patch({"lines": {"reg151083": "Cloud"}})

    assert await sent_back(bench) == [request_id]
    async with bench.running():
        failed, started = await bench.events(request_id, 2)

    assert (failed["replay"], started["replay"]) == (0, 1)
    assert failed["event_id"] != started["event_id"]
    assert [call.to_number for call in portal.calls] == ["+12025550100"]
    assert await letters(bench) == []


async def test_a_dead_letter_of_a_request_that_was_started_is_announced_not_dialled(
    bench: Bench, portal: SandboxPortal
) -> None:
    async with bench.running():
        request_id = await bench.ask()
        first = await bench.event(request_id)
        copy = json.dumps(bench.request(request_id=request_id)).encode()
        await bench.channel.default_exchange.publish(
            aio_pika.Message(copy, message_id="m"), f"{bench.queue}.dlq"
        )
        await sent_back(bench)
        again = (await bench.events(request_id, 2))[1]
        redialled = Replay(redial=True)
        await bench.channel.default_exchange.publish(
            aio_pika.Message(copy, message_id="m2"), f"{bench.queue}.dlq"
        )
        await sent_back(bench, redialled)
        dialled_again = (await bench.events(request_id, 3))[2]

    assert first["event_id"] == again["event_id"]
    assert (again["confirmed_by"], dialled_again["confirmed_by"]) == ("ledger", "answer")
    assert len(portal.calls) == 2


async def test_an_edited_replay_goes_with_the_new_value(
    bench: Bench, portal: SandboxPortal
) -> None:
    (request_id,) = await fail(bench, NO_BASE_LINE)

    await sent_back(bench, Replay(edits={"to_number": "+12025550101"}))
    async with bench.running():
        started = (await bench.events(request_id, 2))[1]

    assert started["to_number"] == "+12025550101"
    assert [call.to_number for call in portal.calls] == ["+12025550101"]


async def test_two_operators_at_once_dial_each_request_once(
    bench: Bench, portal: SandboxPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.rabbitmq.browser.SILENCE_S", 1.0)
    monkeypatch.setattr("consumer.rabbitmq.browser.PUT_BACK_S", 1.0)
    portal.patch({"trouble": "bad number"})
    ids = await fail(bench, *(["+12025550100"] * 20))
    portal.patch({"trouble": None})

    # Whoever comes while the other has all in hand is told so, and says it again.
    for outcome in await asyncio.gather(sent_back(bench), sent_back(bench), return_exceptions=True):
        assert isinstance(outcome, list | QueueBusy)
    if await letters(bench):
        await sent_back(bench)
    async with bench.running():
        await bench.until(lambda: {e["request_id"] for e in bench.heard if e["replay"]} == set(ids))

    assert sorted(call.text for call in portal.calls) == [TEXT] * 20
    assert await letters(bench) == []


@pytest.mark.parametrize("act", ["replay", "discard"])
async def test_a_link_that_breaks_between_two_of_them_is_said(
    bench: Bench, link: Link, act: str
) -> None:
    await fill(bench, 3)
    topology = topology_of(bench.settings())
    keys = {letter.key for letter in await letters(bench)}

    async def cut(_: DeadLetter) -> None:
        link.cut()

    acting = (
        send_back(link.url, topology, keys, Replay(), cut)
        if act == "replay"
        else discard_letters(link.url, topology, keys, lambda _: link.cut())
    )
    with pytest.raises(BrokerUnavailable, match="what was in hand went back"):
        await acting
    assert len(await letters(bench)) == 3


async def test_what_the_broker_takes_back_meanwhile_is_said_with_its_cause(bench: Bench) -> None:
    await fill(bench, 2)
    keys = [letter.key for letter in await letters(bench)]

    async def delete(_: DeadLetter) -> None:
        await bench.channel.queue_delete(f"{bench.queue}.dlq")
        await asyncio.sleep(0.2)  # until the broker has told the other one, too

    with pytest.raises(DeliveriesReturned, match="the queue is gone"):
        await send_back(
            bench.given["rabbitmq_url"], topology_of(bench.settings()), keys, Replay(), delete
        )


async def test_exactly_as_many_copies_are_taken_as_were_named(bench: Bench) -> None:
    body = json.dumps(bench.request(request_id="twin")).encode()
    for _ in range(3):
        message = aio_pika.Message(body, headers={"x-reason": "refused"}, message_id="same")
        await bench.channel.default_exchange.publish(message, f"{bench.queue}.dlq")
    keys = [letter.key for letter in await letters(bench)]
    gone: list[str] = []

    await discard_letters(
        bench.given["rabbitmq_url"],
        topology_of(bench.settings()),
        keys[:2],
        lambda letter: gone.append(letter.id),
    )

    assert (len(set(keys)), gone) == (1, ["twin", "twin"])
    assert [letter.id for letter in await letters(bench)] == ["twin"]


TWINS: dict[str, tuple[dict[str, str], dict[str, aio_pika.abc.FieldValue]]] = {
    "another body": ({"text_to_pronounce": "Bye."}, {}),
    "another replay": ({}, {"x-replay": 1}),
    "another failure": ({}, {"x-failed-at": "2026-01-02T00:00:00Z"}),
    "another cause": ({}, {"x-code": "Y"}),
}


@pytest.mark.parametrize(("fields", "headers"), TWINS.values(), ids=TWINS)
async def test_a_letter_with_the_same_message_id_is_another_one(
    bench: Bench, fields: dict[str, str], headers: dict[str, aio_pika.abc.FieldValue]
) -> None:
    own: dict[str, aio_pika.abc.FieldValue] = {
        "x-reason": "refused",
        "x-code": "X",
        "x-replay": 0,
        "x-failed-at": "2026-01-01T00:00:00Z",
    }
    for more_fields, more_headers in (({}, {}), (fields, headers)):
        body = json.dumps(bench.request(request_id="r-1") | more_fields).encode()
        message = aio_pika.Message(body, headers={**own, **more_headers}, message_id="campaign-7")
        await bench.channel.default_exchange.publish(message, f"{bench.queue}.dlq")
    innocent, guilty = await letters(bench)

    await discard_letters(
        bench.given["rabbitmq_url"], topology_of(bench.settings()), [guilty.key], lambda _: None
    )

    (left,) = await letters(bench)
    assert (left.fields, left.headers) == (innocent.fields, innocent.headers)


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{", "not_json"),
    "no UTF-8": (b'"\xff"', "not_utf8"),
    "no object": (b"[]", "not_an_object"),
    "megabytes": (b'"' + b"x" * 3_000_000 + b'"', "too_large"),
}


@pytest.mark.parametrize(("body", "code"), UNREADABLE.values(), ids=UNREADABLE)
async def test_what_a_worker_rejected_because_nobody_can_read_it_is_invalid(
    bench: Bench, body: bytes, code: str
) -> None:
    exchange = await bench.channel.get_exchange(bench.exchange)
    await exchange.publish(aio_pika.Message(body), REQUESTED)
    queue = await bench.channel.get_queue(bench.queue)
    taken: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
    await queue.consume(taken.put)
    await (await taken.get()).reject(requeue=False)
    await bench.until_count(f"{bench.queue}.dlq", 1)

    (letter,) = await letters(bench)
    shown = (await said(bench, "dlq", "show", letter.id, "--unmask"))[1]

    assert (letter.reason, letter.code) == ("invalid", code)
    assert letter.description
    assert letter.failed_at is not None
    assert len(shown) < 2_000


@pytest.mark.parametrize("reason", ["refused", "exhausted", "broker", "made up by a newer version"])
@pytest.mark.parametrize("code", [None, "NEVER_HEARD_OF", "HTTP_418", "constructor"])
async def test_there_is_always_advice(bench: Bench, reason: str, code: str | None) -> None:
    headers: dict[str, aio_pika.abc.FieldValue] = {"x-reason": reason}
    if code is not None:
        headers["x-code"] = code
    message = aio_pika.Message(b"{}", headers=headers)
    await bench.channel.default_exchange.publish(message, f"{bench.queue}.dlq")

    (group,) = Groups(await letters(bench)).largest_first

    assert group.example.advice


async def test_a_look_ends_though_somebody_takes_what_it_puts_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.rabbitmq.browser.PUT_BACK_S", 0.2)
    await fill(bench, 3)
    name = f"{bench.queue}.dlq"
    queue = await bench.channel.get_queue(name)
    taken: asyncio.Queue[object] = asyncio.Queue()

    async with browse(bench.given["rabbitmq_url"], name) as browser:
        assert len([message async for message in browser.messages()]) == 3
        await queue.consume(taken.put, no_ack=True)

    await bench.until(lambda: taken.qsize() == 3)


async def test_given_up_is_gone_and_was_shown_before(bench: Bench) -> None:
    ids = await fill(bench, 5)
    seen: list[str] = []
    chosen = {letter.key for letter in await letters(bench, Choice(ids=ids[1:3]))}

    await discard_letters(
        bench.given["rabbitmq_url"],
        topology_of(bench.settings()),
        chosen,
        lambda letter: seen.append(letter.id),
    )

    assert seen == ids[1:3]
    assert [letter.id for letter in await letters(bench)] == [ids[0], *ids[3:]]


@pytest.mark.parametrize(
    ("number", "shown"),
    [("+12025550101", "+12•••••••01"), ("2025550194 2025550193", "•••"), ("12", "•••"), (5, None)],
)
def test_a_number_is_masked(number: object, shown: str | None) -> None:
    assert masked(number) == shown


WRONG_USAGES: dict[str, tuple[tuple[str, ...], int]] = {
    "replay nothing": (("replay",), 2),
    "replay all and an id": (("replay", "--all", "--", "r0001"), 2),
    "replay a filter and all": (("replay", "--code", "X", "--all"), 2),
    "replay an unknown id": (("replay", "r9999"), 1),
    "set without a value": (("replay", "--all", "--set", "from_line"), 2),
    "set the id": (("replay", "--all", "--set", "request_id=x"), 2),
    "set an unknown field": (("replay", "--all", "--set", "line=x"), 2),
    "set a bad number": (("replay", "--all", "--set", "to_number=x"), 1),
    "set bad metadata": (("replay", "--all", "--set", "metadata={"), 2),
    "set urgent to a word": (("replay", "--all", "--set", "urgent=yes"), 2),
    "set urgent to a number": (("replay", "--all", "--set", "urgent=1"), 1),
    "no rate": (("replay", "--all", "--rate", "0"), 2),
    "a time that is none": (("list", "--since", "yesterday"), 2),
    "no limit": (("list", "--limit", "0"), 2),
    "discard without a reason": (("discard", "--all"), 2),
    "discard nothing": (("discard", "--why", "x"), 2),
    "discard an unknown id": (("discard", "--why", "x", "--", "r9999"), 1),
    "discard to a folder": (("discard", "--all", "--why", "x", "--to", "/"), 2),
    "show nothing": (("show",), 2),
    "show an unknown id": (("show", "r9999"), 1),
    "an unknown command": (("purge",), 2),
    "an unknown option": (("list", "--limits", "3"), 2),
    "a limit in words": (("list", "--limit", "three"), 2),
    "a reason that is none": (("list", "--reason", "nonsense"), 2),
    "a month that is none": (("list", "--since", "2026-13-01T00:00:00Z"), 2),
    "an empty time": (("list", "--until", ""), 2),
    "an option without its value": (("list", "--line"), 2),
    "list an id": (("list", "r0001"), 2),
    "stats of so many": (("stats", "--limit", "3"), 2),
    "show two": (("show", "r0001", "r0002"), 2),
    "replay an id that the filter leaves out": (("replay", "--code", "X", "--", "r0001"), 1),
    "replay a known and an unknown id": (("replay", "r0001", "r9999"), 1),
    "a rate in words": (("replay", "--all", "--rate", "fast"), 2),
    "set a value without a field": (("replay", "--all", "--set", "=x"), 2),
    "set a field twice": (
        ("replay", "--all", "--set", "from_line=a", "--set", "from_line=b"),
        2,
    ),
    "set a time that is none": (("replay", "--all", "--set", "expires_at=tomorrow"), 1),
    "set an empty text": (("replay", "--all", "--set", "text_to_pronounce="), 1),
    "set metadata that is a list": (("replay", "--all", "--set", "metadata=[]"), 1),
    "set a zone that is none": (("replay", "--all", "--set", "time_zone=Berlin"), 1),
    "discard for an empty reason": (("discard", "--all", "--why", " "), 2),
    "discard all and an id": (("discard", "--all", "--why", "x", "--", "r0001"), 2),
    "discard without saying why": (("discard", "r0001"), 2),
    "discard into no folder": (("discard", "--all", "--why", "x", "--to", "no/such/file"), 2),
    "an hour without an offset": (("stats", "--since", "2026-01-01T00:00:00"), 2),
}


async def test_a_wrong_usage_is_one_clear_line_and_changes_nothing(bench: Bench) -> None:
    ids = await fill(bench, 3)
    given = {f"CALLS_{name.upper()}": bench.given[name] for name in NAMED}

    results = {
        # A command runs a loop of its own, so it needs a thread without one.
        name: await asyncio.to_thread(CliRunner().invoke, main, ["dlq", *arguments], env=given)
        for name, (arguments, _) in WRONG_USAGES.items()
    }

    assert {name: result.exit_code for name, result in results.items()} == {
        name: code for name, (_, code) in WRONG_USAGES.items()
    }
    for result in results.values():
        assert "Error: " in result.output
    assert [letter.id for letter in await letters(bench)] == ids


async def test_a_look_while_all_are_in_other_hands_says_so(bench: Bench) -> None:
    await fill(bench, 5)
    topology = topology_of(bench.settings())

    async with browse(bench.given["rabbitmq_url"], topology.dead_letters.name) as browser:
        await anext(browser.messages())
        listed = await said(bench, "dlq", "list")
        replayed = await said(bench, "dlq", "replay", "--all")

    for code, text in (listed, replayed):
        assert (code, "try again afterwards" in text) == (1, True)
    assert len(await letters(bench)) == 5


async def test_what_is_not_known_of_a_request_is_not_shown(bench: Bench) -> None:
    body = {"request_id": "r-1", "to": "+12025550199", "metadata": {"phone": "+12025550196"}}
    await bench.channel.default_exchange.publish(
        aio_pika.Message(json.dumps(body).encode()), f"{bench.queue}.dlq"
    )

    for text in (
        await said(bench, "dlq", "list", "--json"),
        await said(bench, "dlq", "show", "r-1"),
    ):
        assert "2025550" not in text[1]


async def test_a_plan_names_each_cause_and_what_will_not_help(bench: Bench) -> None:
    await fail(bench, NO_BASE_LINE, BAD_NUMBER, "0")

    plan = (await said(bench, "dlq", "replay", "--all", "--dry-run"))[1]
    some = (
        await said(
            bench,
            *("dlq", "replay", "--description", "link_base", "--reason", "invalid"),
            *("--set", "to_number=+12025550101", "--dry-run"),
        )
    )[1]

    assert "1 refused ERROR_CORE: Making infocall using LINK_BASE_NUMBER" in plan
    assert "1 refused ERROR_CORE: Phone number is not correct" in plan
    assert "cannot be read and will fail again" in plan
    assert "nothing to replay" in some


async def test_nothing_is_said_where_nothing_is(bench: Bench) -> None:
    for command in ("list", "stats"):
        assert "no dead letters" in (await said(bench, "dlq", command))[1]


async def test_a_replay_that_is_interrupted_says_how_far_it_came(
    bench: Bench, call_consumer: Callable[..., Command]
) -> None:
    await fill(bench, 30)
    given = {name: bench.given[name] for name in NAMED}

    replay = call_consumer(
        *("dlq", "replay", "--all", "--rate", "5", "--set", "from_line=reg1"), **given
    )
    await bench.until(lambda: len(replay.stdout.read_text().splitlines()) >= 3)
    replay.process.send_signal(signal.SIGINT)
    await bench.until(lambda: replay.code is not None)

    sent = len(replay.stdout.read_text().splitlines())
    told = replay.stderr.read_text()
    assert replay.code == 1
    assert f"replayed {sent} of 30; the others are still dead letters" in told
    assert '"event": "dead_letters.edited"' in told
    assert len(await letters(bench)) in (30 - sent, 31 - sent)


async def test_discard_keeps_what_publish_takes(
    bench: Bench, call_consumer: Callable[..., Command], tmp_path: object
) -> None:
    await fill(bench, 3)
    given = {name: bench.given[name] for name in NAMED}
    kept = f"{tmp_path}/kept.jsonl"

    discard = call_consumer("dlq", "discard", "--all", "--why", "over", "--to", kept, **given)
    await bench.until(lambda: discard.code is not None)
    publish = call_consumer("publish", kept, **given)
    await bench.until(lambda: publish.code is not None)

    assert (discard.code, publish.code) == (0, 0)
    assert '"event": "dead_letter.discarded"' in discard.stderr.read_text()
    assert publish.stdout.read_text().split() == ["r0000", "r0001", "r0002"]
    assert os.stat(kept).st_mode & 0o077 == 0  # noqa: PTH116
    assert await letters(bench) == []


async def said(bench: Bench, *arguments: str) -> tuple[int, str]:
    """Run a command in this process, and return its exit code and what it said."""
    names = (*NAMED, "bitrix24_url", "ledger_url", "default_line")
    given = {f"CALLS_{name.upper()}": str(bench.given[name]) for name in names}
    given["CALLS_RETRY_DELAYS_S"] = ",".join(map(str, bench.given["retry_delays_s"]))
    result = await asyncio.to_thread(CliRunner().invoke, main, arguments, env=given)
    return result.exit_code, result.output


async def test_an_operator_reads_what_failed_why_and_what_to_do(bench: Bench) -> None:
    first, _, third = await fail(bench, NO_BASE_LINE, NO_BASE_LINE, BAD_NUMBER)

    listed = await said(bench, "dlq", "list")
    exported = await said(bench, "dlq", "list", "--json", "--unmask", "--limit", "1")
    grouped = await said(bench, "dlq", "stats")
    grouped_json = await said(bench, "dlq", "stats", "--json")
    shown = await said(bench, "dlq", "show", third)

    assert listed[1].splitlines()[0].split() == [
        *("ID", "FAILED", "AT", "(UTC)", "REASON", "CODE", "REPLAYS", "NUMBER", "DESCRIPTION")
    ]
    assert "+12•••••••20" in listed[1]
    assert json.loads(exported[1])["request"]["to_number"] == NO_BASE_LINE
    assert grouped[1].startswith("2 refused ERROR_CORE: Making infocall using LINK_BASE_NUMBER")
    assert f"for example {first}" in grouped[1]
    assert json.loads(grouped_json[1].splitlines()[0])["count"] == 2
    assert "ledger: failed, attempt 1, replay 0" in shown[1]
    assert {code for code, _ in (listed, exported, grouped, grouped_json, shown)} == {0}


async def test_show_tells_how_the_latest_call_ended(bench: Bench) -> None:
    (request_id,) = await fail(bench, NO_BASE_LINE)
    ledger = Ledger(bench.given["ledger_url"], bench.queue)
    await ledger.open()
    await ledger.completions.follow()
    await ledger.completions.lease.beat("me", at_once=False)
    call = OpenCall(request_id, 0, "call-1", 1_795_782_600.0, None)
    await ledger.completions.note(call, ANSWERED, time.time())
    await ledger.close()

    code, shown = await said(bench, "dlq", "show", request_id)

    assert code == 0
    assert shown.splitlines()[-1] == (
        "latest call that ended: answered, 12.5 s; replay 0, started at 2026-11-27T12:30:00.000Z"
    )


async def test_a_replay_is_planned_before_it_is_done(bench: Bench, portal: SandboxPortal) -> None:
    (request_id,) = await fail(bench, NO_BASE_LINE)

    plan = await said(bench, "dlq", "replay", "--all", "--dry-run")
    left = len(await letters(bench))
    done = await said(bench, "dlq", "replay", "--set", "to_number=+12025550101", "--", request_id)
    async with bench.running():
        started = (await bench.events(request_id, 2))[1]
    again = await said(bench, "dlq", "replay", "--all")

    assert (plan[0], done[0], again[0], left) == (0, 0, 0, 1)
    assert "1 dead letter, about" in plan[1]
    assert "would replay 1" in plan[1]
    assert "replayed 1" in done[1]
    assert started["to_number"] == "+12025550101"
    assert [call.to_number for call in portal.calls] == ["+12025550101"]


async def test_the_plan_names_what_expired_came_back_or_was_started(bench: Bench) -> None:
    async with bench.running():
        request_id = await bench.ask()
        await bench.event(request_id)
    body = bench.request(request_id=request_id, expires_at="2020-01-01T00:00:00Z")
    message = aio_pika.Message(
        json.dumps(body).encode(),
        headers={"x-replay": 1, "x-failed-at": "2020-01-01T00:00:00Z"},
        message_id="m",
    )
    await bench.channel.default_exchange.publish(message, f"{bench.queue}.dlq")

    code, plan = await said(bench, "dlq", "replay", "--all", "--dry-run")

    assert code == 0
    for word in ("expired and will fail again", "came back after a replay", "already started"):
        assert word in plan


async def test_discard_says_first_what_it_would_do(bench: Bench) -> None:
    await fill(bench, 2)

    code, plan = await said(bench, "dlq", "discard", "--all", "--why", "over", "--dry-run")

    assert (code, plan.split()[-3:]) == (0, ["would", "discard", "2"])
    assert len(await letters(bench)) == 2


async def test_nothing_that_the_portal_names_acts_on_a_terminal(
    bench: Bench, portal: SandboxPortal
) -> None:
    portal.patch({"lines": {"a\x1b[2J  b": "first\r\nFORGED\u202e", "reg1": "plain"}})

    code, told = await said(bench, "lines")
    as_json = await said(bench, "lines", "--json")

    assert (code, told) == (
        0,
        '"a\\u001b[2J  b"  first\\u000d\\u000aFORGED\\u202e\nreg1  plain\n',
    )
    assert list(json.loads(as_json[1])) == ["a\x1b[2J  b", "reg1"]
    assert as_json[1].rstrip("\n").isprintable()


async def test_lines_voices_and_check_are_printed(bench: Bench, portal: SandboxPortal) -> None:
    lines = await said(bench, "lines")
    voices = await said(bench, "voices", "--json")
    check = await said(bench, "check")
    portal.patch({"secret": "changed"})
    refused = await said(bench, "lines")
    wrong = await said(bench, "check")

    assert lines == (
        0,
        "reg151083  Cloud PBX (9)\nsip7  Office PBX 1\n74950000000  +7 495 000-00-00\n",
    )
    assert "usenglishmale" in json.loads(voices[1])
    assert check[0] == 0
    assert refused[0] == 1
    assert "INVALID_CREDENTIALS" in refused[1]
    assert wrong[0] == 1
    assert "-> Make a new inbound webhook" in wrong[1]

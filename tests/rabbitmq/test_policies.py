"""A broker that others administer: what their policies do to dead letters, and that it is seen."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any

import aio_pika
import pytest
from structlog.testing import capture_logs

from consumer import heartbeat, housekeeping
from consumer.demo.broker import PrivateNode
from consumer.messages import REQUESTED
from consumer.metrics import REGISTRY
from consumer.operations.check import check
from consumer.operations.choice import Choice
from consumer.operations.dead_letter import DeadLetter
from consumer.operations.dead_letters import Replay, discard_letters, look, send_back
from consumer.rabbitmq.losses import BrokerUnavailable
from consumer.rabbitmq.policies import Setting
from consumer.rabbitmq.topology import topology_of
from tests.links import linked
from tests.workbench import Bench

CONSUMER_TIMEOUT = (
    "application:set_env(rabbit, channel_tick_interval, {tick_ms}), "
    "application:set_env(rabbit, consumer_timeout, {timeout_ms})."
)


@pytest.fixture(scope="module")
def rabbitmq_url(node: PrivateNode) -> str:
    """Put every fixture of this module on a broker whose policies are ours to set."""
    return node.url


@contextmanager
def policy(node: PrivateNode, definition: dict[str, Any], pattern: str = ".*") -> Iterator[None]:
    words = [erlang(word) for word in (pattern, json.dumps(definition), "0", "queues", "tests")]
    set_it = f'rabbit_policy:parse_set(<<"/">>, <<"somebodys">>, {", ".join(words)}).'
    assert evaluate(node, set_it) == "ok"
    try:
        yield
    finally:
        evaluate(node, 'rabbit_policy:delete(<<"/">>, <<"somebodys">>, <<"tests">>).')


def erlang(text: str) -> str:
    return f"<<{json.dumps(text)}>>"


def evaluate(node: PrivateNode, code: str) -> str:
    """Evaluate *code* as `rabbitmqctl eval` does, which takes a hundred times the processor."""
    erl_call = shutil.which("erl_call")
    if erl_call is None:
        return node.ctl("eval", code).strip()
    cookie = node.directory.joinpath(".erlang.cookie").read_text()
    environment = node._environment  # noqa: SLF001  # the node's name, and where its epmd is
    done = subprocess.run(
        [erl_call, "-c", cookie, "-n", environment["RABBITMQ_NODENAME"], "-e"],
        env=environment,
        input=f"{code}\n",
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.removeprefix("{ok, ").removesuffix("}")


async def letters(bench: Bench, choice: Choice | None = None) -> list[DeadLetter]:
    topology = topology_of(bench.settings())
    found = look(bench.given["rabbitmq_url"], topology, choice or Choice())
    return [letter async for letter in found]


async def ids(bench: Bench) -> list[str]:
    return sorted(letter.id for letter in await letters(bench))


async def fill(bench: Bench, count: int) -> list[str]:
    for number in range(count):
        body = json.dumps(bench.request(request_id=f"r{number:04}")).encode()
        headers: dict[str, Any] = {
            "x-reason": "refused",
            "x-code": "X",
            "x-failed-at": "2026-01-01T00:00:00Z",
            "x-first-seen-at": "2026-01-01T00:00:00Z",
            "x-replay": 2,
        }
        message = aio_pika.Message(body, headers=headers, message_id=f"m{number}")
        await bench.channel.default_exchange.publish(message, f"{bench.queue}.dlq")
    return [f"r{number:04}" for number in range(count)]


def hits(setting: Setting) -> float:
    return REGISTRY.get_sample_value("call_consumer_policy_hits_total", {"setting": setting}) or 0


@pytest.mark.parametrize("set_first", [True, False])
@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_looking_destroys_nothing_whatever_the_delivery_limit(
    bench: Bench, node: PrivateNode, limit: int, *, set_first: bool
) -> None:
    if not set_first:
        expected = await fill(bench, 25)
    with policy(node, {"delivery-limit": limit}):
        if set_first:
            expected = await fill(bench, 25)
        before = await letters(bench)

        for _ in range(5):
            assert await ids(bench) == expected
        keys = [letter.key for letter in before]
        url, topology = bench.given["rabbitmq_url"], topology_of(bench.settings())
        gone: list[str] = []
        await discard_letters(url, topology, keys[:5], lambda letter: gone.append(letter.id))
        await send_back(url, topology, keys[5:10], Replay(), ignore)

        assert gone == expected[:5]
        assert await ids(bench) == expected[10:]
        assert await bench.count(bench.queue) == 5


async def ignore(_: DeadLetter) -> None:
    pass


async def test_a_worker_brings_back_what_was_evicted_and_says_so(
    bench: Bench, node: PrivateNode
) -> None:
    expected = await fill(bench, 10)
    before = await letters(bench)
    seen = hits("delivery-limit")
    with capture_logs() as logs, policy(node, {"delivery-limit": 0}):
        await letters(bench)
        async with bench.running() as app:
            await bench.until_count(f"{bench.queue}.dlq", len(expected))
            part = app.parts()["policies"]

    assert part.ok
    assert part.detail == f"a policy sets delivery-limit on {bench.queue}.dlq"
    assert hits("delivery-limit") == seen + 10
    (line,) = [line for line in logs if line["event"] == "policy.seen"]
    assert (line["log_level"], line["setting"]) == ("error", "delivery-limit")
    after = await letters(bench)
    assert {x.key for x in after} == {x.key for x in before}
    for message in await bench.dead_letters(10):
        assert set(message.headers) - {"x-delivery-count", "x-acquired-count"} == {
            *("x-reason", "x-code", "x-failed-at", "x-first-seen-at", "x-replay")
        }


async def test_dead_letters_outlive_a_message_ttl_while_a_worker_runs(
    bench: Bench, node: PrivateNode
) -> None:
    seen = hits("message-ttl")
    async with bench.running():
        with policy(node, {"message-ttl": 300}):
            expected = await fill(bench, 10)
            await bench.until(lambda: hits("message-ttl") >= seen + 30)  # each, three times

        await bench.until_count(f"{bench.queue}.dlq", 10)
    async with asyncio.timeout(30):
        # A queue may hear later that its policy is gone: then the first look misses some.
        while await ids(bench) != expected:
            pass


async def test_no_letter_is_dropped_where_no_more_fit_and_that_is_seen(
    bench: Bench, node: PrivateNode
) -> None:
    expected = await fill(bench, 8)
    seen = hits("max-length")
    async with bench.running() as app:
        with policy(node, {"max-length": 5}, f"^{re.escape(bench.queue)}[.]dlq$"):
            failing = await bench.ask("+12025550123")
            await bench.until(lambda: hits("max-length") > seen)
            part = app.parts()["policies"]
        await bench.event(failing)

    assert f"max-length on {bench.queue}.dlq" in part.detail
    assert await ids(bench) == sorted([*expected, failing])


async def test_a_queue_that_a_policy_let_expire_is_seen(
    bench: Bench, node: PrivateNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "TEND_S", 0.2)
    seen = hits("expires")
    async with bench.running() as app:
        with policy(node, {"expires": 500}, f"^{re.escape(bench.queue)}[.]delay"):
            await bench.until(lambda: hits("expires") > seen)

        assert "expires on" in app.parts()["policies"].detail


SMALL: dict[str, tuple[dict[str, Any], str]] = {
    "no looks": ({"delivery-limit": 0}, "delivery-limit 0"),
    "few looks": ({"delivery-limit": 3}, "delivery-limit 3"),
    "few letters": ({"max-length": 5}, "max-length"),
    "the newest letters": (
        {"max-length": 5, "overflow": "drop-head"},
        "max-length with overflow drop-head",
    ),
    "both": ({"max-length": 5, "delivery-limit": 2}, "max-length, delivery-limit 2"),
    "little room": ({"max-length-bytes": 100_000}, "max-length-bytes"),
    "little room for the newest": (
        {"max-length-bytes": 100_000, "overflow": "drop-head"},
        "max-length-bytes with overflow drop-head",
    ),
    "no time": ({"message-ttl": 0}, "message-ttl or max-length so low that nothing stays"),
}


@pytest.mark.parametrize(("definition", "told"), SMALL.values(), ids=SMALL)
async def test_check_names_a_small_limit_and_leaves_no_queue(
    bench: Bench, node: PrivateNode, definition: dict[str, Any], told: str
) -> None:
    settings = bench.settings()
    with policy(node, definition):
        found = {x.item: x async for x in check(settings, topology_of(settings))}["policies"]

    assert (found.state, found.detail) == ("warning", f"one sets {told}")
    names = evaluate(node, "[binary_to_list(element(4, Q)) || Q <- rabbit_amqqueue:list_names()].")
    assert bench.queue in names
    assert "check-" not in names


async def test_check_tells_what_a_worker_has_met_and_no_look_can_find(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "LOOK_S", 0.05)
    monkeypatch.setattr(housekeeping, "TEND_S", 0.2)
    settings = bench.settings()
    expected = f"workers have met expires on {bench.queue}.dlq"
    async with bench.running(), asyncio.timeout(20):
        await bench.channel.queue_delete(f"{bench.queue}.dlq")
        found = ""
        while expected not in found:
            findings = check(settings, topology_of(settings))
            found = {x.item: x.detail async for x in findings}["policies"]

    assert found == expected


DEATHS: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"message-ttl": 50}, "message-ttl"),
    "maxlen": ({"max-length": 0, "overflow": "drop-head"}, "max-length"),
    "delivery_limit": ({"delivery-limit": 0}, "delivery limit"),
    "rejected": ({"max-length": 1000}, "worker.bug"),
}


@pytest.mark.parametrize(("code", "definition", "hint"), [(c, *d) for c, d in DEATHS.items()])
async def test_what_the_broker_says_of_its_own_dead_letters_is_passed_on(
    bench: Bench, node: PrivateNode, code: str, definition: dict[str, Any], hint: str
) -> None:
    with policy(node, definition, f"^{re.escape(bench.queue)}$"):
        asked = await bench.ask()
        if code in {"delivery_limit", "rejected"}:
            await turn_down(bench, requeue=code == "delivery_limit")
        await bench.until_count(f"{bench.queue}.dlq", 1)

    (letter,) = await letters(bench, Choice(codes=(code,)))

    assert (letter.id, letter.reason, letter.code) == (asked, "broker", code)
    assert hint in letter.advice
    assert letter.failed_at is not None
    assert letter.failed_at.startswith("20")
    assert letter.description


async def turn_down(bench: Bench, *, requeue: bool) -> None:
    queue = await bench.channel.get_queue(bench.queue)
    taken: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
    tag = await queue.consume(taken.put)
    message = await taken.get()
    await queue.cancel(tag)
    await message.reject(requeue=requeue)


@pytest.mark.parametrize("evicted", [True, False])
async def test_what_upstream_wrote_into_our_headers_is_not_believed(
    bench: Bench, node: PrivateNode, *, evicted: bool
) -> None:
    exchange = await bench.channel.get_exchange(bench.exchange)
    spoofed: dict[str, Any] = {
        "x-replay": 7,
        "x-unsure-since": "2026-01-01T00:00:00Z",
        "x-failed-at": "2026-01-01T00:00:00Z",
        "x-reason": "refused",
        "x-attempt": 9,
    }
    body = json.dumps(bench.request(request_id="r-1")).encode()
    await exchange.publish(aio_pika.Message(body, headers=spoofed), REQUESTED)
    await turn_down(bench, requeue=False)
    await bench.until_count(f"{bench.queue}.dlq", 1)
    if evicted:
        with policy(node, {"delivery-limit": 0}):
            await letters(bench)

    (letter,) = await letters(bench)

    assert (letter.reason, letter.code, letter.replay) == ("broker", "rejected", 0)
    assert letter.failed_at != spoofed["x-failed-at"]
    headers = Replay().headers(letter)
    assert (headers["x-replay"], headers["x-attempt"]) == (1, 1)
    assert "x-unsure-since" not in headers


@pytest.fixture
def short_consumer_timeout(node: PrivateNode) -> Iterator[None]:
    evaluate(node, CONSUMER_TIMEOUT.format(tick_ms=500, timeout_ms=3000))
    yield
    evaluate(node, CONSUMER_TIMEOUT.format(tick_ms=60_000, timeout_ms=1_800_000))


@pytest.mark.usefixtures("short_consumer_timeout")
async def test_a_slow_replay_outlasts_the_brokers_consumer_timeout(
    bench: Bench,
) -> None:
    expected = await fill(bench, 7)
    url, topology = bench.given["rabbitmq_url"], topology_of(bench.settings())
    keys = [letter.key for letter in await letters(bench)]
    sent: list[str] = []

    async def each(letter: DeadLetter) -> None:
        sent.append(letter.id)

    await send_back(url, topology, keys, Replay(), each, rate_per_s=1)

    assert sent == expected
    assert await ids(bench) == []
    assert await bench.count(bench.queue) == 7


async def test_a_look_that_is_cut_short_destroys_nothing_either(
    bench: Bench, node: PrivateNode
) -> None:
    expected = await fill(bench, 25)
    topology = topology_of(bench.settings())
    with policy(node, {"delivery-limit": 0}):
        async with linked(bench.given["rabbitmq_url"]) as link:
            for _ in range(3):
                with suppress(BrokerUnavailable):
                    async with aclosing(look(link.url, topology, Choice())) as looking:
                        await anext(looking)
                        link.cut()

        await bench.until_count(f"{bench.queue}.dlq.evicted", 25)
        assert await ids(bench) == expected

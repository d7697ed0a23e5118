"""A secret, a number and a text in every input of a worker, looked for in all that leaves it.

Every other test is looked through too: see `pytest_runtest_makereport` in conftest.py, and the
fault suite's `close_books` for the logs of its workers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest

from consumer.demo.private_node import free_ports
from tests import canary
from tests.collector import Collector, collecting
from tests.portals import ForeignPortal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.commands import Command
    from tests.workbench import Bench

QUOTED = f"https://x/rest/1/{canary.SECRET}/ cannot dial {canary.NUMBER}: {canary.TEXT}"
ANSWERS = (
    ForeignPortal.reply(400, {"error": "NEW_ERROR", "error_description": QUOTED}),
    ForeignPortal.reply(200, {"error": canary.NUMBER, "error_description": canary.SECRET}),
    ForeignPortal.reply(302, b"", f"Location: https://x/rest/1/{canary.SECRET}/"),
    ForeignPortal.reply(502, f"<title>{QUOTED}</title>".encode()),
    ForeignPortal.reply(200, {"result": {"RESULT": True, "CALL_ID": "c-1"}}),
)
INPUTS: tuple[dict[str, object], ...] = (
    {"text_to_pronounce": [canary.TEXT]},
    {"to_number": f"{canary.NUMBER}{canary.TEXT}"},
    {canary.TEXT: canary.NUMBER},
    {"metadata": {canary.NUMBER: canary.TEXT}, "expires_at": "soon"},
)
HEADERS = {
    "x-reason": canary.TEXT,
    "x-description": QUOTED,
    "tracestate": f"a={canary.SECRET}",
    "x-unsure-since": canary.NUMBER,
}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Lend a collector that a worker's traces go to."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        yield collector


async def test_no_output_of_a_worker_shows_what_was_planted(
    bench: Bench,
    foreign: ForeignPortal,
    call_consumer: Callable[..., Command],
    collector: Collector,
) -> None:
    (free_port,) = free_ports(1)
    url = foreign.url.replace("foreign-s3cret", canary.SECRET)
    settings = bench.given | {
        "bitrix24_url": url,
        "http_port": free_port,
        "retry_delays_s": "1",
        "log_level": "debug",
    }
    foreign.answers[canary.NUMBER] = list(ANSWERS)
    bench.settings()
    worker = call_consumer("run", **settings)
    ids = [await bench.ask(canary.NUMBER, text_to_pronounce=canary.TEXT) for _ in ANSWERS]
    for n, fields in enumerate(INPUTS):
        body = bench.request(canary.NUMBER, text_to_pronounce=canary.TEXT) | fields
        await bench.publish(body, HEADERS, to_queue=bool(n % 2))
    await bench.publish(canary.TEXT.encode(), HEADERS)
    await bench.publish({"request_id": canary.TEXT, "reason": canary.SECRET}, key="call.cancel")
    async with httpx.AsyncClient(trust_env=False) as client:
        await bench.until(lambda: len(bench.heard) >= len(ids) + len(INPUTS) + 2)
        pages = [
            await client.get(f"http://127.0.0.1:{free_port}/{page}")
            for page in ("livez", "readyz", "metrics")
        ]
    commands = {
        words: call_consumer(*words, **settings)
        # Of those that look at dead letters one at a time.
        for words in (("status",), ("show", ids[0]), ("dlq", "list", "--json"))
    }
    await bench.until(lambda: all(command.code is not None for command in commands.values()))
    worker.terminate()
    await bench.until(lambda: worker.code is not None)

    assert canary.seen_in(worker.stdout.read_bytes() + worker.stderr.read_bytes()) == []
    assert collector.spans
    assert canary.seen_in(b"".join(collector.bodies)) == []
    for page in pages:
        assert canary.seen_in(page.content) == []
    for event in bench.heard:  # a number goes back to who has sent it
        assert canary.seen_in(without_echo(event.message.body)) == []
        assert canary.seen_in(json.dumps(dict(event.headers), default=str)) in ([], ["secret"])
    for words, command in commands.items():
        shown = command.stdout.read_bytes() + command.stderr.read_bytes()
        assert shown, words
        assert canary.seen_in(shown) == [], words


def without_echo(body: bytes) -> bytes:
    """Leave out of an event what upstream wrote itself and gets back: number and metadata."""
    fields = json.loads(body)
    fields.pop("to_number", None)
    fields.pop("metadata", None)
    return json.dumps(fields, ensure_ascii=False).encode()


WRONG = {
    "rabbitmq_url": f"amqp://u:{canary.PASSWORD}@127.0.0.1:9/",
    "bitrix24_url": f"http://127.0.0.1:9/rest/1/{canary.SECRET}/ {canary.TEXT}",
    "ledger_url": f"postgresql://u:{canary.PASSWORD}@127.0.0.1:9/x",
    "rate_per_s": canary.SECRET,
    "oauth_client_secret": canary.TOKEN,
    canary.SECRET.replace("-", "_"): "1",
}


@pytest.mark.parametrize("name", WRONG)
async def test_no_error_about_a_setting_shows_what_was_planted(
    bench: Bench, call_consumer: Callable[..., Command], name: str
) -> None:
    settings = bench.given | {"retry_delays_s": "1,2"} | {name: WRONG[name]}
    command = call_consumer("check", **settings)
    await bench.until(lambda: command.code is not None)
    shown = command.stdout.read_bytes() + command.stderr.read_bytes()

    assert command.code
    assert canary.seen_in(shown) == []


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (f"see https://x/rest/1/{canary.SECRET}/", ["secret"]),
        ("to +1 (202) 555-0110.", ["number"]),
        ("to 2025550110", ["number"]),
        ("'Canary: your parcel waits'", ["text"]),
        ("+1 202 ***, masked", []),
    ],
)
def test_a_canary_is_found_in_any_notation(output: str, found: list[str]) -> None:
    assert canary.seen_in(output) == found

"""What `call-consumer status` says: one line first, then the details."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from consumer import heartbeat
from consumer.bitrix24.tokens import Code
from consumer.cli.status import as_object, details, summary, wrapped
from consumer.ledger.controls import Pause
from consumer.ledger.search import Waiting
from consumer.ledger.workers import WorkerState
from consumer.messages import CallOutcome
from consumer.operations.finding import Finding
from consumer.operations.login import log_in
from consumer.operations.status import Status
from consumer.rabbitmq.queue_counts import QueueCount
from consumer.rabbitmq.topology import build_topology
from consumer.sandbox import SandboxPortal
from tests.cli.test_show import NOWHERE, open_ledger, run
from tests.commands import Command
from tests.ledger.test_completions import ANSWERED, BUSY, note
from tests.ledger.test_completions import started as put_started
from tests.ledger.test_ledger import entry
from tests.ledger.test_workers import worker
from tests.workbench import Bench

TOPOLOGY = build_topology("calls", "q", [5])
AT = datetime(2026, 11, 27, 12, 30, tzinfo=UTC).timestamp()
PAUSED = WorkerState(phase="paused", pauses={"portal": "open"})
USUAL = Status(
    at=AT,
    topology=TOPOLOGY,
    allowed_per_s=5.0,
    queues={
        "q": QueueCount(2113, 1),
        "q.delay.5s": QueueCount(12, 0),
        "q.dlq": QueueCount(5, 0),
        "q.dlq.evicted": QueueCount(0, 1),
    },
    workers=[worker("a", AT), worker("b")],
    waiting=Waiting(scheduled=401, next_due_at=AT - 3.5 * 3600 + 86_400, retrying=12),
    outcomes={"started": 9, "refused": 1},
    per_s=4.9,
)


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_the_first_line_says_what_matters() -> None:
    assert " · ".join(summary(USUAL)) == (
        "paused: no · workers: 1 active, 1 standby · waiting 2,113 · "
        "scheduled 401 (next 2026-11-28 09:00) · retrying 12 · dead 5 · 4.9/s of 5 · "
        "done about 12:37"
    )


FIRST_WORDS: dict[str, tuple[Status, str]] = {
    "paused by hand": (
        replace(USUAL, pause=Pause("wrong texts", AT, "ann")),
        "paused: yes, by ann: wrong texts · ",
    ),
    "all paused": (
        replace(USUAL, workers=[replace(worker(), state=PAUSED)]),
        "paused: yes, portal",
    ),
    "one paused": (
        replace(USUAL, workers=[worker(), replace(worker("b"), state=PAUSED)]),
        "paused: 1 of 2, portal · workers: 1 active, 1 paused · ",
    ),
    "nobody": (
        replace(USUAL, workers=[], queues={}),
        "paused: no · workers: none · waiting unknown · ",
    ),
    "of another version": (
        replace(USUAL, workers=[]),
        "paused: no · workers: 1 registered · ",
    ),
    "no ledger": (
        replace(USUAL, workers=[], ledger_trouble="gone"),
        "paused: unknown · workers: 1 registered · waiting 2,113 · dead 5",
    ),
}


@pytest.mark.parametrize(("found", "begins"), FIRST_WORDS.values(), ids=FIRST_WORDS)
def test_a_pause_and_the_workers_come_first(found: Status, begins: str) -> None:
    assert " · ".join(summary(found)).startswith(begins)


DONE: dict[str, tuple[Status, str]] = {
    "at this pace": (replace(USUAL, per_s=1.0), "done about 13:05"),
    "tomorrow": (replace(USUAL, per_s=0.05), "done about 2026-11-28 00:14"),
    "with no calls": (replace(USUAL, per_s=0.0), "done: cannot be told"),
    "while paused": (replace(USUAL, pause=Pause("x", AT, "ann")), "done: cannot be told"),
    "with nothing left": (replace(USUAL, queues={"q": QueueCount(0, 1)}), "nothing waits"),
}


@pytest.mark.parametrize(("found", "last"), DONE.values(), ids=DONE)
def test_it_says_when_the_backlog_will_be_done(found: Status, last: str) -> None:
    assert list(summary(found))[-1] == last


def test_it_fits_on_a_terminal_and_stays_one_line_in_a_pipe() -> None:
    parts = list(summary(USUAL))

    assert [len(line) <= 80 for line in wrapped(parts, 80)] == [True, True, True]
    assert wrapped(parts, 0) == [" · ".join(parts)]


def test_programs_get_the_same() -> None:
    told = json.loads(as_object(USUAL))

    assert (told["paused"], told["waiting"], told["dead"]) == (False, 2113, 5)
    assert [each["role"] for each in told["workers"]] == ["active", "standby"]
    assert told["next_due_at"] == "2026-11-28T09:00:00.000Z"
    assert told["today"] == {"started": 9, "refused": 1}


ENDED: dict[str, tuple[Mapping[CallOutcome, int], str, float | None]] = {
    "most of them": (
        {"answered": 840, "no_answer": 296, "busy": 1, "unknown": 3},
        (
            "answered: 74% of 1,137 that ended today · 840 answered · 296 no answer · 1 busy"
            " · 3 not in the call history"
        ),
        0.7388,
    ),
    "nobody": ({"busy": 2}, "answered: 0% of 2 that ended today · 2 busy", 0.0),
    "nothing is shown": ({"unknown": 2}, "answered: unknown · 2 not in the call history", None),
}


@pytest.mark.parametrize(("endings", "line", "share"), ENDED.values(), ids=ENDED)
def test_it_says_how_many_picked_up_today(
    endings: Mapping[CallOutcome, int], line: str, share: float | None
) -> None:
    found = replace(USUAL, endings=endings)

    assert list(details(found)) == ["today: 9 started · 1 refused", line]
    told = json.loads(as_object(found))
    assert (told["ended_today"], told["answered_share"]) == (endings, share)


TOKENS = {
    "well": (Finding("login", "ok", "1 min old"), "tokens: ok, 1 min old"),
    "missing": (
        Finding("login", "wrong", "nobody has logged in yet", "run `call-consumer login`"),
        "tokens: wrong, nobody has logged in yet: run `call-consumer login`",
    ),
}


@pytest.mark.parametrize(("tokens", "line"), TOKENS.values(), ids=TOKENS)
def test_it_says_how_the_tokens_are(tokens: Finding, line: str) -> None:
    found = replace(USUAL, tokens=tokens)

    assert list(details(found))[-1] == line
    assert json.loads(as_object(found))["tokens"]["state"] == tokens.state
    assert json.loads(as_object(USUAL))["tokens"] is None


@pytest.fixture(params=["a file", "PostgreSQL"])
def stored(request: pytest.FixtureRequest, bench: Bench) -> Bench:
    if request.param == "PostgreSQL":
        bench.given["ledger_url"] = request.getfixturevalue("database_url")
    return bench


async def test_a_running_worker_and_its_requests_are_seen(
    stored: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "LOOK_S", 0.02)
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.02)
    ledger = await open_ledger(stored)
    await ledger.put(entry("w", state="delayed", scheduled="not_before", due_at=4e9), None)
    await ledger.close()
    async with stored.running(rate_per_s=50):
        await stored.event(await stored.ask())
        await stored.event(await stored.ask(from_line="reg404"))
        await stored.until_count(f"{stored.queue}.dlq", 1)

        told = json.loads((await run(stored, "status", "--json")).stdout)
        shown = await run(stored, "status")

    assert (told["paused"], told["waiting"], told["dead"]) == (False, 0, 1)
    assert (told["scheduled"], told["next_due_at"]) == (1, "2096-10-02T07:06:40.000Z")
    assert told["today"] == {"started": 1, "refused": 1}
    assert [(each["role"], each["pauses"]) for each in told["workers"]] == [("active", {})]
    assert (told["allowed_per_s"], told["broker"], told["ledger"]) == (50, None, None)
    assert 0 < told["per_s"] <= 0.4
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[0].startswith(
        "paused: no · workers: 1 active · waiting 0 · scheduled 1 (next 2096-10-02 07:06) · "
    )
    assert any(line.endswith("  active") for line in lines)
    assert lines[-1] == "today: 1 started · 1 refused"


async def test_todays_endings_are_read_from_the_ledger(stored: Bench) -> None:
    ledger = await open_ledger(stored)
    await ledger.completions.follow()
    await ledger.completions.lease.beat("me", at_once=False)
    for request_id, ending in {"long": ANSWERED, "short": BUSY, "other": BUSY}.items():
        await put_started(ledger, request_id)
        await note(ledger, request_id, ending)
    await ledger.close()

    shown = await run(stored, "status")
    told = json.loads((await run(stored, "status", "--json")).stdout)

    assert shown.stdout.splitlines()[-1] == (
        "answered: 33% of 3 that ended today · 2 busy · 1 answered"
    )
    assert (told["ended_today"], told["answered_share"]) == ({"busy": 2, "answered": 1}, 0.3333)


async def test_the_tokens_are_looked_at_and_not_renewed(
    stored: Bench, portal: SandboxPortal, portal_url: str
) -> None:
    root = portal_url.partition("/rest/")[0]
    given = {
        "bitrix24_url": f"{root}/rest/",
        "oauth_client_id": portal.switches.client_id,
        "oauth_client_secret": portal.switches.client_secret,
        "oauth_server_url": f"{root}/",
    }
    await (await open_ledger(stored)).close()
    missing = (await run(stored, "status", **given)).stdout.splitlines()[-1]
    await log_in(stored.settings(**given), Code(portal.oauth.code()))
    portal.oauth.expire()

    there = (await run(stored, "status", **given)).stdout.splitlines()[-1]

    assert missing == "tokens: wrong, run `call-consumer login`; nobody has logged in yet"
    assert there.startswith("tokens: ok, access token 0 min old; refresh token 0 of 180 days old; ")
    assert portal.oauth.tally["refreshes"] == 0


async def test_what_cannot_be_asked_is_said_and_the_rest_is_told(bench: Bench) -> None:
    without_ledger = await run(bench, "status", ledger_url="sqlite:///nowhere.db")
    assert without_ledger.exit_code == 0
    assert without_ledger.stdout.startswith(
        "paused: unknown · workers: none · waiting 0 · dead 0\n"
    )
    assert without_ledger.stderr.startswith("ledger: nowhere.db holds no ledger")

    without_broker = await run(bench, "status", rabbitmq_url=NOWHERE)
    assert without_broker.exit_code == 0
    assert "waiting unknown · scheduled 0 · retrying 0 · dead unknown · " in without_broker.stdout
    assert without_broker.stderr.startswith("broker: no broker answers at ")

    neither = await run(bench, "status", rabbitmq_url=NOWHERE, ledger_url="sqlite:///nowhere.db")
    assert neither.exit_code == 1


async def test_it_is_said_again_until_it_is_told_to_stop(
    bench: Bench, call_consumer: Callable[..., Command]
) -> None:
    names = ("rabbitmq_url", "exchange", "queue", "ledger_url")
    given = {name: bench.given[name] for name in names}

    watching = call_consumer("status", "--watch", "--json", **given)

    await bench.until(lambda: watching.stdout.read_text().count("\n") >= 2)
    watching.terminate()

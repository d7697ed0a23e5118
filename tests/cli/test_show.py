"""What `call-consumer show` says of requests, whatever became of them."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from consumer.cli.main import main
from consumer.ledger import Entry, Ledger
from consumer.ledger.letter_acts import LetterAct
from consumer.messages import CallOutcome
from consumer.operations.proof import total
from consumer.operations.report import Around, Report
from tests.ledger.test_completions import ANSWERED, BUSY, note
from tests.ledger.test_completions import started as put_started
from tests.ledger.test_ledger import entry
from tests.workbench import Bench

NOWHERE = "amqp://guest:guest@127.0.0.1:1/"
Show = Callable[..., Awaitable[Result]]


@pytest.fixture(params=["a file", "PostgreSQL"])
def ledger_url(request: pytest.FixtureRequest, bench: Bench) -> str:
    """Let the bench's workers keep their ledger there."""
    if request.param == "PostgreSQL":
        bench.given["ledger_url"] = request.getfixturevalue("database_url")
    return str(bench.given["ledger_url"])


async def run(bench: Bench, *words: str, stdin: str = "", **changes: str) -> Result:
    """Run a command with the bench's settings."""
    names = ("rabbitmq_url", "exchange", "queue", "ledger_url")
    given = {name: str(bench.given[name]) for name in names} | {"retry_delays_s": "1,2"} | changes
    env = {f"CALLS_{name.upper()}": value for name, value in given.items()}
    return await asyncio.to_thread(CliRunner().invoke, main, words, input=stdin, env=env)


async def open_ledger(bench: Bench) -> Ledger:
    ledger = Ledger(bench.given["ledger_url"], bench.queue)
    await ledger.open()
    return ledger


async def told(bench: Bench, request_id: str, **changes: str) -> dict[str, Any]:
    """Return what `show --json` says of one request."""
    result = await run(bench, "show", "--json", "--", request_id, **changes)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


async def test_one_request_is_told_of_from_its_wait_to_its_replay(
    bench: Bench, ledger_url: str
) -> None:
    assert ledger_url
    async with bench.running():
        started = await bench.ask()
        later = await bench.ask(not_before="2099-01-01T00:00:00Z")
        refused = await bench.ask(from_line="reg404")
        invalid = await bench.ask(number="12")
        for request_id in (started, refused, invalid):
            await bench.event(request_id)
        await bench.until_count(f"{bench.queue}.delay.2s", 1)

    one = await run(bench, "show", started)
    assert one.exit_code == 0
    assert "outcome    started\n" in one.stdout
    assert "next       nothing\n" in one.stdout
    assert "attempt    1, replay 0\n" in one.stdout
    found = await told(bench, later)
    assert (found["outcome"], found["scheduled"]) == ("waiting", "not_before")
    assert found["due_at"] == "2099-01-01T00:00:00.000Z"
    assert found["next"].startswith("waits for its not_before: at 2099-01-01 00:00:00 UTC")
    found = await told(bench, refused)
    assert (found["outcome"], found["reason"], found["code"]) == ("failed", "refused", "ERROR_CORE")
    assert found["dead_letter"]["reason"] == "refused"
    assert found["next"].startswith("a dead letter since ")
    found = await told(bench, invalid)
    assert (found["outcome"], found["state"]) == ("failed", None)
    assert found["dead_letter"]["reason"] == "invalid"

    assert (await run(bench, "dlq", "replay", "--set", "from_line=reg151083", "--", refused)).stdout
    found = await told(bench, refused)
    assert (found["outcome"], found["operator"]["act"]) == ("waiting", "replayed")
    assert "not taken yet: " in found["next"]
    discarded = await run(bench, "dlq", "discard", "--why", "a trial", "--", invalid)
    assert discarded.exit_code == 0
    found = await told(bench, invalid)
    assert (found["outcome"], found["operator"]["reason"]) == ("failed", "a trial")
    assert found["next"].endswith(": a trial")

    async with bench.running():
        await bench.events(refused, 2)
        found = await told(bench, refused)
        assert (found["outcome"], found["replay"], found["times_dialled"]) == ("started", 1, 1)
        many = await run(bench, "show", started, refused)
        assert many.stdout.endswith("2 started, 0 failed, 0 waiting, each dialled once\n")


async def test_many_have_a_line_each_and_a_sum_from_a_file_or_a_pipe(
    bench: Bench, ledger_url: str, tmp_path: Path
) -> None:
    assert ledger_url
    async with bench.running():
        asked = [await bench.ask(f"+120255501{n:02}") for n in range(3)]
        for request_id in asked:
            await bench.event(request_id)
    ids = tmp_path / "ids.txt"
    ids.write_text("".join(f"{id_}\n" for id_ in [*asked, asked[0]]))

    by_file = await run(bench, "show", "--ids", str(ids))
    assert by_file.stdout.splitlines()[0].split() == [
        *("ID", "OUTCOME", "SINCE", "(UTC)", "ATTEMPT", "REPLAY", "DETAIL")
    ]
    assert len(by_file.stdout.splitlines()) == 5
    assert by_file.stdout.endswith("\n3 started, 0 failed, 0 waiting, each dialled once\n")
    lines = (await run(bench, "show", "--json", "--ids", str(ids))).stdout
    assert [json.loads(line)["request_id"] for line in lines.splitlines()] == asked
    by_pipe = await run(bench, "show", "-", stdin=lines)
    assert by_pipe.stdout == by_file.stdout
    by_number = await run(bench, "show", "--number", "+1 202 555 0101")
    assert f"request    {asked[1]}\n" in by_number.stdout
    nobody = await run(bench, "show", "--number", "+1 202 555 0177")
    assert (nobody.exit_code, nobody.stdout) == (0, "0 started, 0 failed, 0 waiting\n")


async def test_how_calls_ended_is_told(bench: Bench, ledger_url: str) -> None:
    assert ledger_url
    ledger = await open_ledger(bench)
    await ledger.completions.follow()
    await ledger.completions.lease.beat("me", at_once=False)
    for request_id, ending in {"long": ANSWERED, "short": BUSY, "open": None}.items():
        await put_started(ledger, request_id)
        if ending is not None:
            await note(ledger, request_id, ending)
    await ledger.close()

    answered, still_open = await run(bench, "show", "long"), await run(bench, "show", "open")
    assert "\nended      answered, 12.5 s, code 200\n" in answered.stdout
    assert "\nended      not known yet\n" in still_open.stdout
    ended = {"outcome": "answered", "code": "200", "duration_s": 12.5}
    assert (await told(bench, "long"))["completed"] == ended
    assert (await told(bench, "open"))["completed"] is None
    many = (await run(bench, "show", "long", "short", "open")).stdout.splitlines()
    assert [line.partition("call of ")[2] for line in many[1:4]] == [
        *("long, answered, 12.5 s", "short, busy", "open, not known yet")
    ]
    assert many[-1] == (
        "3 started, 0 failed, 0 waiting, each dialled once; 1 answered, 1 busy, 1 not known yet"
    )


async def test_what_no_worker_has_seen_is_said_with_what_that_can_mean(bench: Bench) -> None:
    request_id = await bench.ask()
    await bench.until_count(bench.queue, 1)

    found = await told(bench, request_id)

    assert (found["outcome"], found["times_dialled"]) == ("unknown", 0)
    assert found["next"] == (
        f"not seen by any worker: it may still wait (1 wait in {bench.queue}), or went to another "
        "queue, or has another id, or was finished over 400 days ago, and is no dead letter"
    )


async def test_without_the_broker_the_ledger_still_tells(bench: Bench) -> None:
    ledger = await open_ledger(bench)
    await ledger.put(entry("gone", state="failed", reason="refused", published=True), None)
    await ledger.close()

    result = await run(bench, "show", "gone", rabbitmq_url=NOWHERE)

    assert result.exit_code == 0
    assert "outcome    failed\n" in result.stdout
    assert result.stderr.startswith("dead letters were not looked at: no broker answers at ")
    assert len(result.stderr.splitlines()) == 1


async def test_without_a_ledger_it_says_which_setting_names_one(bench: Bench) -> None:
    result = await run(bench, "show", "r", ledger_url="sqlite:///nowhere.db")

    assert result.exit_code == 1
    assert result.stderr == (
        "Error: nowhere.db holds no ledger: set CALLS_LEDGER_URL as the workers have it\n"
    )


USAGE = {
    "nothing": ["show"],
    "an option behind an id": ["show", "--json", "r"],
    "no number": ["show", "--number", "12"],
}


@pytest.mark.parametrize("words", USAGE.values(), ids=USAGE)
async def test_wrong_usage_is_exit_2(bench: Bench, words: Sequence[str]) -> None:
    assert (await run(bench, *words)).exit_code == 2


HOUR_AGO = time.time() - 3600
LATER = 4_000_000_000.0
AROUND = Around(queue="q", waiting=7)
SENT = LetterAct(request_id="r-1", act="replayed", replay=1, done_at=HOUR_AGO, done_by="ann")
NEXT: dict[str, tuple[Entry | None, LetterAct | None, str, str]] = {
    "being dialled": (entry(claimed_at=HOUR_AGO), None, "waiting", "being dialled since "),
    "to be tried again": (
        entry(state="delayed", attempt=2, due_at=LATER),
        None,
        "waiting",
        "attempt 2 at 2096-10-02 07:06:40 UTC or soon after",
    ),
    "due": (
        entry(state="delayed", attempt=2, due_at=HOUR_AGO),
        None,
        "waiting",
        "attempt 2 as soon as a worker takes it",
    ),
    "in doubt": (
        entry(state="delayed", unsure_since=HOUR_AGO, due_at=LATER),
        None,
        "in doubt",
        "in doubt since ",
    ),
    "for the morning": (
        entry(state="delayed", scheduled="calling_hours", due_at=LATER),
        None,
        "waiting",
        "waits for the calling hours: at ",
    ),
    "taken back while it waits": (
        entry(state="delayed", cancelled_at=HOUR_AGO, due_at=LATER),
        None,
        "waiting",
        "taken back, is not dialled: ends when its message comes, at ",
    ),
    "taken back": (
        entry(state="failed", reason="cancelled", published=True),
        None,
        "failed",
        "nothing: it was taken back",
    ),
    "an event not yet out": (
        entry(state="started"),
        None,
        "started",
        "call.started is out, or will be",
    ),
    "sent back": (
        entry(state="failed", published=True),
        SENT,
        "waiting",
        "sent back as replay 1 by ann at ",
    ),
    "failed again": (
        entry(state="failed", replay=1, published=True),
        SENT,
        "failed",
        "no dead letter: it was replayed and not taken yet (7 wait in q), or removed",
    ),
    "sent back, never seen": (None, SENT, "waiting", "sent back as replay 1 by ann at "),
}


@pytest.mark.parametrize(("held", "act", "outcome", "begins"), NEXT.values(), ids=NEXT)
def test_what_comes_next_is_said(
    held: Entry | None, act: LetterAct | None, outcome: str, begins: str
) -> None:
    report = Report(request_id="r-1", entry=held, act=act)

    assert report.outcome == outcome
    assert report.next(AROUND).startswith(begins)
    assert json.loads(report.as_json(AROUND))["outcome"] == outcome
    assert report.lines(AROUND)[-1] == ("next", report.next(AROUND))


STARTED = Report(request_id="a", entry=entry("a", state="started"))


def ended(outcome: CallOutcome) -> Report:
    return Report(request_id="a", entry=entry("a", state="started", outcome=outcome))


TOTALS = {
    "0 started, 0 failed, 0 waiting": [],
    "2 started, 0 failed, 0 waiting, each dialled once": [STARTED] * 2,
    "1 started, 0 failed, 0 waiting, 1 unknown, none dialled twice": [
        STARTED,
        Report(request_id="b"),
    ],
    "1 started, 0 failed, 0 waiting, 1 dialled more than once (a)": [
        replace(STARTED, earlier_calls=1)
    ],
    "6 started, 0 failed, 0 waiting, each dialled once; 2 no answer, 1 answered, "
    "1 not in the call history, 1 not known yet, 1 not followed up": [
        ended("no_answer"),
        ended("no_answer"),
        ended("answered"),
        ended("unknown"),
        replace(STARTED, is_open=True),
        STARTED,
    ],
    "1 started, 0 failed, 0 waiting, each dialled once": [replace(STARTED, is_open=True)],
    "1 started, 0 failed, 0 waiting, 1 perhaps to another number before (a)": [
        replace(STARTED, earlier_doubts=1)
    ],
}


@pytest.mark.parametrize(("text", "reports"), TOTALS.items(), ids=TOTALS)
def test_the_sum_says_whether_anybody_was_phoned_twice(text: str, reports: list[Report]) -> None:
    assert total(reports) == text

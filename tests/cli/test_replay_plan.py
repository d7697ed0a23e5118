"""What the plan of a replay warns of."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import aio_pika
import pytest
from click.testing import CliRunner

from consumer.blocks import Block
from consumer.cli.main import main
from consumer.ledger import Ledger
from consumer.ledger.workers import WorkerState
from consumer.limits.calling_hours import CallingHours
from consumer.messages import CallRequested, Defaults, read_request
from consumer.messages.local_time import read_hours
from consumer.operations import planning
from consumer.operations.dead_letter import DeadLetter
from consumer.operations.dead_letters import Replay
from consumer.operations.pauses import blocked_at_hand
from consumer.operations.replay_plan import Plan
from consumer.operations.replay_warnings import MANY, warnings_of
from tests.ledger.test_workers import worker
from tests.workbench import Bench


def letters(count: int, reason: str = "refused", **fields: object) -> list[DeadLetter]:
    found = []
    for number in range(count):
        request = Bench.request(request_id=f"r{number}") | fields
        found.append(
            DeadLetter(
                id=f"r{number}",
                key=f"k{number}",
                failed_at=None,
                reason=reason,
                code=f"E{number}",
                description="",
                http_status=None,
                attempt=1,
                replay=0,
                body=json.dumps(request).encode(),
                fields=request,
                headers={},
            )
        )
    return found


def planned(
    found: Sequence[DeadLetter],
    hour: int,
    speed: float = 2.0,
    **more: Any,  # noqa: ANN401
) -> str:
    plan = Plan(
        letters=found,
        how=more.get("how", Replay()),
        started=more.get("started", ()),
        pause_after=1000,
        speed=speed,
        begins=datetime(2026, 11, 20, hour, 30, tzinfo=UTC),
        hours=more.get("hours", CallingHours()),
        blocked=more.get("blocked", {}),
    )
    return "\n".join(warnings_of(plan))


NEVER = "9999-01-01T00:00:00Z"
LATE: dict[str, tuple[str, bool]] = {
    "in the evening": (planned(letters(MANY), 18), True),
    "at night": (planned(letters(MANY), 2), True),
    "in the afternoon": (planned(letters(MANY), 17), False),
    "in the morning": (planned(letters(MANY), 8), False),
    "until the evening": (planned(letters(MANY), 17, speed=MANY / 1801), True),
    "until the next day": (planned(letters(MANY), 12, speed=MANY / 72_000), True),
    "without a limit": (planned(letters(MANY), 12, speed=float("inf")), False),
    "few": (planned(letters(MANY - 1), 23), False),
    "that expire": (planned(letters(MANY, expires_at=NEVER), 23), False),
    "that are to expire": (
        planned(letters(MANY), 23, how=Replay(edits={"expires_at": NEVER})),
        False,
    ),
    "that are put off": (
        planned(letters(MANY), 23, how=Replay(edits={"not_before": NEVER})),
        False,
    ),
    "otherwise edited": (planned(letters(MANY), 23, how=Replay(edits={"voice": "x"})), True),
    "that nobody can read": (planned(letters(MANY, "invalid"), 23), False),
    "most of them started": (planned(letters(MANY), 23, started=["r1"]), False),
    "dialled again": (
        planned(letters(MANY), 23, started=["r1"], how=Replay(redial=True)),
        True,
    ),
}


@pytest.mark.parametrize(("told", "warned"), LATE.values(), ids=LATE)
def test_many_that_may_ring_late_are_named(told: str, *, warned: bool) -> None:
    assert ("have no expires_at and may ring late" in told) == warned


def test_the_warning_says_when_the_last_goes_and_what_to_do() -> None:
    told = planned(letters(MANY + 2), 17, speed=(MANY + 2) / 3600)

    assert told == (
        "12 (r0, r1, r2, …) have no expires_at and may ring late: it is 17:30 here, and the last "
        "goes at about 18:30, or later if the worker has to wait: --set expires_at=… ends that, "
        "--set not_before=… puts it off"
    )


async def test_an_operator_is_warned_by_the_clock_of_the_place(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(MANY):
        body = json.dumps(bench.request(request_id=f"r{number}")).encode()
        message = aio_pika.Message(body, headers={"x-reason": "refused"}, message_id=f"m{number}")
        await bench.channel.default_exchange.publish(message, f"{bench.queue}.dlq")
    late = SimpleNamespace(now=lambda: datetime(2026, 11, 20, 23, 10, tzinfo=UTC))
    monkeypatch.setattr(planning, "datetime", late)
    monkeypatch.setenv("TZ", "UTC")
    names = ("rabbitmq_url", "exchange", "queue")
    env = {f"CALLS_{name.upper()}": str(bench.given[name]) for name in names}

    result = await asyncio.to_thread(
        CliRunner().invoke, main, ["dlq", "replay", "--all", "--dry-run"], env=env
    )

    assert result.exit_code == 0
    assert "10 (r0, r1, r2, …) have no expires_at and may ring late" in result.stderr


NINE_TO_FIVE = CallingHours(read_hours("09:00-17:00"))
BERLIN = CallingHours(read_hours("09:00-17:00"), zone="Europe/Berlin")
HOURS: dict[str, tuple[str, str]] = {
    "in the evening": (
        planned(letters(3), 20, hours=NINE_TO_FIVE),
        "3 (r0, r1, r2) will wait for the calling hours: until 2026-11-21 09:00",
    ),
    "before they begin": (
        planned(letters(3), 7, hours=NINE_TO_FIVE),
        "3 (r0, r1, r2) will wait for the calling hours: until 09:00",
    ),
    "within": (planned(letters(3), 12, hours=NINE_TO_FIVE), ""),
    "until they end": (
        planned(letters(3), 16, speed=1 / 1000, hours=NINE_TO_FIVE),
        "1 (r2) will wait for the calling hours: until 2026-11-21 09:00",
    ),
    "by the default zone": (planned(letters(1), 8, hours=BERLIN), ""),
    "by the request's zone": (
        planned(letters(1, time_zone="Asia/Tokyo"), 12, hours=NINE_TO_FIVE),
        "1 (r0) will wait for the calling hours: until 2026-11-21 00:00",
    ),
    "in several zones": (
        planned(
            [*letters(1, time_zone="Asia/Tokyo"), *letters(1, time_zone="America/New_York")],
            10,
            hours=NINE_TO_FIVE,
        ),
        (
            "2 (r0, r0) will wait for the calling hours: the first until 14:00, "
            "the last until 2026-11-21 00:00"
        ),
    ),
    "urgent": (planned(letters(1, urgent=True), 20, hours=NINE_TO_FIVE), ""),
    "edited to be urgent": (
        planned(letters(1), 20, hours=NINE_TO_FIVE, how=Replay(edits={"urgent": True})),
        "",
    ),
    "put off into them": (
        planned(letters(1, not_before="2026-11-21T10:00:00Z"), 20, hours=NINE_TO_FIVE),
        "",
    ),
    "expires before": (
        planned(
            letters(1, not_before="2099-01-01T20:00:00Z", expires_at="2099-01-02T08:00:00Z"),
            20,
            hours=NINE_TO_FIVE,
        ),
        "1 (r0) will expire before the calling hours begin: --set expires_at=… fixes it",
    ),
    "many, late": (
        planned(letters(MANY), 23, hours=NINE_TO_FIVE),
        "10 (r0, r1, r2, …) will wait for the calling hours: until 2026-11-21 09:00",
    ),
}


@pytest.mark.parametrize(("told", "expected"), HOURS.values(), ids=HOURS)
def test_those_that_wait_for_the_calling_hours_are_counted(told: str, expected: str) -> None:
    assert told == expected


async def test_the_plan_says_who_is_paused_and_when_the_portal_is_probed(bench: Bench) -> None:
    body = json.dumps(bench.request(request_id="r")).encode()
    message = aio_pika.Message(body, headers={"x-reason": "refused"})
    await bench.channel.default_exchange.publish(message, f"{bench.queue}.dlq")
    ledger = Ledger(bench.given["ledger_url"], bench.queue)
    await ledger.open()
    paused = WorkerState(phase="paused", pauses={"portal": "no answer"}, probes_at=86_399.0)
    await ledger.workers.write(replace(worker(), state=paused))
    await ledger.close()
    names = ("rabbitmq_url", "exchange", "queue", "ledger_url")
    env = {f"CALLS_{name.upper()}": str(bench.given[name]) for name in names}

    result = await asyncio.to_thread(
        CliRunner().invoke, main, ["dlq", "replay", "--all", "--dry-run"], env=env
    )

    assert (
        "1 of 1 paused: no answer; the portal is probed next at 23:59:59 UTC; "
        "what is replayed waits meanwhile\n"
    ) in result.stderr


def test_a_block_that_is_in_force_is_named() -> None:
    told = planned(letters(3), 12, blocked={"b-1": 2, "b-2": 1})

    assert "3 would be blocked again, by b-1, b-2: call-consumer block remove b-1" in told


async def test_each_block_is_asked_for_each_request(bench: Bench) -> None:
    settings = bench.settings()
    ledger = Ledger(settings.ledger_url.get_secret_value(), settings.queue)
    await ledger.open()
    for id_, kind, key, value in (
        ("b-1", "number", "", ledger.digest("+12025550101")),
        ("b-2", "metadata", "campaign", "42"),
    ):
        await ledger.controls.add_block(Block(id_, kind, key, value, "wrong text", 0.0, "ann"))  # type: ignore[arg-type]  # one of three
    await ledger.close()
    calls = [
        read_request(Bench.request(number, **fields), Defaults(line="reg1"))
        for number, fields in (
            ("+12025550101", {}),
            ("+12025550102", {"metadata": {"campaign": "42"}}),
            ("+12025550103", {}),
        )
    ]

    found = await blocked_at_hand(settings, [c for c in calls if isinstance(c, CallRequested)])

    assert found == {"b-1": 1, "b-2": 1}

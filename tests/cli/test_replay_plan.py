"""What the plan of a replay warns of."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import aio_pika
import pytest
from click.testing import CliRunner

from consumer.cli import replay_plan
from consumer.cli.main import main
from consumer.cli.replay_plan import MANY, Plan, warnings_of
from consumer.operations.dead_letter import DeadLetter
from consumer.operations.dead_letters import Replay
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
    monkeypatch.setattr(replay_plan, "datetime", late)
    monkeypatch.setenv("TZ", "UTC")
    names = ("rabbitmq_url", "exchange", "queue")
    env = {f"CALLS_{name.upper()}": str(bench.given[name]) for name in names}

    result = await asyncio.to_thread(
        CliRunner().invoke, main, ["dlq", "replay", "--all", "--dry-run"], env=env
    )

    assert result.exit_code == 0
    assert "10 (r0, r1, r2, …) have no expires_at and may ring late" in result.stderr

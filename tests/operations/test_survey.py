"""A look at the dead letters is bounded, shown before it is over, and looked for once."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import aio_pika

from consumer.operations.choice import Choice
from consumer.operations.jobs import Job, Jobs, proof_of
from consumer.operations.survey import Selection, Survey

if TYPE_CHECKING:
    from collections.abc import Callable

    from pamqp.common import FieldValue

    from consumer.operations.dead_letter import DeadLetter
    from tests.workbench import Bench


async def dead(bench: Bench, count: int) -> None:
    bench.settings()
    headers: dict[str, FieldValue] = {
        "x-reason": "refused",
        "x-code": "E",
        "x-description": "no",
        "x-replay": 0,
    }
    for n in range(count):
        body = json.dumps(bench.request(request_id=f"r{n}")).encode()
        message = aio_pika.Message(body, headers=headers)
        await bench.channel.default_exchange.publish(message, f"{bench.queue}.dlq")


async def survey(bench: Bench, limit: int | None, keep: int) -> Survey:
    made = Survey(bench.settings(), Choice(), limit, keep, asyncio.Lock())
    while not await made.wait():
        pass
    return made


async def test_a_look_counts_all_and_keeps_some(bench: Bench) -> None:
    await dead(bench, 7)

    found = await survey(bench, None, 3)

    assert (found.found, len(found.letters), found.total) == (7, 3, 7)
    assert found.groups.largest_first[0].count == 7
    assert not found.cut_short
    assert found.error == ""


async def test_a_look_ends_at_its_limit_and_says_so(bench: Bench) -> None:
    await dead(bench, 7)

    found = await survey(bench, 4, 10)

    assert (found.found, len(found.letters), found.cut_short) == (4, 4, True)


async def test_a_look_for_what_somebody_has_in_hand_waits(bench: Bench) -> None:
    await dead(bench, 3)
    lock = asyncio.Lock()
    async with lock:
        waits = Survey(bench.settings(), Choice(), None, 3, lock)
        assert not waits.ready
    while not await waits.wait():
        pass

    assert waits.found == 3


async def test_where_there_is_no_queue_a_look_says_so(bench: Bench) -> None:
    settings = bench.settings().model_copy(update={"queue": "nowhere"})
    found = Survey(settings, Choice(), None, 3, asyncio.Lock())
    while not await found.wait():
        pass

    assert "nowhere.dlq does not exist" in found.error
    assert not found.fresh


async def test_a_selection_looks_once_and_anew_when_told(bench: Bench) -> None:
    await dead(bench, 2)
    selection = Selection(Choice(ids=frozenset({"r1"})), bench.settings(), asyncio.Lock())

    first = selection.taken
    await first.wait()

    assert selection.taken is first
    assert [letter.id for letter in selection.letters] == ["r1"]
    await selection.shown.wait()
    assert selection.listed(0) == selection.listed(None) == selection.letters[0]
    assert selection.listed(5) is None
    selection.stop()
    assert selection.letters == ()
    assert selection.taken is not first
    assert selection.words == "r1"


async def test_a_job_says_how_it_ended() -> None:
    jobs = Jobs()

    async def well(*, done: Callable[[DeadLetter], None]) -> None:
        pass

    async def badly(*, done: Callable[[DeadLetter], None]) -> None:  # noqa: ARG001  # as a work has
        raise ValueError("s3cret")

    async def for_ever(*, done: Callable[[DeadLetter], None]) -> None:  # noqa: ARG001  # it
        await asyncio.Event().wait()

    begun = [Job("discarded", "ann", ["r"]) for _ in range(3)]
    words = [
        jobs.begin(job, work) for job, work in zip(begun, (well, badly, for_ever), strict=True)
    ]
    await asyncio.sleep(0)
    assert list(jobs.running.values()) == [begun[2]]
    await jobs.stop_all()

    assert [job.state for job in begun] == ["done", "failed", "stopped"]
    assert "s3cret" not in begun[1].error
    assert jobs.find(words[0]) is begun[0]


async def test_a_discard_needs_no_proof(bench: Bench) -> None:
    assert await proof_of(bench.settings(), Job("discarded", "ann", ["r"])) == ""

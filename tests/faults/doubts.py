"""Answers that are lost, and messages that come more than once."""

import asyncio
import json
import signal
import time
from collections.abc import Iterable, Sequence

from consumer.sandbox import ANSWERS, Answer
from consumer.sandbox.replies import Result
from consumer.sandbox.switches import Right
from tests.faults.account import Row
from tests.faults.bench import Bench
from tests.faults.life import until
from tests.faults.portal import DIAL, LOOK_UP, answer_from_now_on, special_number, text_of
from tests.faults.stage import Stage

COPIES = 100
LOST = {
    # What the worker sees: with the call placed, and without.
    "timeout": (ANSWERS["silence, placed"], ANSWERS["silence"]),
    "reset": (ANSWERS["reset, placed"], ANSWERS["reset"]),
    "502": (ANSWERS["502 page, placed"], ANSWERS["502 page"]),
    "Infocall failure": (ANSWERS["Infocall failure, placed"], ANSWERS["Infocall failure"]),
    "truncated JSON": (
        ANSWERS["truncated JSON, placed"],
        Answer("truncated JSON", "controller", Result(damage="truncated")),
    ),
}


async def a_hundred_copies_at_once(stage: Stage) -> list[Row]:
    rows = []
    for outcome, answer in (("accepted", "placed"), ("refused", "bad number")):
        async with stage.bench("copies") as bench:
            await bench.start_trusted()
            to = special_number(ANSWERS[answer])
            body = {"request_id": "copied", "to_number": to, "text_to_pronounce": text_of("copied")}
            bench.ids.append("copied")
            await bench.publish_bodies([json.dumps(body).encode()] * COPIES)
            await bench.settled()
            await bench.close_books()
            row = bench.row(f"{COPIES} copies of one request, {outcome}", 1, ids=["copied"])
            calls = bench.portal.phoned()[text_of("copied")]
            dead = len(bench.copies.get("copied", []))
            expected = (1, 0) if outcome == "accepted" else (0, 1)
            if (calls, dead) != expected:
                row.wrong.append(f"{calls} calls and {dead} dead letters, not {expected}")
            if asked := [m for m in bench.portal.asked_about(to) if m == DIAL][1:]:
                row.wrong.append(f"the portal was asked {len(asked)} times more to dial")
            rows.append(row)
    return rows


async def lost_answers_with_a_readable_history(stage: Stage) -> list[Row]:
    async with stage.bench("lost") as bench:
        await bench.start_trusted()
        rang, silent = await lose_answers(bench)
        await bench.settled()
        await bench.close_books()
        expect_found(bench, rang, silent)
        return [
            bench.row("answer lost, call placed, history readable", len(LOST), ids=rang),
            bench.row("answer lost, call not placed, history readable", len(LOST), ids=silent),
        ]


_numbers: dict[tuple[str, str], str] = {}


def number_of(bench: Bench, request_id: str) -> str:
    return _numbers[bench.name, request_id]


def expect_found(bench: Bench, rang: Iterable[str], silent: Iterable[str]) -> None:
    """Take it for wrong if not all that *rang* were found, and the *silent* dialled once more."""
    for request_id in rang:
        if [event.confirmed_by for event in bench.finals(request_id)] != ["history"]:
            bench.wrong.append(f"{request_id} was not adopted: {bench.finals(request_id)}")
    for request_id in silent:
        asked = bench.portal.asked_about(number_of(bench, request_id))
        if asked.count(DIAL) != 2:
            bench.wrong.append(f"{request_id} was dialled {asked.count(DIAL)} times")


def expect_lag(bench: Bench, silent: Iterable[str], lag_s: float) -> None:
    """Take it for wrong if one was dialled again before its absence proved anything."""
    for request_id in silent:
        first, *others = bench.portal.dialled_at(number_of(bench, request_id))
        bench.wrong += [
            f"{request_id} was dialled again after {at - first:.1f} s"
            for at in others
            if at - first < lag_s
        ]


async def lose_answers(bench: Bench, ways: Iterable[str] = LOST) -> tuple[list[str], list[str]]:
    """Publish a request per way to lose an answer; return those that rang, and the others."""
    rang: list[str] = []
    silent: list[str] = []
    for placed, not_placed in map(LOST.__getitem__, ways):
        for answer, ids in ((placed, rang), (not_placed, silent)):
            number = special_number(answer, 1)
            (request_id,) = await bench.publish(to=number)
            _numbers[bench.name, request_id] = number
            ids.append(request_id)
    return rang, silent


async def lost_answers_without_the_right_to_the_history(stage: Stage) -> list[Row]:
    rights: tuple[Right, ...] = ("denied", "own")
    return [await _without_history(stage, right) for right in rights]


async def _without_history(stage: Stage, right: Right) -> Row:
    async with stage.bench("blind") as bench:
        bench.portal.patch({"history": right})
        await bench.start_trusted()
        rang, silent = await lose_answers(bench)
        ids = rang + silent
        await bench.settled()
        by_itself = {i: bench.portal.asked_about(number_of(bench, i)).count(DIAL) for i in ids}
        for request_id in ids:
            if [event.reason for event in bench.finals(request_id)] != ["unsure"]:
                bench.wrong.append(f"{request_id} is not unsure: {bench.finals(request_id)}")
            if by_itself[request_id] != 1:
                bench.wrong.append(f"{request_id} was dialled {by_itself[request_id]} times")
        before = bench.portal.phoned()
        await bench.replay_all()
        bench.allowed.update(dict.fromkeys(rang, 2))  # a person wanted it
        await until(lambda: all(replayed(bench, i) for i in ids), 30)
        await bench.settled()
        await bench.close_books()
        for request_id in ids:
            more = bench.portal.phoned()[text_of(request_id)] - before[text_of(request_id)]
            if more != 1:
                bench.wrong.append(f"{request_id}, replayed, was phoned {more} times")
        fault = f"answer lost, history '{right}': dead letter, then replayed"
        return bench.row(fault, len(ids))


def replayed(bench: Bench, request_id: str) -> bool:
    return any(event.replay == 1 for event in bench.finals(request_id))


async def two_doubts_about_one_number_of_which_one_rang(stage: Stage) -> list[Row]:
    times = stage.times(5, 1)
    async with stage.bench("twins") as bench:
        bench.portal.patch({"call_duration_s": 3})
        await bench.start_trusted()
        for _ in range(times):
            to = special_number(ANSWERS["reset, placed"])
            await bench.publish(to=to)
            await bench.asked_for(to)
            answer_from_now_on(to, ANSWERS["reset"])
            await bench.publish(to=to)
        await bench.settled()
        await bench.close_books()
        ids = [i for i in bench.ids if i.startswith("r-")]
        for request_id in ids:
            if [event.reason for event in bench.finals(request_id)] != ["unsure"]:
                bench.wrong.append(f"{request_id} is not unsure: {bench.finals(request_id)}")
        return [bench.row("two doubts about one number, one of which rang", times, ids=ids)]


async def doubt_then_something_else(stage: Stage) -> list[Row]:
    parts = (_doubt_then_sigkill, _doubt_then_expiry, _doubt_to_the_last, _doubt_then_replay)
    return list(await asyncio.gather(*(part(stage) for part in parts)))


async def _doubt_then_sigkill(stage: Stage) -> Row:
    times = stage.times(5, 1)
    numbers: dict[str, str] = {}
    async with stage.bench("doubt") as bench:
        worker = await bench.start_trusted()
        for _ in range(times):
            for answer in (ANSWERS["reset, placed"], ANSWERS["reset"]):
                number = special_number(answer, 1)
                (request_id,) = await bench.publish(to=number)
                numbers[request_id] = number
                await bench.asked_for(number)
            await asyncio.sleep(bench.rng.uniform(0.0, 2.0))
            worker.send(signal.SIGKILL)
            await worker.ended()
            worker = await bench.start()
        return await _looked_up(bench, "doubt, then SIGKILL", times, numbers)


async def _doubt_then_expiry(stage: Stage) -> Row:
    numbers: dict[str, str] = {}
    async with stage.bench("doubt") as bench:
        await bench.start_trusted()
        for answer in (ANSWERS["reset, placed"], ANSWERS["reset"], ANSWERS["502 page"]):
            number = special_number(answer, 1)
            # It expires before its absence can prove anything.
            soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
            (request_id,) = await bench.publish(to=number, expires_at=soon)
            numbers[request_id] = number
        row = await _looked_up(bench, "doubt, then expired", 3, numbers)
        rang, *silent = numbers
        if [e.confirmed_by for e in bench.finals(rang)] != ["history"]:
            row.wrong.append(f"{rang} rang and was not found: {bench.finals(rang)}")
        for request_id in silent:
            if [e.reason for e in bench.finals(request_id)] != ["expired"]:
                row.wrong.append(f"{request_id} has not expired: {bench.finals(request_id)}")
        return row


async def _doubt_to_the_last(stage: Stage) -> Row:
    numbers: dict[str, str] = {}
    async with stage.bench("doubt") as bench:
        await bench.start_trusted()
        for answer in (ANSWERS["reset"], ANSWERS["502 page"]):
            number = special_number(answer)
            (request_id,) = await bench.publish(to=number)
            numbers[request_id] = number
        row = await _looked_up(bench, "doubt at every attempt", 2, numbers)
        for request_id in numbers:
            if [e.reason for e in bench.finals(request_id)] != ["exhausted"]:
                row.wrong.append(f"{request_id} is not exhausted: {bench.finals(request_id)}")
        return row


async def _doubt_then_replay(stage: Stage) -> Row:
    numbers: dict[str, str] = {}
    async with stage.bench("doubt") as bench:
        await bench.start_trusted()
        bench.portal.patch({"history": "denied"})
        for answer in (ANSWERS["reset, placed"], ANSWERS["502 page, placed"]):
            number = special_number(answer, 1)
            (request_id,) = await bench.publish(to=number)
            numbers[request_id] = number
        await bench.settled()
        bench.portal.patch({"history": "any"})
        await bench.replay_all()
        await until(lambda: all(replayed(bench, i) for i in numbers), 30)
        row = await _looked_up(bench, "doubt, dead letter, replay", 2, numbers)
        for request_id in numbers:
            if bench.finals(request_id)[-1].confirmed_by != "history":
                row.wrong.append(f"{request_id} was not found: {bench.finals(request_id)}")
        return row


async def _looked_up(bench: Bench, fault: str, times: int, numbers: dict[str, str]) -> Row:
    """Settle, and see that after each doubtful call the history was asked before anything else."""
    await bench.settled()
    await bench.close_books()
    for request_id, number in numbers.items():
        asked = bench.portal.asked_about(number)
        started = any(event.confirmed_by == "answer" for event in bench.finals(request_id))
        doubtful = _doubtful(asked, started=started)
        for place in doubtful:
            if asked[place + 1 : place + 2] != [LOOK_UP]:
                bench.wrong.append(f"{request_id}: no look-up after a doubt: {asked}")
    return bench.row(fault, times, ids=list(numbers))


def _doubtful(asked: Sequence[str], *, started: bool) -> list[int]:
    """Return the places of the calls in doubt: all, save the last where it was answered."""
    dials = [place for place, method in enumerate(asked) if method == DIAL]
    return dials[:-1] if started else dials

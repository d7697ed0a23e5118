"""One trouble of the whole portal stops the calls; a probe and one call start them again."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from consumer import metrics, pause
from consumer.decision import Outcome, Placed, Refused, Unavailable, Unsure
from consumer.pause import Pause, Trouble, trouble_of
from consumer.sandbox import SandboxPortal
from tests.conftest import Bench

TROUBLES: dict[str, tuple[Outcome, bool, Trouble | None]] = {
    "placed": (Placed("c1"), True, None),
    "a portal-wide refusal": (
        Refused("insufficient_scope", "", 401, "portal"),
        False,
        Trouble("refused", "INSUFFICIENT_SCOPE"),
    ),
    "no such line, the default one": (
        Refused("ERROR_CORE", "", 400, "line"),
        True,
        Trouble("refused", "ERROR_CORE for the default line"),
    ),
    "no such line, one that a request named": (Refused("ERROR_CORE", "", 400, "line"), False, None),
    "a request's own refusal": (Refused("ERROR_CORE", "", 400), True, None),
    "too many requests": (
        Unavailable("QUERY_LIMIT_EXCEEDED", "", 503, counts=False),
        False,
        Trouble("rate", "QUERY_LIMIT_EXCEEDED"),
    ),
    "no connection": (Unavailable("CONNECT_ERROR", ""), False, Trouble("connection")),
    "no connection in time": (Unavailable("CONNECT_TIMEOUT", ""), False, Trouble("connection")),
    "unavailable by its own word": (
        Unavailable("CONNECTION_ERROR", "", 401),
        False,
        Trouble("connection", "CONNECTION_ERROR"),
    ),
    "a doubt": (Unsure("READ_TIMEOUT", ""), False, Trouble("doubt")),
    "another doubt": (Unsure("HTTP_502", "", 502), False, Trouble("doubt")),
}


@pytest.mark.parametrize(("outcome", "on_default_line", "trouble"), TROUBLES.values(), ids=TROUBLES)
def test_only_what_is_no_requests_fault_counts(
    outcome: Outcome, *, on_default_line: bool, trouble: Trouble | None
) -> None:
    assert trouble_of(outcome, on_default_line=on_default_line) == trouble


class Door:
    """An intake that only remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.opened = asyncio.Event()

    def hold(self, reason: str) -> None:
        self.told.append(f"hold {reason}")

    def limit(self, messages: int | None) -> None:
        self.told.append(messages)

    def release(self, reason: str) -> None:
        self.told.append(f"release {reason}")
        self.opened.set()


@dataclass
class Trial:
    """A pause with nothing around it; *probes* says what each probe finds, then all is well."""

    probes: list[bool] = field(default_factory=list)
    door: Door = field(default_factory=Door)

    def __post_init__(self) -> None:
        self.pause = Pause(3, self.door, self._probe)  # type: ignore[arg-type]

    async def _probe(self, _: Trouble) -> bool:
        return self.probes.pop(0) if self.probes else False

    def note(self, *outcomes: Outcome, epoch: int | None = None) -> list[float | None]:
        """Take answers to as many different requests into account."""
        now = self.pause.epoch if epoch is None else epoch
        return [
            self.pause.note(outcome, f"{id(outcomes)}-{n}", now, on_default_line=False)
            for n, outcome in enumerate(outcomes)
        ]

    async def half_open(self) -> None:
        """Wait until one call is let through."""
        await self.door.opened.wait()
        self.door.opened.clear()


@pytest.fixture
async def trial(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Trial]:
    monkeypatch.setattr(pause, "OTHER_WAITS_S", (0.01, 0.1))
    monkeypatch.setattr(pause, "CONNECTION_WAITS_S", (0.02, 0.1))
    trial = Trial()
    running = asyncio.create_task(trial.pause.run())
    yield trial
    running.cancel()


def paused_for(cause: str) -> float:
    value = metrics.REGISTRY.get_sample_value("call_consumer_paused", {"cause": cause})
    assert value is not None
    return value


REVOKED = Refused("INVALID_CREDENTIALS", "", 401, "portal")
EXPIRED = Refused("PAYMENT_REQUIRED", "", 402, "portal")


async def test_only_the_same_trouble_in_a_row_pauses(trial: Trial) -> None:
    trial.note(REVOKED, REVOKED, EXPIRED, REVOKED, REVOKED, Placed("c1"), REVOKED, REVOKED)
    assert not trial.pause.paused

    trial.note(REVOKED)

    assert trial.pause.paused
    assert trial.pause.detail == "paused for refused INVALID_CREDENTIALS"
    assert trial.door.told == ["hold portal"]
    assert paused_for("refused") == 1


async def test_one_request_that_fails_again_and_again_is_not_the_portal(trial: Trial) -> None:
    for _ in range(9):
        trial.pause.note(REVOKED, "r-1", 0, on_default_line=False)

    assert not trial.pause.paused


async def test_answers_to_calls_begun_before_a_pause_do_not_count_after_it(trial: Trial) -> None:
    trial.note(REVOKED, REVOKED, REVOKED)
    await trial.half_open()

    assert trial.note(REVOKED, Placed("late"), epoch=0) == [None, None]
    assert trial.pause.detail.startswith("trying")


async def test_the_one_call_let_through_decides(trial: Trial) -> None:
    trial.note(REVOKED, REVOKED, REVOKED)
    await trial.half_open()
    assert trial.door.told == ["hold portal", 1, "release portal"]

    trial.note(Placed("c1"))

    assert trial.pause.detail == "open"
    assert trial.door.told[-1] is None
    assert paused_for("refused") == 0


async def test_each_time_it_meets_the_same_the_wait_doubles_up_to_the_longest(
    trial: Trial,
) -> None:
    trial.note(REVOKED, REVOKED, REVOKED)
    waits = []
    for _ in range(5):
        await trial.half_open()
        waits += trial.note(REVOKED)

    assert waits == [0.02, 0.04, 0.08, 0.1, 0.1]


async def test_another_trouble_than_before_begins_to_count_anew(trial: Trial) -> None:
    trial.note(REVOKED, REVOKED, REVOKED)
    await trial.half_open()

    assert trial.note(EXPIRED) == [None]
    assert trial.pause.detail == "open"


async def test_as_long_as_a_probe_meets_it_nothing_is_let_through(trial: Trial) -> None:
    trial.probes += [True, True]
    trial.note(REVOKED, REVOKED, REVOKED)
    await trial.half_open()

    assert trial.probes == []
    assert trial.note(REVOKED) == [0.08]  # 0.01, two probes, and the call


async def test_a_lost_connection_is_probed_at_a_pace_of_its_own(trial: Trial) -> None:
    trial.note(*[Unavailable("CONNECT_ERROR", "")] * 3)
    await trial.half_open()

    assert trial.note(Unavailable("CONNECT_TIMEOUT", "")) == [0.04]


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probe after a moment rather than after half a minute."""
    monkeypatch.setattr(pause, "OTHER_WAITS_S", (0.3, 2.4))
    monkeypatch.setattr(pause, "CONNECTION_WAITS_S", (0.3, 2.4))


def started(bench: Bench) -> Counter[str]:
    return Counter(e["request_id"] for e in bench.heard if e.message.type == "call.started")


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("trouble", ["INVALID_CREDENTIALS", "OVERLOAD_LIMIT", "ACCESS_DENIED plan"])
async def test_a_refusal_of_everybody_costs_five_dead_letters_and_those_in_flight(
    bench: Bench, portal: SandboxPortal, trouble: str
) -> None:
    portal.patch({"trouble": trouble})
    asked = [await bench.ask() for _ in range(40)]

    async with bench.running(pause_after=5, concurrency=3) as app:
        await bench.until(lambda: app.pause.paused)
        failed = len(await bench.dead_letters(5))
        assert app.parts()["broker"].ok
        assert trouble.split(maxsplit=1)[0] in app.parts()["pause"].detail
        portal.patch({"trouble": None})
        await bench.until(lambda: len({e["request_id"] for e in bench.heard}) == len(asked))
        await bench.until(lambda: app.pause.detail == "open")

    refused = sum(e.message.type == "call.failed" for e in bench.heard)
    assert failed <= refused <= 5 + 3
    assert len(started(bench)) == len(asked) - refused
    assert set(started(bench).values()) == {1}
    assert len(portal.calls) == len(started(bench))


@pytest.mark.usefixtures("_soon")
async def test_the_call_let_through_waits_with_its_attempt_if_it_meets_the_same_refusal(
    bench: Bench, portal: SandboxPortal
) -> None:
    portal.patch({"trouble": "monthly limit"})
    asked = [await bench.ask() for _ in range(12)]

    async with bench.running(pause_after=2, concurrency=1) as app:
        await bench.until(lambda: app.pause.paused)
        await bench.until(lambda: app.pause._wait_s >= 1.2)  # noqa: SLF001  # twice tried since
        refused = sum(e.message.type == "call.failed" for e in bench.heard)
        portal.patch({"trouble": None})
        await bench.until(lambda: len(started(bench)) == len(asked) - 2)

    assert refused == 2
    assert {e["attempt"] for e in bench.heard} == {1}


@pytest.mark.usefixtures("_soon")
async def test_an_outage_of_the_portal_costs_no_dead_letter_at_all(bench: Bench) -> None:
    class Portal:
        asked = 0

        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            body = b'{"result":{"RESULT":true,"CALL_ID":"c"}}'
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            writer.close()

    held = await asyncio.start_server(Portal().serve, "127.0.0.1")
    port = held.sockets[0].getsockname()[1]
    held.close()
    await held.wait_closed()
    for _ in range(30):
        await bench.ask()

    url = f"http://127.0.0.1:{port}/"
    async with bench.running(pause_after=5, concurrency=3, bitrix24_url=url) as app:
        await bench.until(lambda: app.pause.detail.startswith("paused for connection"))
        assert await bench.count(bench.queue) >= 30 - 5 - 3 - 3
        server = await asyncio.start_server(Portal().serve, "127.0.0.1", port)
        await bench.until(lambda: len(started(bench)) == 30)
        server.close()

    assert [e for e in bench.heard if e.message.type == "call.failed"] == []


@pytest.mark.usefixtures("_soon")
async def test_an_hour_of_bad_gateways_is_a_pause_for_doubt_and_nobody_is_phoned_twice(
    bench: Bench, portal: SandboxPortal
) -> None:
    first = await bench.ask()
    async with bench.running(pause_after=3, concurrency=2, history_lag_s=1) as app:
        await bench.event(first)
        portal.patch({"trouble": "502 page, placed"})
        for number in range(16):
            await bench.ask(f"+12025550{184 + number:03}", text_to_pronounce=f"call {number}")
        await bench.until(lambda: app.pause.detail == "paused for doubt")
        portal.patch({"trouble": None})
        await bench.until(lambda: len({e["request_id"] for e in bench.heard}) == 17)

    assert max(Counter(call.text for call in portal.calls).values()) == 1

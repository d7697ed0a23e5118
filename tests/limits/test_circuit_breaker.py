"""One fault of the whole portal stops the calls; a probe and one call start them again."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from consumer import metrics
from consumer.decision import Failure, Outcome, Placed, Refused, Unavailable, Unsure
from consumer.limits import circuit_breaker
from consumer.limits.circuit_breaker import Call, CircuitBreaker
from consumer.limits.fault import Fault, Kind, fault_of
from consumer.sandbox import SandboxPortal
from tests.workbench import Bench

FAULTS: dict[str, tuple[Outcome, bool, Fault | None]] = {
    "placed": (Placed("c1"), True, None),
    "a portal-wide refusal": (
        Refused(Failure("insufficient_scope", "", 401), "portal"),
        False,
        Fault("refused", "INSUFFICIENT_SCOPE"),
    ),
    "no such line, the default one": (
        Refused(Failure("ERROR_CORE", "", 400), "line"),
        True,
        Fault("refused", "ERROR_CORE", "default"),
    ),
    "no such line, one that a request named": (
        Refused(Failure("ERROR_CORE", "", 400), "line"),
        False,
        None,
    ),
    "the month's allowance": (
        Refused(Failure("ERROR_CORE", "", 400), "rented lines"),
        False,
        Fault("refused", "ERROR_CORE", "rented"),
    ),
    "a request's own refusal": (Refused(Failure("ERROR_CORE", "", 400)), True, None),
    "too many requests": (
        Unavailable(Failure("QUERY_LIMIT_EXCEEDED", "", 503), counts=False, retry_after_s=9.0),
        False,
        Fault("rate", "QUERY_LIMIT_EXCEEDED", retry_after_s=9.0),
    ),
    "no connection": (
        Unavailable(Failure("CONNECT_ERROR", "")),
        False,
        Fault("connection", "CONNECT_ERROR"),
    ),
    "unavailable by its own word": (
        Unavailable(Failure("CONNECTION_ERROR", "", 401), retry_after_s=9.0),
        False,
        Fault("connection", "CONNECTION_ERROR", retry_after_s=9.0),
    ),
    "nobody has logged in": (
        Refused(Failure("invalid_grant", "", None), "login"),
        False,
        Fault("refused", "INVALID_GRANT", advice="run `call-consumer login`"),
    ),
    "a doubt": (Unsure(Failure("READ_TIMEOUT", "")), False, Fault("doubt", "READ_TIMEOUT")),
}


@pytest.mark.parametrize(("outcome", "on_default_line", "fault"), FAULTS.values(), ids=FAULTS)
def test_only_what_is_no_requests_fault_counts(
    outcome: Outcome, *, on_default_line: bool, fault: Fault | None
) -> None:
    assert fault_of(outcome, on_default_line=on_default_line) == fault


class Door:
    """An subscription that only remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.opened = asyncio.Event()

    def pause(self, reason: str) -> None:
        self.told.append(f"hold {reason}")

    def set_prefetch(self, prefetch: int | None) -> None:
        self.told.append(prefetch)

    def resume(self, reason: str) -> None:
        self.told.append(f"release {reason}")
        self.opened.set()


DEFAULT_LINE = "74950000000"


@dataclass
class Trial:
    """A breaker with nothing around it; *probes* says what each probe finds, then all is well."""

    probes: list[bool] = field(default_factory=list)
    probed: list[set[str]] = field(default_factory=list)
    door: Door = field(default_factory=Door)
    count: int = 0

    def __post_init__(self) -> None:
        self.breaker = CircuitBreaker(3, self.door, self._probe, DEFAULT_LINE)

    async def _probe(self, _: Kind, codes: set[str]) -> bool:
        self.probed.append(codes)
        return self.probes.pop(0) if self.probes else False

    def record(
        self, *outcomes: Outcome, line: str = DEFAULT_LINE, epoch: int | None = None
    ) -> list[float | None]:
        """Take answers to as many different requests into account."""
        now = self.breaker.epoch if epoch is None else epoch
        waits = []
        for outcome in outcomes:
            self.count += 1
            waits.append(self.breaker.record(outcome, Call(f"r-{self.count}", line, now)))
        return waits

    async def half_open(self) -> None:
        """Wait until one call is let through."""
        await self.door.opened.wait()
        self.door.opened.clear()


@pytest.fixture
async def trial(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Trial]:
    monkeypatch.setattr(circuit_breaker, "OTHER_WAITS_S", (0.01, 0.1))
    monkeypatch.setattr(circuit_breaker, "CONNECTION_WAITS_S", (0.02, 0.1))
    trial = Trial()
    running = asyncio.create_task(trial.breaker.run())
    yield trial
    running.cancel()


def paused_for(cause: str) -> float:
    value = metrics.REGISTRY.get_sample_value("call_consumer_paused", {"cause": cause})
    assert value is not None
    return value


REVOKED = Refused(Failure("INVALID_CREDENTIALS", "", 401), "portal")
EXPIRED = Refused(Failure("PAYMENT_REQUIRED", "", 402), "portal")
BARE_400 = Refused(Failure("HTTP_400", "", 400), "portal")
ALLOWANCE = Refused(Failure("ERROR_CORE", "limit", 400), "rented lines")
NO_LINE = Refused(Failure("ERROR_CORE", "no config", 400), "line")
BAD_NUMBER = Refused(Failure("ERROR_CORE", "Phone number is not correct", 400))
DOWN = Unavailable(Failure("CONNECT_ERROR", ""))
LOST = Unsure(Failure("READ_TIMEOUT", ""))
PLACED = Placed("c1")


async def test_three_in_a_row_open_it(trial: Trial) -> None:
    trial.record(REVOKED, REVOKED, PLACED, REVOKED, REVOKED)
    assert trial.breaker.detail == "closed"

    trial.record(REVOKED)

    assert trial.breaker.is_open
    assert trial.breaker.detail == "open for refused INVALID_CREDENTIALS"
    assert trial.door.told == ["hold portal"]
    assert paused_for("refused") == 1


OPENS: dict[str, list[Outcome]] = {
    "refusals with codes by turns": [REVOKED, EXPIRED, BARE_400],
    "refusals of all calls and of some lines": [ALLOWANCE, REVOKED, ALLOWANCE],
    "no connection, and no service": [DOWN, Unavailable(Failure("HTTP_503", "", 503)), DOWN],
    "doubts of all sorts": [LOST, Unsure(Failure("HTTP_502", "", 502)), LOST],
    "refusals with another kind in between": [REVOKED, DOWN, REVOKED, LOST, REVOKED],
    "refusals with a request's own in between": [REVOKED, BAD_NUMBER, REVOKED, REVOKED],
    "doubts with a request's own refusal in between": [LOST, BAD_NUMBER, LOST, LOST],
}
STAYS_CLOSED: dict[str, list[Outcome]] = {
    "a call that is placed in between": [REVOKED, REVOKED, PLACED, REVOKED, REVOKED],
    "an answer in between": [DOWN, DOWN, BAD_NUMBER, DOWN, DOWN],
    "few of each kind": [REVOKED, DOWN, LOST, REVOKED, DOWN, LOST],
    "requests' own refusals": [BAD_NUMBER] * 9,
}


@pytest.mark.parametrize("outcomes", OPENS.values(), ids=OPENS)
async def test_faults_of_one_kind_count_together(trial: Trial, outcomes: list[Outcome]) -> None:
    trial.record(*outcomes)

    assert trial.breaker.state == "open"


@pytest.mark.parametrize("outcomes", STAYS_CLOSED.values(), ids=STAYS_CLOSED)
async def test_other_answers_break_a_row(trial: Trial, outcomes: list[Outcome]) -> None:
    trial.record(*outcomes)

    assert trial.breaker.state == "closed"


@pytest.mark.parametrize(
    ("fault", "exempt_line"),
    [(ALLOWANCE, "sip7"), (ALLOWANCE, "reg151083"), (NO_LINE, "reg151083")],
)
async def test_a_line_that_cannot_have_the_fault_breaks_no_row(
    trial: Trial, fault: Refused, exempt_line: str
) -> None:
    trial.record(fault, fault)
    trial.record(PLACED, line=exempt_line)

    trial.record(fault)

    assert trial.breaker.state == "open"


async def test_one_request_that_fails_again_and_again_is_not_the_portal(trial: Trial) -> None:
    for _ in range(9):
        trial.breaker.record(REVOKED, Call("r-1", None, 0))

    assert trial.breaker.state == "closed"


async def test_bugs_of_ours_count_too(trial: Trial) -> None:
    for n in range(3):
        trial.breaker.record_bug(KeyError("x"), Call(f"r-{n}", None, 0))

    assert trial.breaker.detail == "open for bug KeyError"


async def test_answers_to_calls_begun_before_it_opened_do_not_count_after_it(trial: Trial) -> None:
    trial.record(REVOKED, REVOKED, REVOKED)
    await trial.half_open()

    assert trial.record(REVOKED, PLACED, epoch=0) == [None, None]
    assert trial.breaker.state == "half_open"


async def test_the_one_call_let_through_decides(trial: Trial) -> None:
    trial.record(REVOKED, EXPIRED, REVOKED)
    await trial.half_open()
    assert trial.door.told == ["hold portal", 1, "release portal"]
    assert paused_for("refused") == 0

    trial.record(PLACED)

    assert trial.breaker.detail == "closed"
    assert trial.door.told[-1] is None
    assert trial.probed == [{"INVALID_CREDENTIALS", "PAYMENT_REQUIRED"}]


async def test_each_time_it_meets_the_same_the_wait_doubles_up_to_the_longest(
    trial: Trial,
) -> None:
    trial.record(REVOKED, REVOKED, REVOKED)
    waits = []
    for outcome in (REVOKED, EXPIRED, BARE_400, REVOKED, REVOKED):
        await trial.half_open()
        waits += trial.record(outcome)

    assert waits == [0.02, 0.04, 0.08, 0.1, 0.1]


@pytest.mark.parametrize(
    ("outcome", "wait_s"), [(DOWN, 0.02), (LOST, None)], ids=["no connection", "a doubt"]
)
async def test_a_fault_of_another_kind_opens_it_again(
    trial: Trial, outcome: Outcome, wait_s: float | None
) -> None:
    trial.record(REVOKED, REVOKED, REVOKED)
    await trial.half_open()

    assert trial.record(outcome) == [wait_s]
    assert trial.breaker.state == "open"


async def test_a_refusal_of_a_requests_own_says_nothing_about_doubts(trial: Trial) -> None:
    """The portal looks at the number before it asks for the call."""
    trial.record(LOST, LOST, LOST)
    await trial.half_open()

    trial.record(BAD_NUMBER)
    assert trial.breaker.detail.startswith("half_open")

    trial.record(PLACED)
    assert trial.breaker.detail == "closed"


@pytest.mark.parametrize(
    ("outcome", "line", "closes"),
    [
        (PLACED, "sip7", False),
        (BAD_NUMBER, DEFAULT_LINE, False),
        (PLACED, "74951111111", True),
    ],
    ids=["placed by a SIP line", "another refusal", "placed by a rented line"],
)
async def test_it_closes_only_for_a_call_that_could_have_met_the_fault(
    trial: Trial, outcome: Outcome, line: str, *, closes: bool
) -> None:
    trial.record(ALLOWANCE, ALLOWANCE, ALLOWANCE)
    await trial.half_open()

    assert trial.record(outcome, line=line) == [None]
    assert trial.breaker.state == ("closed" if closes else "half_open")


async def test_it_closes_for_a_line_that_met_what_it_cannot_meet(trial: Trial) -> None:
    trial.record(ALLOWANCE, ALLOWANCE, ALLOWANCE, line="sip7")
    await trial.half_open()

    trial.record(PLACED, line="sip7")

    assert trial.breaker.state == "closed"


async def test_as_long_as_a_probe_meets_it_nothing_is_let_through(trial: Trial) -> None:
    trial.probes += [True, True]
    trial.record(REVOKED, REVOKED, REVOKED)
    await trial.half_open()

    assert trial.probes == []
    assert trial.record(REVOKED) == [0.08]  # 0.01, two probes, and the call


async def test_a_lost_connection_is_probed_at_a_pace_of_its_own(trial: Trial) -> None:
    trial.record(DOWN, DOWN, DOWN)
    await trial.half_open()

    assert trial.record(Unavailable(Failure("CONNECT_TIMEOUT", ""))) == [0.04]


async def test_the_portal_may_ask_for_a_longer_wait(trial: Trial) -> None:
    asked = Unavailable(Failure("HTTP_503", "", 503), retry_after_s=0.3)
    trial.record(DOWN, DOWN, DOWN)
    await trial.half_open()

    assert trial.record(asked) == [0.3]
    await trial.half_open()
    assert trial.record(DOWN) == [0.1]


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probe after a moment rather than after half a minute."""
    monkeypatch.setattr(circuit_breaker, "OTHER_WAITS_S", (0.3, 2.4))
    monkeypatch.setattr(circuit_breaker, "CONNECTION_WAITS_S", (0.3, 2.4))


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
        await bench.until(lambda: app.breaker.is_open)
        failed = len(await bench.dead_letters(5))
        assert app.parts()["broker"].ok
        assert trouble.split(maxsplit=1)[0] in app.parts()["pause"].detail
        portal.patch({"trouble": None})
        await bench.until(lambda: len({e["request_id"] for e in bench.heard}) == len(asked))
        await bench.until(lambda: app.breaker.state == "closed")

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
        await bench.until(lambda: app.breaker.is_open)
        await bench.until(lambda: app.breaker._wait_s >= 1.2)  # noqa: SLF001  # twice tried since
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
        await bench.until(lambda: app.breaker.detail.startswith("open for connection"))
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
            await bench.ask(f"+1202555{1000 + number}", text_to_pronounce=f"call {number}")
        await bench.until(lambda: app.breaker.detail.startswith("open for doubt"))
        portal.patch({"trouble": None})
        await bench.until(lambda: len({e["request_id"] for e in bench.heard}) == 17)

    assert max(Counter(call.text for call in portal.calls).values()) == 1


# --- somebody must log in

NO_LOGIN = Refused(Failure("invalid_grant", "over; run `call-consumer login`", None), "login")


async def test_one_refusal_that_a_login_ends_opens_it_and_fails_no_request(trial: Trial) -> None:
    in_flight = trial.breaker.epoch
    waits = trial.record(NO_LOGIN)
    waits += trial.record(NO_LOGIN, NO_LOGIN, epoch=in_flight)

    assert waits == [0.01, 0.01, 0.01]
    assert trial.door.told == ["hold portal"]
    assert trial.breaker.detail == "open for refused INVALID_GRANT: run `call-consumer login`"


async def test_after_a_login_it_is_probed_at_once(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "OTHER_WAITS_S", (900.0, 900.0))
    trial.breaker.probe_now()  # before it opens, which says nothing
    trial.breaker.wait_for_login("NOT_LOGGED_IN")
    await asyncio.sleep(0.01)
    assert trial.probed == []

    trial.breaker.probe_now()
    await trial.half_open()
    trial.record(PLACED)

    assert trial.probed == [{"NOT_LOGGED_IN"}]
    assert trial.breaker.detail == "closed"


async def test_a_late_refusal_does_not_open_it_again_after_the_login(trial: Trial) -> None:
    before = trial.breaker.epoch
    trial.breaker.wait_for_login("NOT_LOGGED_IN")
    trial.breaker.probe_now()
    await trial.half_open()

    trial.record(NO_LOGIN, epoch=before)

    assert trial.breaker.state == "half_open"


async def test_a_pause_for_another_reason_becomes_one_for_the_login(trial: Trial) -> None:
    trial.record(DOWN, DOWN, DOWN)
    trial.breaker.wait_for_login("NOT_LOGGED_IN")
    trial.breaker.wait_for_login("NOT_LOGGED_IN")

    assert "call-consumer login" in trial.breaker.detail
    assert trial.door.told == ["hold portal"] * 2

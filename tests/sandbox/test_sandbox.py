from __future__ import annotations

import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn

from consumer.sandbox import ANSWERS, NUMBERS, SandboxPortal, Switches, create_app
from consumer.sandbox.replies import Error, Page, Reset, Result, Silence

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INFOCALL = "voximplant.infocall.startwithtext"
STATISTIC = "voximplant.statistic.get"
WEBHOOK = "/rest/1/sandbox-not-a-secret/"
NOON = 1773745200.0  # 2026-03-17T12:00:00+01:00


@dataclass
class Clock:
    now: float = NOON

    def __call__(self) -> float:
        return self.now


@dataclass
class Client:
    """Asks a sandbox whose clock stands still, without a network."""

    portal: SandboxPortal
    clock: Clock

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401
        transport = httpx.ASGITransport(create_app(self.portal))
        async with httpx.AsyncClient(transport=transport, base_url="http://portal") as client:
            return await client.request(method, path, **options)

    async def rest(self, method: str, params: object = None) -> httpx.Response:
        return await self.ask("POST", WEBHOOK + method, json=params or {})

    async def place(self, number: str = "+12025550100", **params: object) -> httpx.Response:
        return await self.rest(INFOCALL, form(number) | params)

    async def found(self, **params: object) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (await self.rest(STATISTIC, params)).json()["result"]
        return rows


def form(number: str = "+12025550100") -> dict[str, object]:
    return {"FROM_LINE": "reg151083", "TO_NUMBER": number, "TEXT_TO_PRONOUNCE": "Good afternoon."}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def portal(clock: Clock) -> SandboxPortal:
    return SandboxPortal(Switches(rate_per_s=0), monotonic=clock, wall=clock)


@pytest.fixture
def client(portal: SandboxPortal, clock: Clock) -> Client:
    return Client(portal, clock)


@contextmanager
def served(portal: SandboxPortal) -> Iterator[str]:
    """Serve *portal* over real TCP."""
    config = uvicorn.Config(
        create_app(portal),
        port=0,
        log_config=None,
        date_header=False,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    yield f"http://{host}:{port}"
    server.should_exit = True
    thread.join()


def error_of(response: httpx.Response) -> tuple[int, object, object]:
    body = response.json()
    return response.status_code, body["error"], body["error_description"]


# startwithtext (bitrix24.md 1)


async def test_a_placed_call_is_answered_with_its_id_and_the_time(client: Client) -> None:
    response = await client.place()

    body = response.json()
    assert response.status_code == 200
    assert body["result"]["RESULT"] is True
    assert re.fullmatch(r"infocall\.[0-9a-f]{32}\.\d+", body["result"]["CALL_ID"])
    assert int(body["result"]["CALL_ID"].rpartition(".")[2]) == int(NOON) - 8
    assert body["time"] == {
        "start": int(NOON),
        "finish": NOON + 0.14,
        "duration": pytest.approx(0.14),
        "processing": 0,
        "date_start": "2026-03-17T12:00:00+01:00",
        "date_finish": "2026-03-17T12:00:00+01:00",
        "operating": 0.14,
        "operating_reset_at": int(NOON) + 600,
    }
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert response.headers["Date"] == "Tue, 17 Mar 2026 11:00:00 GMT"


async def test_the_calls_really_placed_can_be_read_and_forgotten(client: Client) -> None:
    placed = [(await client.place(VOICE="ukenglishmale")).json() for _ in range(3)]

    calls = (await client.ask("GET", "/sandbox/calls")).json()
    later = (await client.ask("GET", "/sandbox/calls?since=2")).json()
    after = (await client.ask("DELETE", "/sandbox/calls")).json()

    assert [call["call_id"] for call in calls] == [body["result"]["CALL_ID"] for body in placed]
    assert calls[0] == {
        "id": 1,
        "call_id": placed[0]["result"]["CALL_ID"],
        "from_line": "reg151083",
        "to_number": "+12025550100",
        "text": "Good afternoon.",
        "voice": "ukenglishmale",
        "placed_at": NOON,
        "dated_at": NOON,
        "ended_at": NOON + 20,
        "duration_s": 20,
        "code": "200",
        "reason": "Success call",
    }
    assert later == calls[2:]
    assert after == []


NO_LINE = "Could not find config for number "
CHECKS: dict[str, tuple[dict[str, object], str]] = {
    "the service line": (
        {"FROM_LINE": "LINK_BASE_NUMBER", "TO_NUMBER": ""},
        "Making infocall using LINK_BASE_NUMBER is not allowed",
    ),
    "an unknown line, before the number": (
        {"FROM_LINE": "reg1", "TO_NUMBER": ""},
        f"{NO_LINE}reg1",
    ),
    "an app's line": ({"FROM_LINE": "REST_APP:1"}, f"{NO_LINE}REST_APP:1"),
    "a line in other case": ({"FROM_LINE": "REG151083"}, f"{NO_LINE}REG151083"),
    "no line": ({"FROM_LINE": None}, NO_LINE),
    "no number on a SIP line": ({"TO_NUMBER": ""}, "Phone number is not correct"),
    "number 0 on a SIP line": ({"TO_NUMBER": "0"}, "Phone number is not correct"),
    "no digit on another line": (
        {"FROM_LINE": "74950000000", "TO_NUMBER": "call me"},
        "Phone number is not correct",
    ),
}


@pytest.mark.parametrize(("params", "description"), CHECKS.values(), ids=CHECKS)
async def test_each_check_refuses_in_its_own_words(
    client: Client, params: dict[str, object], description: str
) -> None:
    response = await client.rest(INFOCALL, form() | params)

    assert error_of(response) == (400, "ERROR_CORE", description)
    assert "time" not in response.json()
    assert client.portal.calls == []


DIALLED = {
    "a SIP line: as given": ("sip7", "call me", "call me"),
    "a cloud PBX: as given": ("reg151083", "+1 (999) 12", "+1 (999) 12"),
    "a rented number: only what can be dialled": (
        "74950000000",
        "+1 (999) 1,2;#3*",
        "+19991,2;#3*",
    ),
}


@pytest.mark.parametrize(("line", "number", "dialled"), DIALLED.values(), ids=DIALLED)
async def test_a_number_is_taken_as_its_line_takes_it(
    client: Client, line: str, number: str, dialled: str
) -> None:
    await client.place(number, FROM_LINE=line)

    assert [call.to_number for call in client.portal.calls] == [dialled]


async def test_neither_the_text_nor_the_voice_is_checked(client: Client) -> None:
    response = await client.place(TEXT_TO_PRONOUNCE=" ", VOICE="nobody")

    assert response.status_code == 200


async def test_parameter_names_are_case_sensitive(client: Client) -> None:
    response = await client.rest(INFOCALL, {"from_line": "reg151083", "to_number": "+12025550100"})

    assert error_of(response) == (400, "ERROR_CORE", NO_LINE)


async def test_numbers_in_json_are_taken_as_text(client: Client) -> None:
    await client.place(FROM_LINE=74950000000, TO_NUMBER=12025550100, VOICE=True)

    (call,) = client.portal.calls
    assert (call.from_line, call.to_number, call.voice) == ("74950000000", "12025550100", "1")


async def test_the_monthly_allowance_is_used_up_by_calls_on_rented_numbers_only(
    client: Client,
) -> None:
    client.portal.patch({"allowance": 1})

    placed = [await client.place(FROM_LINE=line) for line in ("sip7", "74950000000", "sip7")]
    refused = await client.place(FROM_LINE="74950000000")

    assert [response.status_code for response in placed] == [200, 200, 200]
    assert error_of(refused) == (400, "ERROR_CORE", "Infocall limit for this month is exceeded")


async def test_errors_of_the_method_can_come_without_a_code(client: Client) -> None:
    client.portal.patch({"error_core": ""})

    assert error_of(await client.place("+12025550124")) == (400, "", "Infocall failure")
    assert error_of(await client.place("+12025550126"))[:2] == (500, "ERROR_CORE")


# How a request is read (6.4)

JSON, FORM = {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}
FORMED = b"FROM_LINE=sip7&TO_NUMBER=%2B12025550100&TEXT_TO_PRONOUNCE=Hi"
READINGS: dict[str, tuple[str, str, Mapping[str, str], bytes, int]] = {
    "JSON": ("POST", "", JSON, json.dumps(form()).encode(), 200),
    "JSON with a charset": (
        "POST",
        "",
        {"Content-Type": "application/json; charset=utf-8"},
        json.dumps(form()).encode(),
        200,
    ),
    "JSON called something else": ("POST", "", FORM, json.dumps(form()).encode(), 400),
    "a form": ("POST", "", FORM, FORMED, 200),
    "a query": ("GET", "?" + FORMED.decode(), {}, b"", 200),
    "half a query, half a form": ("POST", "?FROM_LINE=sip7", FORM, FORMED[15:], 200),
    "invalid JSON": ("POST", "", JSON, b'{"FROM_LINE":', 400),
    "JSON, but no object": ("POST", "", JSON, b'["FROM_LINE"]', 400),
    "half a surrogate pair": ("POST", "", JSON, b'{"FROM_LINE":"sip7","x":"\\ud800"}', 400),
    "invalid UTF-8": ("POST", "", JSON, b'{"FROM_LINE":"\xff"}', 400),
    "a form in invalid UTF-8": ("POST", "", FORM, b"FROM_LINE=\xff", 400),
}


@pytest.mark.parametrize(
    ("verb", "query", "headers", "body", "status"), READINGS.values(), ids=READINGS
)
async def test_what_cannot_be_read_is_no_parameters(
    client: Client, verb: str, query: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    response = await client.ask(verb, WEBHOOK + INFOCALL + query, headers=headers, content=body)

    assert response.status_code == status
    if status == 400:
        assert error_of(response) == (400, "ERROR_CORE", NO_LINE)


NO_METHOD = (404, "ERROR_METHOD_NOT_FOUND")
WRONG_SECRET = (403, "INVALID_CREDENTIALS")
PATHS = {
    "a suffix": (f"{WEBHOOK}{INFOCALL}.json", None),
    "any case": (f"{WEBHOOK}Voximplant.InfoCall.StartWithText.JSON", None),
    "no user id": (f"/rest/sandbox-not-a-secret/{INFOCALL}", NO_METHOD),
    "a user id that is none": (f"/rest/x/sandbox-not-a-secret/{INFOCALL}", NO_METHOD),
    "another user": (f"/rest/2/sandbox-not-a-secret/{INFOCALL}", WRONG_SECRET),
    "another secret": (f"/rest/1/wrong/{INFOCALL}", WRONG_SECRET),
    "no webhook": (f"/rest/{INFOCALL}", (401, "NO_AUTH_FOUND")),
    "no such method, before the secret": ("/rest/1/wrong/no.such", NO_METHOD),
    "no such format": (f"{WEBHOOK}{INFOCALL}.yaml", NO_METHOD),
}


@pytest.mark.parametrize(("path", "refusal"), PATHS.values(), ids=PATHS)
async def test_the_path_says_who_asks_for_what(
    client: Client, path: str, refusal: tuple[int, str] | None
) -> None:
    response = await client.ask("POST", path, json=form())

    if refusal is None:
        assert response.status_code == 200
    else:
        assert error_of(response)[:2] == refusal


async def test_xml_is_answered_if_asked_for(client: Client) -> None:
    client.portal.patch({"lines": {}})

    response = await client.ask("GET", WEBHOOK + "scope.xml")

    assert response.headers["Content-Type"] == "text/xml; charset=utf-8"
    assert "<result><item>call</item><item>telephony</item></result>" in response.text


# The order of processing (6.3): of two things wrong, the earlier one is answered.

ORDER: dict[str, tuple[dict[str, object], str, str]] = {
    "rate, then method": ({"rate_per_s": 1, "threshold": 0}, "no.such", "QUERY_LIMIT_EXCEEDED"),
    "closed, then method": ({"trouble": "PORTAL_DELETED"}, "no.such", "PORTAL_DELETED"),
    "method, then credential": (
        {"trouble": "INVALID_CREDENTIALS"},
        "no.such",
        "ERROR_METHOD_NOT_FOUND",
    ),
    "credential, then scope": (
        {"secret": "another", "scopes": []},
        INFOCALL,
        "INVALID_CREDENTIALS",
    ),
    "scope, then hold": (
        {"scopes": ["telephony"], "trouble": "OVERLOAD_LIMIT"},
        INFOCALL,
        "insufficient_scope",
    ),
    "hold, then operating": (
        {"trouble": "OVERLOAD_LIMIT", "operating_limit_s": 0},
        INFOCALL,
        "OVERLOAD_LIMIT",
    ),
    "permission, then line": ({"trouble": "ACCESS_DENIED", "lines": {}}, INFOCALL, "ACCESS_DENIED"),
}


@pytest.mark.parametrize(("switches", "method", "code"), ORDER.values(), ids=ORDER)
async def test_of_two_things_wrong_the_earlier_one_is_answered(
    client: Client, switches: dict[str, object], method: str, code: str
) -> None:
    client.portal.patch(switches)

    response = await client.rest(method, form())

    assert response.json()["error"] == code


async def test_auth_errors_have_the_documented_or_the_observed_status(client: Client) -> None:
    documented = await client.ask("POST", f"/rest/1/wrong/{INFOCALL}")
    client.portal.patch({"statuses": "observed"})
    observed = await client.ask("POST", f"/rest/1/wrong/{INFOCALL}")

    assert (documented.status_code, observed.status_code) == (403, 401)
    assert documented.json() == observed.json()


# The limits (5)


async def test_the_bucket_takes_its_threshold_and_leaks_once_per_second(client: Client) -> None:
    client.portal.patch({"rate_per_s": 2})

    first = [(await client.rest("server.time")).status_code for _ in range(51)]
    client.clock.now += 0.75
    early = await client.rest("server.time")
    client.clock.now += 0.25
    still = await client.rest("server.time")
    client.clock.now += 2
    later = [(await client.rest("server.time")).status_code for _ in range(4)]

    assert first == [200] * 50 + [503]
    assert error_of(early) == (503, "QUERY_LIMIT_EXCEEDED", "Too many requests")
    assert still.status_code == 503, "the refused requests count too: 52 - 2 + 1"
    assert later == [200, 200, 200, 503]
    assert client.portal.tally.refused_by_rate == 4


async def test_asking_at_the_rate_is_never_refused(client: Client) -> None:
    client.portal.patch({"rate_per_s": 2, "threshold": 2})

    statuses = set()
    for _ in range(100):
        statuses.add((await client.rest("server.time")).status_code)
        client.clock.now += 0.5

    assert statuses == {200}


async def test_operating_time_adds_up_until_the_method_is_blocked_for_ten_minutes(
    client: Client,
) -> None:
    client.portal.patch({"operating_s": 300})
    times = [(await client.place()).json()["time"]]
    client.clock.now += 90
    times.append((await client.place()).json()["time"])

    blocked = await client.place()
    other = await client.rest("server.time")
    client.clock.now = NOON + 599
    still = await client.place()
    client.clock.now = NOON + 600
    again = await client.place()

    assert [spent["operating"] for spent in times] == [300, 600]
    assert [spent["operating_reset_at"] for spent in times] == [int(NOON) + 600] * 2
    assert error_of(blocked) == (
        429,
        "OPERATION_TIME_LIMIT",
        "Method is blocked due to operation time limit.",
    )
    assert "time" not in blocked.json()
    assert (other.status_code, still.status_code, again.status_code) == (200, 429, 200)
    assert again.json()["time"]["operating"] == 600
    assert again.json()["time"]["operating_reset_at"] == int(NOON) + 690


async def test_runs_of_a_tenth_of_a_second_are_not_counted(client: Client) -> None:
    client.portal.patch({"operating_s": 0.1})

    spent = (await client.place()).json()["time"]

    assert (spent["operating"], spent["operating_reset_at"]) == (0, int(NOON) + 600)


async def test_operating_can_be_left_out(client: Client) -> None:
    client.portal.patch({"send_operating": False})

    spent = (await client.place()).json()["time"]

    assert not {"operating", "operating_reset_at"} & spent.keys()


# The other methods (2)


async def test_lines_and_voices_are_maps_and_an_empty_map_is_a_list(client: Client) -> None:
    lines = (await client.rest("voximplant.line.get")).json()
    voices = (await client.rest("voximplant.tts.voices.get")).json()
    client.portal.patch({"lines": {}})
    empty = (await client.rest("voximplant.line.get")).json()

    assert lines["result"]["reg151083"] == "Cloud PBX (9)"
    assert lines["time"]["operating"] == 0
    assert {"usenglishmale", "ruinternalfemale"} <= voices["result"].keys()
    assert empty["result"] == []


PROBES: dict[str, tuple[str, dict[str, object], object]] = {
    "server.time": ("server.time", {}, "2026-03-17T12:00:00+01:00"),
    "scope": ("scope", {}, ["call", "telephony"]),
    "methods": (
        "methods",
        {},
        [
            INFOCALL,
            "voximplant.line.get",
            "voximplant.tts.voices.get",
            STATISTIC,
            "server.time",
            "scope",
            "methods",
            "method.get",
        ],
    ),
    "method.get": ("method.get", {"name": INFOCALL}, {"isExisting": True, "isAvailable": True}),
    "method.get of none": (
        "method.get",
        {"name": "no.such"},
        {"isExisting": False, "isAvailable": False},
    ),
}


@pytest.mark.parametrize(("method", "params", "result"), PROBES.values(), ids=PROBES)
async def test_a_probe_says_what_is_there(
    client: Client, method: str, params: dict[str, object], result: object
) -> None:
    assert (await client.rest(method, params)).json()["result"] == result


RIGHTS: dict[str, tuple[str, dict[str, object], tuple[int, str]]] = {
    "lines denied": ("voximplant.line.get", {"line_list": "denied"}, (403, "ACCESS_DENIED")),
    "lines absent": ("voximplant.line.get", {"line_list": "absent"}, NO_METHOD),
    "history denied": (STATISTIC, {"history": "denied"}, (403, "ACCESS_DENIED")),
    "history absent": (STATISTIC, {"history": "absent"}, NO_METHOD),
    "no telephony scope": (STATISTIC, {"scopes": ["call"]}, (403, "insufficient_scope")),
}


@pytest.mark.parametrize(("method", "switches", "refusal"), RIGHTS.values(), ids=RIGHTS)
async def test_a_right_can_be_missing_while_calls_can_still_be_placed(
    client: Client, method: str, switches: dict[str, object], refusal: tuple[int, str]
) -> None:
    client.portal.patch(switches)

    response, placed = await client.rest(method), await client.place()

    assert error_of(response)[:2] == refusal
    assert placed.status_code == 200


# The call statistics (3)


async def test_a_call_is_listed_only_when_it_has_ended(client: Client) -> None:
    call_id = (await client.place()).json()["result"]["CALL_ID"]

    client.clock.now += 19.5
    ringing = await client.found(FILTER={"CALL_ID": call_id})
    client.clock.now += 0.5
    (row,) = await client.found(FILTER={"CALL_ID": call_id})

    assert ringing == []
    assert row["CALL_TYPE"] == "5"
    assert row["PORTAL_USER_ID"] is None
    assert row["CALL_START_DATE"] == "2026-03-17T12:00:00+01:00"
    assert (row["ID"], row["CALL_DURATION"], row["CALL_FAILED_CODE"]) == ("1", "20", "200")
    assert (row["PORTAL_NUMBER"], row["PHONE_NUMBER"]) == ("reg151083", "+12025550100")
    assert len(row) == 29


async def test_who_may_see_only_their_own_calls_sees_no_infocalls(client: Client) -> None:
    await client.place()
    client.clock.now += 60
    client.portal.patch({"history": "own"})

    response = await client.rest(STATISTIC)

    assert (response.status_code, response.json()["result"]) == (200, [])


FILTERS: dict[str, tuple[dict[str, object], list[str]]] = {
    "nothing": ({}, ["1", "2", "3"]),
    "exact": ({"PORTAL_NUMBER": "sip7"}, ["2"]),
    "exact, spelt out": ({"=PORTAL_NUMBER": "sip7"}, ["2"]),
    "one of several": ({"PORTAL_NUMBER": ["sip7", "74950000000"]}, ["2", "3"]),
    "not": ({"!PORTAL_NUMBER": "sip7"}, ["1", "3"]),
    "not equal": ({"!=PORTAL_NUMBER": "sip7"}, ["1", "3"]),
    "a number as a number": ({"CALL_TYPE": 5, "ID": 2}, ["2"]),
    "a number as a string": ({"CALL_TYPE": "5", "ID": "2"}, ["2"]),
    "another type": ({"CALL_TYPE": 1}, []),
    "above": ({">ID": 2}, ["3"]),
    "from": ({">=ID": "2"}, ["2", "3"]),
    "below": ({"<ID": 2}, ["1"]),
    "up to": ({"<=ID": 2}, ["1", "2"]),
    "between": ({"><ID": [2, 3]}, ["2", "3"]),
    "not between": ({"!><ID": [2, 3]}, ["1"]),
    "part of a number, with or without its plus": ({"%PHONE_NUMBER": "2025550100"}, ["1", "3"]),
    "no part of": ({"!%PHONE_NUMBER": "2025550100"}, ["2"]),
    "searched": ({"?PHONE_NUMBER": "5550101"}, ["2"]),
    "the number in another form": ({"PHONE_NUMBER": "+12025550101"}, []),
    "no user": ({"PORTAL_USER_ID": None}, ["1", "2", "3"]),
    "somebody": ({"!PORTAL_USER_ID": None}, []),
    "since, with an offset": ({">=CALL_START_DATE": "2026-03-17T11:01:00+00:00"}, ["2", "3"]),
    "since, in the portal's zone": ({">=CALL_START_DATE": "2026-03-17T12:01:00"}, ["2", "3"]),
    "no date, dropped": ({">=CALL_START_DATE": "yesterday"}, ["1", "2", "3"]),
    "an unknown operator, dropped": ({"~ID": 2}, ["1", "2", "3"]),
    "operators that are none together, dropped": ({"=>ID": 2}, ["1", "2", "3"]),
    "an unknown field, dropped": ({"CALLID": "no"}, ["1", "2", "3"]),
    "not a filter": ({"ID ": "2"}, ["1", "2", "3"]),
}


@pytest.mark.parametrize(("wanted", "ids"), FILTERS.values(), ids=FILTERS)
async def test_a_filter_keeps_what_it_understands(
    client: Client, wanted: dict[str, object], ids: list[str]
) -> None:
    for number, line in (("00", "reg151083"), ("01", "sip7"), ("00", "74950000000")):
        await client.place(f"+120255501{number}", FROM_LINE=line)
        client.clock.now += 60

    assert [row["ID"] for row in await client.found(FILTER=wanted)] == ids


async def test_a_filter_can_come_in_a_form(client: Client) -> None:
    await client.place("+12025550100")
    await client.place("+12025550101", FROM_LINE="sip7")
    client.clock.now += 60

    response = await client.ask(
        "POST", WEBHOOK + STATISTIC, data={"FILTER[PORTAL_NUMBER][]": "sip7", "FILTER[>ID]": "0"}
    )

    assert [row["ID"] for row in response.json()["result"]] == ["2"]


async def test_dates_of_a_filter_are_shifted_by_the_users_zone(client: Client) -> None:
    await client.place()
    client.clock.now += 60
    since = {">=CALL_START_DATE": "2026-03-17T12:00:00+01:00"}

    here = await client.found(FILTER=since)
    client.portal.patch({"user_offset_h": 2})
    shifted = await client.found(FILTER=since)

    assert (len(here), len(shifted)) == (1, 0)


async def test_fifty_rows_are_a_page_and_total_and_next_stand_beside_them(client: Client) -> None:
    for _ in range(51):
        await client.place()
    client.clock.now += 60

    first = (await client.rest(STATISTIC)).json()
    last = (await client.rest(STATISTIC, {"start": 50})).json()
    uncounted = (await client.rest(STATISTIC, {"start": -1})).json()

    assert (len(first["result"]), first["total"], first["next"]) == (50, 51, 50)
    assert (len(last["result"]), last["total"], last.get("next")) == (1, 51, None)
    assert len(uncounted["result"]) == 50
    assert not {"total", "next"} & uncounted.keys()


SORTS = {
    "newest first": ({"SORT": "ID", "ORDER": "DESC"}, ["2", "1"]),
    "by line": ({"SORT": "PORTAL_NUMBER", "ORDER": "ASC"}, ["1", "2"]),
    "an order in lower case": ({"SORT": "ID", "ORDER": "desc"}, ["1", "2"]),
    "a field that cannot be sorted by": ({"SORT": "CALL_TYPE", "ORDER": "DESC"}, ["2", "1"]),
    "a field always empty": ({"SORT": "COMMENT", "ORDER": "ASC"}, ["1", "2"]),
}


@pytest.mark.parametrize(("params", "ids"), SORTS.values(), ids=SORTS)
async def test_rows_are_sorted_as_asked(
    client: Client, params: dict[str, object], ids: list[str]
) -> None:
    for line in ("reg151083", "sip7"):
        await client.place(FROM_LINE=line)
    client.clock.now += 60

    assert [row["ID"] for row in await client.found(**params)] == ids


# The table of numbers

BREAKS = (Reset, Silence)
WHOLE = {
    number: row
    for number, row in NUMBERS.items()
    if not isinstance(row.answer.reply, BREAKS)
    and not (isinstance(row.answer.reply, Result) and row.answer.reply.damage == "cut")
}


@pytest.mark.parametrize("number", WHOLE)
async def test_each_number_is_answered_as_the_table_says(client: Client, number: str) -> None:
    row = NUMBERS[number]

    response = await client.place(number)

    match row.answer.reply:
        case Error(status, code, description):
            text = description.replace("<FROM_LINE>", "reg151083")
            assert error_of(response) == (status, code, text)
            assert "time" not in response.json()
        case Page(status, content, headers):
            assert (response.status_code, response.text) == (status, content)
            assert response.headers.items() >= {k.lower(): v for k, v in headers.items()}.items()
        case Result(damage="truncated"):
            assert response.text.startswith('{"result": {"RESULT": true, "CALL_ID": "infocall.')
            with pytest.raises(json.JSONDecodeError):
                response.json()
        case Result(result, call_id):
            assert response.json()["result"]["RESULT"] is result
            assert (response.json()["result"]["CALL_ID"] is not None) is call_id
        case Reset() | Silence():
            pytest.fail("breaks the connection")
    assert len(client.portal.calls) == row.answer.places


@pytest.mark.parametrize("failures", range(1, 10))
async def test_a_number_ending_in_011n_fails_n_times_and_then_works(
    client: Client, failures: int
) -> None:
    number = f"1202555011{failures}"

    responses = [await client.place(number) for _ in range(failures + 2)]

    assert [r.json().get("error") for r in responses] == ["CONNECTION_ERROR"] * failures + [
        None
    ] * 2
    assert len(client.portal.calls) == 2


async def test_a_number_is_known_however_it_is_written(client: Client) -> None:
    written = ("+12025550123", "12025550123", "+1 (202) 555-0123")

    answers = {error_of(await client.place(number)) for number in written}

    assert answers == {(400, "ERROR_CORE", "Phone number is not correct")}


async def test_a_number_waits_for_its_turn_in_the_order(client: Client) -> None:
    no_right = await client.place("+12025550125", FROM_LINE="reg1")
    no_line = await client.place("+12025550122", FROM_LINE="reg1")

    assert error_of(no_right)[1] == "ACCESS_DENIED"
    assert error_of(no_line)[2] == f"{NO_LINE}reg1"


def test_every_answer_has_a_number() -> None:
    assert {row.answer.name for row in NUMBERS.values()} == ANSWERS.keys()


def test_every_number_says_what_it_does() -> None:
    assert all(
        row.meaning.endswith(("the call is placed", "the call is not placed"))
        for row in NUMBERS.values()
    )


# Over real TCP


@pytest.fixture
def tcp(portal: SandboxPortal) -> Iterator[httpx.Client]:
    with served(portal) as url, httpx.Client(base_url=url, timeout=5) as client:
        yield client


BROKEN: dict[str, tuple[str, type[Exception], int]] = {
    "reset": ("+12025550160", httpx.ReadError, 0),
    "reset, placed": ("+12025550161", httpx.ReadError, 1),
    "cut answer, placed": ("+12025550167", httpx.RemoteProtocolError, 1),
}


@pytest.mark.parametrize(("number", "error", "placed"), BROKEN.values(), ids=BROKEN)
def test_a_connection_really_breaks(
    portal: SandboxPortal, tcp: httpx.Client, number: str, error: type[Exception], placed: int
) -> None:
    with pytest.raises(error):
        tcp.post(WEBHOOK + INFOCALL, json=form(number))

    assert len(portal.calls) == placed


@pytest.mark.parametrize(("number", "placed"), [("+12025550162", 1), ("+12025550163", 0)])
def test_a_silent_number_answers_nothing(
    portal: SandboxPortal, tcp: httpx.Client, number: str, placed: int
) -> None:
    with pytest.raises(httpx.ReadTimeout):
        tcp.post(WEBHOOK + INFOCALL, json=form(number), timeout=0.1)

    assert len(portal.calls) == placed


def test_after_the_silence_the_connection_is_reset(
    portal: SandboxPortal, tcp: httpx.Client
) -> None:
    portal.patch({"hold_s": 0})

    with pytest.raises(httpx.ReadError, match="reset by peer"):
        tcp.post(WEBHOOK + INFOCALL, json=form("+12025550162"))


@pytest.mark.parametrize(("number", "placed"), [("+12025550180", 1), ("+12025550181", 2)])
def test_a_number_can_break_once_and_then_work(
    portal: SandboxPortal, tcp: httpx.Client, number: str, placed: int
) -> None:
    with pytest.raises(httpx.ReadError):
        tcp.post(WEBHOOK + INFOCALL, json=form(number))
    response = tcp.post(WEBHOOK + INFOCALL, json=form(number))

    assert response.json()["result"]["RESULT"] is True
    assert len(portal.calls) == placed


def test_there_is_one_date_and_it_is_the_portals(portal: SandboxPortal, tcp: httpx.Client) -> None:
    portal.patch({"clock_offset_s": -3600})

    response = tcp.post(WEBHOOK + INFOCALL, json=form())

    assert response.headers.get_list("Date") == ["Tue, 17 Mar 2026 10:00:00 GMT"]
    assert response.json()["time"]["start"] == int(NOON) - 3600
    assert portal.calls[0].placed_at == NOON


async def test_what_breaks_a_connection_asks_for_uvicorn(client: Client) -> None:
    with pytest.raises(RuntimeError, match="needs uvicorn"):
        await client.place("+12025550160")


# Steering (/sandbox)


async def test_switches_can_be_read_and_set(client: Client) -> None:
    before = (await client.ask("GET", "/sandbox")).json()
    after = (await client.ask("PATCH", "/sandbox", json={"history": "own", "hold_s": 1})).json()

    assert after == before | {"history": "own", "hold_s": 1}
    assert client.portal.switches.model_dump(mode="json") == after


WRONG = {
    "an unknown field": (b'{"histroy":"own"}', "histroy"),
    "an unknown trouble": (b'{"trouble":"rain"}', "trouble"),
    "a wrong value": (b'{"rate_per_s":"fast"}', "rate_per_s"),
    "a wrong value and an unknown field": (b'{"hold_s":-1,"hodl":1}', "hodl"),
    "no object": (b"[]", "JSON object"),
    "no JSON": (b"{", "JSON"),
    "infinity": (b'{"hold_s":Infinity}', "hold_s"),
}


@pytest.mark.parametrize(("body", "named"), WRONG.values(), ids=WRONG)
async def test_a_wrong_switch_is_named_and_nothing_is_set(
    client: Client, body: bytes, named: str
) -> None:
    before = client.portal.switches

    response = await client.ask("PATCH", "/sandbox", content=body)

    assert response.status_code == 400
    assert named in response.json()["error"]
    assert client.portal.switches == before


async def test_trouble_of_the_portal_hits_every_method(client: Client) -> None:
    client.portal.patch({"trouble": "502 page"})

    statuses = [
        (await client.rest(method)).status_code for method in (INFOCALL, "scope", "no.such")
    ]

    assert statuses == [502, 502, 502]


async def test_trouble_of_the_method_hits_only_the_method(client: Client) -> None:
    client.portal.patch({"trouble": "monthly limit"})

    placed, lines = await client.place(), await client.rest("voximplant.line.get")

    assert error_of(placed)[2] == "Infocall limit for this month is exceeded"
    assert lines.status_code == 200


@pytest.mark.parametrize("name", ANSWERS)
async def test_any_answer_can_be_the_trouble(client: Client, name: str) -> None:
    response = await client.ask("PATCH", "/sandbox", json={"trouble": name})

    assert response.json()["trouble"] == name


async def test_forgetting_the_calls_lets_the_numbers_fail_anew(client: Client) -> None:
    for _ in range(2):
        await client.place("+12025550111")

    await client.ask("DELETE", "/sandbox/calls")
    again = await client.place("+12025550111")

    assert again.json()["error"] == "CONNECTION_ERROR"


async def test_requests_are_counted_by_their_answer(client: Client) -> None:
    for number in ("+12025550100", "+12025550123"):
        await client.place(number)
        client.clock.now += 1
    await client.rest("scope")
    client.portal.patch({"rate_per_s": 1, "threshold": 0})
    await client.place()

    seen = (await client.ask("GET", "/sandbox/requests")).json()
    after = (await client.ask("DELETE", "/sandbox/requests")).json()

    assert seen == {
        "total": 4,
        "refused_by_rate": 1,
        "by_answer": {"placed": 1, "bad number": 1, "ok": 1, "QUERY_LIMIT_EXCEEDED": 1},
        "arrivals": [NOON, NOON + 1, NOON + 2],
    }
    assert after["total"] == 0


async def test_calls_can_be_asked_for_only_by_how_many_were_seen(client: Client) -> None:
    response = await client.ask("GET", "/sandbox/calls?since=yesterday")

    assert response.status_code == 400

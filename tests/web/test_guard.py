"""What a hostile page, a guesser of passwords or a curious neighbour gets: nothing."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import httpx
import pytest
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import StreamingResponse
from structlog.testing import capture_logs

from consumer.operations.forms import Form
from consumer.operations.sign_in import Attempts, NotSignedIn, signed_in
from consumer.rabbitmq import connection
from consumer.web import visit
from consumer.web.guard import POLICY, Place
from consumer.web.live import MOST_STREAMS, live
from consumer.web.sessions import (
    LONGEST_S,
    MOST_KEPT,
    MOST_OF_ONE,
    MOST_SESSIONS,
    Session,
    Sessions,
)
from consumer.web.visit import Visit
from tests import canary
from tests.web.conftest import Pages, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.workbench import Bench

pytestmark = pytest.mark.xdist_group("browser")


class Client:
    """A program that knows the pages and may leave anything out."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages
        self.http = httpx.AsyncClient(base_url=pages.url, trust_env=False)
        self.ours = {"origin": pages.url.rstrip("/")}
        self.csrf = ""

    async def sign_in(self, user: str = "ann", password: str | None = None) -> httpx.Response:
        form = await self.http.get("/sign-in")
        told = {"user": user, "password": password or user[::-1], "csrf": csrf_of(form)}
        answer = await self.post("/sign-in", **told)
        if answer.status_code == 303:
            self.csrf = csrf_of(await self.http.get("/"))
        return answer

    async def post(self, path: str, **fields: str) -> httpx.Response:
        return await self.http.post(path, data={"csrf": self.csrf} | fields, headers=self.ours)


def csrf_of(page: httpx.Response) -> str:
    found = re.search(r'name="csrf" value="(.+?)"', page.text)
    return found[1] if found else ""


@pytest.fixture
async def client(bench: Bench) -> AsyncIterator[Client]:
    async with served(bench) as pages:
        client = Client(pages)
        yield client
        await client.http.aclose()


PATHS = ("/", "/dead-letters", "/waiting", "/blocks", "/live/now", "/jobs/x", "/letters/x/0")


async def test_who_has_not_signed_in_sees_nothing(client: Client) -> None:
    for path in PATHS:
        answer = await client.http.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    for path in ("/pause", "/choose", "/cancel", "/blocks", "/jobs/x", "/confirm/x"):
        answer = await client.post(path, reason="why not")
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")


async def test_a_wrong_password_is_refused_and_in_no_log(client: Client) -> None:
    with capture_logs() as logged:
        answer = await client.sign_in("ann", "wr0ng-passw0rd")

    assert answer.status_code == 403
    assert "refuses this name or this password" in answer.text
    assert not re.search("wr0ng-passw0rd", f"{logged} {answer.text}")
    assert not any("wr0ng-passw0rd" in urls for urls in connection._KNOWN)  # noqa: SLF001


async def test_attempts_are_slowed(client: Client) -> None:
    answers = [(await client.sign_in("ann", "wrong")).status_code for _ in range(4)]

    assert 429 in answers


def test_the_wait_grows_and_a_name_is_never_locked() -> None:
    now = 0.0
    attempts = Attempts(lambda: now)
    waits = []
    for _ in range(12):
        assert attempts.begin(user="ann", client="guesser") == 0
        waits.append(attempts.begin(user="bob", client="guesser"))
        assert attempts.begin(user="ann", client="her own") <= 2
        now += waits[-1]

    assert waits == sorted(waits)
    assert waits[-1] == 30
    attempts.succeeded(user="ann", client="guesser")
    assert attempts.begin(user="ann", client="guesser") == 0
    assert attempts.begin(user="bob", client="guesser") == 30, "a password of one's own is no pass"


async def test_who_has_not_signed_in_does_not_learn_where_the_broker_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bench.given, "rabbitmq_url", "amqp://guest:guest@127.0.0.1:9/")
    async with served(bench) as pages:
        client = Client(pages)
        with capture_logs() as logged:
            answer = await client.sign_in()
        await client.http.aclose()

    assert answer.status_code == 503
    assert "127.0.0.1" not in answer.text
    assert "127.0.0.1:9" in next(one["reason"] for one in logged if "broker" in one["event"])


@pytest.mark.parametrize(
    "headers",
    [{}, {"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}],
)
async def test_a_form_of_another_page_is_refused(client: Client, headers: dict[str, str]) -> None:
    await client.sign_in()
    client.ours = headers

    assert (await client.post("/pause", reason="why not")).status_code == 403


async def test_a_form_without_this_sessions_token_is_refused(client: Client) -> None:
    await client.sign_in()
    for csrf in ("", "x", client.http.cookies["call-consumer"]):
        assert (await client.post("/pause", reason="why not", csrf=csrf)).status_code == 403
    form = urlencode({"user": "ann", "password": "nna", "csrf": ""})
    answer = await client.http.post("/sign-in", content=form, headers=client.ours)
    assert answer.status_code == 403


async def test_a_name_that_is_made_to_lead_here_is_refused(client: Client) -> None:
    answer = await client.http.get("/sign-in", headers={"host": "evil.example"})

    assert answer.status_code == 421


async def test_every_answer_tells_the_browser_to_be_strict(client: Client) -> None:
    await client.sign_in()
    for path in (*PATHS[:4], "/static/page.css", "/nothing", "/sign-in"):
        headers = (await client.http.get(path)).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
    assert "unsafe" not in POLICY


async def test_pages_hold_no_code_and_no_style_of_their_own(client: Client) -> None:
    await client.sign_in()
    for path in PATHS[:4]:
        text = (await client.http.get(path)).text
        assert not re.search(r"<script>|<style|\son\w+=|\sstyle=|javascript:", text)


async def test_a_session_has_a_cookie_of_its_own_and_ends(client: Client) -> None:
    first = await client.sign_in()
    before = client.http.cookies["call-consumer"]
    await client.sign_in()
    after = client.http.cookies["call-consumer"]
    await client.post("/sign-out")

    assert re.search("HttpOnly.*SameSite=strict", first.headers["set-cookie"], re.IGNORECASE)
    assert before != after
    for token in (before, after):
        answer = await client.http.get("/", headers={"cookie": f"call-consumer={token}"})
        assert answer.headers["location"] == "/sign-in"
    assert not any("ann:nna" in urls for urls in connection._KNOWN)  # noqa: SLF001


async def test_behind_a_proxy_cookies_are_for_tls_alone(bench: Bench) -> None:
    async with served(bench, behind_proxy=True) as pages:
        client = Client(pages)
        client.http.headers["host"] = "calls.example"
        client.ours = {"origin": "https://calls.example"}
        form = await client.http.get("/sign-in")
        cookie = form.headers["set-cookie"]
        await client.http.aclose()

    assert "; Secure" in cookie
    assert "max-age" in form.headers["strict-transport-security"]


def test_what_a_client_says_of_itself_counts_only_behind_a_proxy() -> None:
    told = httpx.Headers({"x-forwarded-for": "1.1.1.1, 192.0.2.7"})

    assert Place(behind_proxy=True).client(told, "127.0.0.1") == "192.0.2.7"  # type: ignore[arg-type]
    assert Place().client(told, "127.0.0.1") == "127.0.0.1"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("origin", "ours"),
    [("https://calls.example", True), ("http://calls.example", False), ("calls.example", False)],
)
def test_behind_a_proxy_a_form_comes_over_tls(origin: str, *, ours: bool) -> None:
    told = Headers({"host": "calls.example", "origin": origin})

    assert (Place(behind_proxy=True).refusal("POST", told) is None) == ours


async def test_a_neighbour_who_sets_our_cookies_gets_nothing_by_it(client: Client) -> None:
    told = {"cookie": "call-consumer-form=known; call-consumer=known"}
    form = await client.http.get("/sign-in", headers=told)
    fields = {"user": "ann", "password": "nna", "csrf": "known"}
    answer = await client.http.post("/sign-in", data=fields, headers=client.ours | told)

    assert csrf_of(form) not in {"", "known"}
    assert answer.status_code == 403
    assert (await client.sign_in()).status_code == 303


async def test_over_tls_no_neighbour_can_set_our_cookies(bench: Bench) -> None:
    async with served(bench, behind_proxy=True) as pages:
        client = Client(pages)
        client.http.headers["host"] = "calls.example"
        client.ours = {"origin": "https://calls.example"}
        form = await client.http.get("/sign-in")
        cookie = form.headers["set-cookie"].partition(";")[0]
        told = {"user": "ann", "password": "nna", "csrf": csrf_of(form)}
        answers = [
            await client.http.post("/sign-in", data=told, headers=client.ours | {"cookie": given})
            for given in (cookie.removeprefix("__Host-"), cookie)
        ]
        _, session = answers[1].headers.get_list("set-cookie")
        page = await client.http.get("/", headers={"cookie": session.partition(";")[0]})
        ours = {"cookie": session.partition(";")[0]} | client.ours
        out = await client.http.post("/sign-out", data={"csrf": csrf_of(page)}, headers=ours)
        await client.http.aclose()

    assert [answer.status_code for answer in answers] == [403, 303]
    for told_to_browser in (session, out.headers["set-cookie"]):
        assert re.match("__Host-call-consumer=.*; Path=/; .*Secure$", told_to_browser)
        assert "Domain" not in told_to_browser
    assert "Max-Age=0" in out.headers["set-cookie"]


async def test_no_answer_is_without_the_guard(client: Client) -> None:
    await client.sign_in()
    for path in ("/letters/x/" + "9" * 5_000, "/blocks/", "/static", "/static/..%2f..%2fapp.py"):
        answer = await client.http.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-security-policy"] == POLICY


async def test_a_second_click_does_nothing(client: Client) -> None:
    await client.sign_in()
    asked = await client.post("/blocks", kind="line", value="reg1", reason="why not")
    with capture_logs() as logged:
        answers = await asyncio.gather(*(client.post(asked.headers["location"]) for _ in range(3)))

    assert [answer.status_code for answer in answers] == [200] * 3
    assert sorted("Answered before" in answer.text for answer in answers) == [False, True, True]
    assert [line["event"] for line in logged if line["event"] in {"block.added", "web.bug"}] == [
        "block.added"
    ]


async def test_streams_of_one_session_are_bounded_however_fast_they_come(client: Client) -> None:
    await client.sign_in()
    session = client.pages.desk.sessions.find(client.http.cookies["call-consumer"])
    assert session is not None
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": []})
    visit = Visit(client.pages.desk, request, session, Form({}))

    async def part(_: Visit) -> str:
        return "now"

    async def begin() -> AsyncIterator[str]:
        answer = await live(part)(visit)
        assert isinstance(answer, StreamingResponse)
        return aiter(answer.body_iterator)  # type: ignore[arg-type]

    streams = [await begin() for _ in range(MOST_STREAMS + 1)]
    told = [await anext(stream, "nothing") for stream in streams]
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]

    assert told == ["data: now\n\n"] * MOST_STREAMS + ["nothing"]
    assert session.streams == 0


async def test_no_page_and_no_log_shows_what_was_planted(client: Client, bench: Bench) -> None:
    shown = []
    with capture_logs() as logged:
        async with bench.running():
            id_ = await bench.ask(canary.NUMBER, from_line="reg404")
            await bench.event(id_)
            await client.sign_in()
            list_ = (await client.post("/choose", then="letters", all="1")).headers["location"]
            found = (await client.post("/requests", id=id_)).headers["location"]
            plan = list_.replace("letters", "replay")
            paths = ["/", "/dead-letters", "/waiting", list_, f"{list_}/0", found]
            plan_form = (await client.http.get(plan)).text
            shown.append(plan_form.replace('placeholder="+12025550100"', ""))
            fields = {"set-to_number": canary.NUMBER, "set-text_to_pronounce": canary.TEXT}
            paths.append((await client.post(plan, **fields)).headers["location"])
            block = {"kind": "number", "value": canary.NUMBER, "reason": canary.NUMBER}
            paths.append((await client.post("/blocks", **block)).headers["location"])
            shown += [(await client.http.get(path)).text for path in paths]
            shown.append((await client.post(paths[-1])).text)
            revealed = await client.post(f"{list_}/0")
            shown.append((await client.http.get("/blocks")).text)

    assert [canary.seen_in(text) for text in [*shown, str(logged)]] == [[]] * (len(shown) + 1)
    assert canary.seen_in(revealed.text) == ["number", "text"]


async def test_streams_end_with_their_session_and_with_the_server(bench: Bench) -> None:
    async with served(bench) as pages:
        clients = Client(pages), Client(pages)
        told = []
        for client in clients:
            await client.sign_in()
            told.append(asyncio.create_task(client.http.get("/live/now")))
        await asyncio.sleep(0.2)
        await clients[0].post("/sign-out")
        ended = [await asyncio.wait_for(told[0], 1)]
    ended.append(await told[1])
    for client in clients:
        await client.http.aclose()

    assert all(answer.text.endswith("event: over\ndata:\n\n") for answer in ended)


async def test_passwords_that_the_broker_would_misread_are_not_tried(client: Client) -> None:
    for password in ("", "a\0b"):
        with pytest.raises(NotSignedIn, match="Write name and password"):
            await signed_in(client.pages.desk.settings, "guest", password)


async def test_a_form_that_is_too_large_or_no_form_is_refused(client: Client) -> None:
    await client.sign_in()

    assert (await client.post("/cancel", ids="x" * 70_000)).status_code == 413
    binary = await client.http.post("/cancel", content=b"\xff\xfe", headers=client.ours)
    assert binary.status_code == 400


async def test_a_form_that_does_not_arrive_is_given_up(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visit, "FORM_WITHIN_S", 0.05)
    url = httpx.URL(client.pages.url)
    head = f"POST /sign-in HTTP/1.1\r\nHost: {url.netloc.decode()}\r\nContent-Length: 100\r\n"
    reader, writer = await asyncio.open_connection(url.host, url.port)

    writer.write(f"{head}Origin: {client.ours['origin']}\r\n\r\ncsrf=".encode())
    answer = await asyncio.wait_for(reader.readline(), 5)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_another_session_sees_nothing_that_one_keeps(client: Client) -> None:
    await client.sign_in()
    chosen = await client.post("/choose", then="letters", all="1")
    other = Client(client.pages)
    await other.sign_in("bob")
    seen = await other.http.get(chosen.headers["location"])
    await other.http.aclose()

    assert seen.status_code == 404
    assert (await client.http.get(chosen.headers["location"])).status_code == 200


async def test_wrong_words_in_forms_are_told(client: Client) -> None:
    await client.sign_in()
    for path, fields, told in [
        ("/choose", {"then": "letters"}, "Nothing is chosen"),
        ("/choose", {"then": "elsewhere", "all": "1"}, "Say what to do"),
        ("/choose", {"then": "letters", "number": "+1"}, "Number:"),
        ("/choose", {"then": "letters", "since": "once"}, "Since: write 7d"),
        ("/choose", {"then": "letters", "metadata": "campaign"}, "KEY=VALUE"),
        ("/choose", {"then": "letters", "group": "[1"}, "cannot be read"),
        ("/choose", {"then": "letters", "group": '["a", {}, []]'}, "cannot be read"),
        ("/pause", {"reason": ""}, "in a few words why"),
        ("/cancel", {"reason": "x", "ids": ""}, "no request is chosen"),
        ("/cancel", {"reason": "x", "ids": "a b"}, "request_id"),
        ("/blocks", {"reason": "x", "kind": "number", "value": "12"}, "Number:"),
        ("/requests", {"id": " "}, "the id of a request"),
    ]:
        answer = await client.post(path, **fields)
        assert (answer.status_code in {400, 409}, told in answer.text) == (True, True), fields


def test_sessions_and_what_they_keep_are_bounded() -> None:
    sessions = Sessions(60)
    made = [a_session(f"user {n}") for n in range(MOST_SESSIONS + 1)]
    for session in made:
        sessions.add(session)
    words = [made[-1].keep(n) for n in range(MOST_KEPT + 1)]

    assert sessions.find(made[0].token) is None
    assert sessions.find(made[-1].token) is made[-1]
    assert words[0] not in made[-1].kept
    made[-1].began_at -= LONGEST_S
    assert sessions.find(made[-1].token) is None


def test_who_signs_in_again_and_again_ends_nobody_elses_session() -> None:
    sessions = Sessions(60)
    other = a_session("bob")
    made = [a_session() for _ in range(MOST_SESSIONS)]
    for session in (other, *made):
        sessions.add(session)

    assert sessions.find(other.token) is other
    assert len([one for one in made if sessions.find(one.token)]) == MOST_OF_ONE


def test_attempts_hold_little_whatever_is_tried() -> None:
    attempts = Attempts(lambda: 0.0)
    attempts.begin(user="x" * 60_000, client="guesser")

    assert len(str(vars(attempts))) < 1_000


def a_session(user: str = "ann") -> Session:
    from consumer.settings import Settings  # noqa: PLC0415

    return Session(user, Settings.model_validate({"rabbitmq_url": "amqp://ann:nna@localhost/"}))


async def test_a_user_who_is_locked_out_is_out_at_once(client: Client, bench: Bench) -> None:
    await client.sign_in()
    session = client.pages.desk.sessions.find(client.http.cookies["call-consumer"])
    assert session is not None
    wrong = bench.settings(rabbitmq_url=bench.given["rabbitmq_url"].replace("guest:", "nobody:"))
    session.settings = wrong

    assert (await client.http.get("/")).headers["location"] == "/sign-in"
    assert client.pages.desk.sessions.find(session.token) is None

"""OAuth from end to end: a worker, the real broker, and the sandbox as portal and token server."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from consumer import login_watch, oauth
from consumer.app import App
from consumer.bitrix24.access import NoAccess
from consumer.bitrix24.portal import Portal
from consumer.bitrix24.token_server import TokenServer
from consumer.bitrix24.tokens import Code, TokenAnswer, read_tokens
from consumer.cli.main import main
from consumer.ledger import Ledger, LedgerDown
from consumer.ledger.tokens import TokenRows
from consumer.operations.check import check
from consumer.operations.check_login import check_login
from consumer.operations.login import LoginFailed, log_in
from consumer.rabbitmq.topology import topology_of
from consumer.settings import Settings
from consumer.way_in import access_by

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from consumer.sandbox import SandboxPortal
    from tests.commands import Command
    from tests.portals import ForeignPortal
    from tests.workbench import Bench

EXPIRED = "expired_token"
NO_BREAK = {"pause_after": 1000}


@pytest.fixture
def given(bench: Bench, portal: SandboxPortal, portal_url: str) -> dict[str, Any]:
    """Have the bench use OAuth; return the settings that say so."""
    root = portal_url.partition("/rest/")[0]
    given = {
        "bitrix24_url": f"{root}/rest/",
        "oauth_client_id": portal.switches.client_id,
        "oauth_client_secret": portal.switches.client_secret,
        "oauth_server_url": f"{root}/",
    }
    bench.given.update(given)
    return given


@pytest.fixture
async def logged_in(bench: Bench, given: dict[str, Any], portal: SandboxPortal) -> Settings:
    assert given
    settings = bench.settings()
    await log_in(settings, Code(portal.oauth.code()))
    return settings


@pytest.fixture
def _quick_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_watch, "LOOK_S", 0.05)


async def test_a_call_shows_the_token_in_its_body(
    bench: Bench, portal: SandboxPortal, logged_in: Settings
) -> None:
    async with bench.running():
        event = await bench.event(await bench.ask())

    assert logged_in.oauth_client_id
    assert event.message.type == "call.started"
    assert len(portal.calls) == 1
    assert (portal.oauth.tally["logins"], portal.oauth.tally["refreshes"]) == (1, 0)


async def test_a_token_that_expires_is_renewed_once_for_all_calls_in_flight(
    bench: Bench, portal: SandboxPortal, logged_in: Settings
) -> None:
    portal.oauth.expire()
    async with bench.running(concurrency=20, **NO_BREAK):
        ids = [await bench.ask() for _ in range(40)]
        events = [await bench.event(each) for each in ids]
        portal.oauth.expire()
        more = [await bench.ask() for _ in range(40)]
        events += [await bench.event(each) for each in more]

    assert logged_in.oauth_client_id
    assert {event.message.type for event in events} == {"call.started"}
    assert {event["attempt"] for event in events} == {1}
    assert len(portal.calls) == 80
    assert (portal.oauth.tally["refreshes"], portal.oauth.tally["rotated"]) == (2, 0)


async def test_a_second_refusal_is_the_ordinary_outcome(
    bench: Bench, portal: SandboxPortal, logged_in: Settings
) -> None:
    portal.patch({"token_lifetime_s": 0})
    portal.oauth.expire()
    async with bench.running(**NO_BREAK):
        event = await bench.event(await bench.ask())

    assert logged_in.oauth_client_id
    assert (event["reason"], event["code"], event["attempt"]) == ("refused", EXPIRED, 1)
    assert portal.tally.by_answer[EXPIRED] == 2
    assert portal.oauth.tally["refreshes"] == 1


@pytest.mark.usefixtures("_quick_look")
@pytest.mark.parametrize("application", ["revoked", "removed"])
async def test_without_a_usable_token_all_waits_until_somebody_logs_in(
    bench: Bench, portal: SandboxPortal, logged_in: Settings, application: str
) -> None:
    portal.patch({"application": application})
    portal.oauth.expire()
    asked = {"pause_after": 1} if application == "removed" else {}
    async with bench.running(concurrency=5, **asked) as app:
        ids = [await bench.ask() for _ in range(8 if application == "revoked" else 1)]
        await bench.until(lambda: app.breaker.is_open)
        portal.patch({"application": "installed"})
        detail = app.breaker.detail
        ready = app.parts()
        await log_in(logged_in, Code(portal.oauth.code()))
        await bench.until(lambda: not app.breaker.is_open)
        more = [await bench.ask() for _ in range(3)]
        for each in more:
            assert (await bench.event(each)).message.type == "call.started"

        assert app.breaker.state == "closed"
        assert all(part.ok for part in ready.values())
    if application == "revoked":
        assert "call-consumer login" in detail
        assert not [e for each in ids for e in bench.events_of(each) if "reason" in e.fields]
        assert portal.oauth.tally["refused"] == 1


@pytest.mark.usefixtures("_quick_look", "given")
async def test_a_worker_without_tokens_starts_is_ready_and_waits_for_a_login(
    bench: Bench, portal: SandboxPortal, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [await bench.ask() for _ in range(8)]
    app = App(bench.settings())
    task = asyncio.create_task(app.run())
    await bench.until(lambda: app.parts()["started"].ok)
    await asyncio.sleep(0.2)
    parts = app.parts()
    await log_in(bench.settings(), Code(portal.oauth.code()))
    for each in ids:
        assert (await bench.event(each)).message.type == "call.started"
    app.stop()
    await task

    assert all(part.ok for part in parts.values())
    assert "NOT_LOGGED_IN: run `call-consumer login`" in parts["pause"].detail
    assert len(portal.calls) == 8
    assert capsys.readouterr().out.count("tokens.missing") == 1


async def test_an_authorisation_server_that_is_away_makes_calls_wait_undialled(
    bench: Bench, portal: SandboxPortal, logged_in: Settings
) -> None:
    portal.patch({"authorisation_down": True})
    portal.oauth.expire()
    async with bench.running(**NO_BREAK):
        request = await bench.ask()
        await bench.until(lambda: portal.oauth.tally["down"] > 0)
        portal.patch({"authorisation_down": False})
        event = await bench.event(request)

    assert logged_in.oauth_client_id
    assert event.message.type == "call.started"
    assert event["attempt"] > 1
    assert len(portal.calls) == 1


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, bench: Bench, given: dict[str, Any]) -> Settings:
    """Lend settings of replicas that share a ledger."""
    if request.param == "postgresql":
        bench.given["ledger_url"] = request.getfixturevalue("database_url")
    return Settings.model_validate(bench.given | given)


@asynccontextmanager
async def replica(settings: Settings) -> AsyncIterator[Portal]:
    """Lend the portal as one replica sees it."""
    ledger = Ledger(settings.ledger_url.get_secret_value(), settings.queue, 2)
    await ledger.open()
    portal = Portal(access_by(settings, ledger))
    yield portal
    await portal.close()
    await ledger.close()


async def test_replicas_renew_once_for_each_expiry(portal: SandboxPortal, shared: Settings) -> None:
    lifetime_s = 1.0  # on a slow disk a renewal takes a part of it
    portal.patch({"token_lifetime_s": lifetime_s})
    await log_in(shared, Code(portal.oauth.code()))
    began = time.monotonic()

    async def ask(of: Portal) -> list[bool]:
        went_well = []
        for _ in range(25):
            answer = await of.ask("server.time")
            went_well.append(answer is not None and answer[0] == 200)
            await asyncio.sleep(0.1)  # time is what tokens run out of
        return went_well

    async with replica(shared) as one, replica(shared) as two, replica(shared) as three:
        went_well = await asyncio.gather(*(ask(each) for each in (one, two, three) * 4))

    assert all(well for each in went_well for well in each)
    assert portal.oauth.tally["rotated"] == portal.oauth.tally["refused"] == 0
    assert 2 <= portal.oauth.tally["refreshes"] <= (time.monotonic() - began) / lifetime_s


async def test_who_dies_while_renewing_stops_the_others_for_a_while_only(
    portal: SandboxPortal, shared: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log_in(shared, Code(portal.oauth.code()))
    ledger = Ledger(shared.ledger_url.get_secret_value(), shared.queue)
    await ledger.open()
    rows = ledger.tokens(shared.needed("bitrix24_url"))
    row = await rows.read()
    assert row is not None
    await rows.begin_renewal(row, "who dies")
    await ledger.close()
    portal.oauth.expire()
    monkeypatch.setattr(oauth, "RENEWAL_LASTS_S", 0.2)

    async with replica(shared) as one, replica(shared) as two:
        answers = await asyncio.gather(one.ask("server.time"), two.ask("server.time"))

    assert [answer and answer[0] for answer in answers] == [200, 200]
    assert (portal.oauth.tally["refreshes"], portal.oauth.tally["rotated"]) == (1, 0)


async def test_a_login_during_a_renewal_that_is_refused_is_what_counts(
    portal: SandboxPortal, shared: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log_in(shared, Code(portal.oauth.code()))
    portal.oauth.expire()
    refresh = TokenServer.refresh

    async def log_in_meanwhile(self: TokenServer, *asked: Any) -> TokenAnswer:  # noqa: ANN401
        portal.patch({"application": "revoked"})
        answer = await refresh(self, *asked)
        portal.patch({"application": "installed"})
        await log_in(shared, Code(portal.oauth.code()))
        return answer

    monkeypatch.setattr(TokenServer, "refresh", log_in_meanwhile)
    async with replica(shared) as one:
        answer = await one.ask("server.time")

    assert answer is not None
    assert answer[0] == 200
    assert portal.oauth.tally["refused"] == 1


async def test_a_new_token_is_kept_though_the_ledger_fails_for_a_while(
    portal: SandboxPortal, shared: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log_in(shared, Code(portal.oauth.code()))
    portal.oauth.expire()
    monkeypatch.setattr(oauth, "WRITE_AGAIN_S", 0.01)
    write, fails = TokenRows.renew, 3

    async def fail_at_first(self: TokenRows, generation: int, sealed: bytes) -> bool:
        nonlocal fails
        fails -= 1
        if fails > 0:
            raise LedgerDown("the disk is full")
        return await write(self, generation, sealed)

    monkeypatch.setattr(TokenRows, "renew", fail_at_first)
    async with replica(shared) as one:
        assert await one.ask("server.time") is not None
    portal.oauth.expire()
    async with replica(shared) as two:
        answer = await two.ask("server.time")

    assert answer is not None
    assert answer[0] == 200
    assert portal.oauth.tally["rotated"] == 0


async def test_a_copy_of_the_ledger_yields_no_token(
    bench: Bench, portal: SandboxPortal, logged_in: Settings, tmp_path: Path
) -> None:
    async with bench.running():
        await bench.event(await bench.ask())
    files = [tmp_path / name for name in ("ledger.db", "ledger.db-wal")]
    stolen = b"".join([await asyncio.to_thread(f.read_bytes) for f in files if f.exists()])
    other = logged_in.model_copy(update={"oauth_client_secret": SecretStr("another")})
    async with replica(other) as thief:
        with pytest.raises(NoAccess, match="another client secret"):
            await thief.ask("server.time")

    for token in portal.oauth.given_out:
        assert token.encode() not in stolen


@pytest.mark.usefixtures("given")
async def test_a_mock_that_knows_one_method_is_enough(bench: Bench, foreign: ForeignPortal) -> None:
    bench.given["bitrix24_url"] = foreign.url.replace("/rest/1/foreign-s3cret/", "/rest/")
    settings = bench.settings()
    tokens = read_tokens({"access_token": "an-access-token", "refresh_token": "b"}, time.time())
    await log_in(settings, tokens)
    async with bench.running():
        event = await bench.event(await bench.ask())

    assert event.message.type == "call.started"
    assert foreign.asked[-1]["auth"] == "an-access-token"


@pytest.mark.usefixtures("given")
async def test_a_portal_that_quotes_the_token_is_starred(
    bench: Bench, foreign: ForeignPortal
) -> None:
    bench.given["bitrix24_url"] = foreign.url.replace("/rest/1/foreign-s3cret/", "/rest/")
    quoting = {"error": "NO_AUTH_FOUND", "error_description": "bad token canary-access, canary-r"}
    foreign.answers["+12025550100"] = [foreign.reply(401, quoting)]
    given = {"access_token": "canary-access", "refresh_token": "canary-refresh"}
    await log_in(bench.settings(), read_tokens(given, time.time()))
    async with bench.running():
        event = await bench.event(await bench.ask())

    assert event["description"] == "bad token ***, canary-r"


@pytest.mark.parametrize("number", ["+12025550136", "+12025550140", "+12025550144"])
async def test_a_token_is_not_renewed_for_another_refusal(
    bench: Bench, portal: SandboxPortal, logged_in: Settings, number: str
) -> None:
    portal.patch({"statuses": "observed"})  # 401, as for a token that is over
    async with bench.running(**NO_BREAK):
        event = await bench.event(await bench.ask(number))

    assert logged_in.oauth_client_id
    assert (event["reason"], event["http_status"]) == ("refused", 401)
    assert portal.oauth.tally["refreshes"] == 0


# --- what must be seen nowhere


async def test_no_token_code_or_secret_is_seen_anywhere(
    bench: Bench,
    portal: SandboxPortal,
    given: dict[str, Any],
    call_consumer: Callable[..., Command],
) -> None:
    settings = {**bench.given, **given, "log_level": "debug", "retry_delays_s": "1,2"}
    bench.settings()
    tokens = await log_in(Settings.model_validate(bench.given), Code(code := portal.oauth.code()))
    portal.oauth.expire()
    command = call_consumer("run", **settings)
    good = await bench.event(await bench.ask())
    portal.patch({"application": "revoked"})
    portal.oauth.expire()
    await bench.ask()
    await bench.until(lambda: bool(command.log("worker.paused")))
    command.terminate()
    await bench.until(lambda: command.code is not None)
    checked, listed = (call_consumer(name, **settings) for name in ("check", "lines"))
    await bench.until(lambda: None not in {checked.code, listed.code})

    told = [
        file.read_text()
        for each in (command, checked, listed)
        for file in (each.stdout, each.stderr)
    ]
    seen = "".join([*told, repr(tokens), str(good.fields), str(good.headers)])
    secrets = [*portal.oauth.given_out, code, portal.switches.client_secret]
    assert len(secrets) >= 5
    assert not [secret for secret in secrets if secret in seen]
    assert "worker.paused" in seen
    assert "run `call-consumer login`" in seen


# --- the command


async def test_a_newcomer_logs_in(
    bench: Bench,
    given: dict[str, Any],
    call_consumer: Callable[..., Command],
) -> None:
    settings = {**bench.given, **given, "retry_delays_s": "1,2"}
    login = call_consumer("login", stdin=True, **settings)
    await bench.until(lambda: "/oauth/authorize/" in login.stdout.read_text())
    async with httpx.AsyncClient() as browser:
        sent = await browser.get(login.stdout.read_text().split()[0])
    login.type(sent.headers["location"])
    await bench.until(lambda: login.code is not None)

    assert login.code == 0, login.stderr.read_text()
    told = login.stdout.read_text()
    assert "portal: 127.0.0.1" in told
    assert "user: 1" in told
    assert "scopes: call, telephony" in told
    checked = {x.item: x async for x in check(bench.settings(), topology_of(bench.settings()))}
    assert checked["login"].state == checked["portal"].state == "ok"
    assert "0 of 180 days old" in checked["login"].detail
    async with bench.running():
        assert (await bench.event(await bench.ask())).message.type == "call.started"


PASTES: dict[str, tuple[str, int, str]] = {
    "the code alone": ("{code}", 0, "scopes: call, telephony"),
    "tokens of an installation": ('{{"event":"ONAPPINSTALL",\n "auth": {tokens}}}', 0, "user: 1"),
    "a code that is over": ("0123456789abcdef", 1, "invalid_grant"),
    "another login's address": ("https://x/?code=abc&state=other", 1, "another login"),
    "a refusal": ("https://x/?error=access_denied", 1, "the portal refuses: access_denied"),
    "JSON without tokens": ('{{"auth": {{}}}}', 1, "no access_token"),
    "nothing": ("", 1, "nothing was pasted"),
    "half of JSON": ('{{"auth": ', 1, "no JSON"),
}


@pytest.mark.parametrize(("paste", "code", "told"), PASTES.values(), ids=PASTES)
async def test_what_is_pasted_is_understood_or_refused(
    bench: Bench,
    portal: SandboxPortal,
    given: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    paste: str,
    code: int,
    told: str,
) -> None:
    granted = portal.oauth.code()
    tokens = await asyncio.to_thread(_exchanged, given) if "{tokens}" in paste else ""
    for name, value in {**bench.given, **given, "retry_delays_s": "1,2"}.items():
        monkeypatch.setenv(f"CALLS_{name.upper()}", str(value))
    text = paste.format(code=granted, tokens=tokens)
    result = await asyncio.to_thread(CliRunner().invoke, main, ["login"], input=text)

    assert result.exit_code == code, result.output
    assert told in result.output + str(result.exception)


def _exchanged(given: dict[str, Any]) -> str:
    """Get tokens as an application gets them, and return their JSON."""
    fields = {"client_id": given["oauth_client_id"], "client_secret": given["oauth_client_secret"]}
    root = given["oauth_server_url"]
    sent = httpx.get(f"{root}oauth/authorize/", params=fields)
    code = parse_qs(urlsplit(sent.headers["location"]).query)["code"][0]
    grant = {"grant_type": "authorization_code", "code": code}
    return httpx.post(f"{root}oauth/token/", data=fields | grant).text


async def test_a_command_prints_data_only_though_it_renews_the_tokens(
    portal: SandboxPortal,
    logged_in: Settings,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    portal.oauth.expire()
    assert logged_in.oauth_client_id
    for name, value in {**bench.given, "retry_delays_s": "1,2"}.items():
        monkeypatch.setenv(f"CALLS_{name.upper()}", str(value))
    listed = await asyncio.to_thread(CliRunner().invoke, main, ["lines", "--json"])
    portal.patch({"application": "revoked"})
    portal.oauth.expire()
    refused = await asyncio.to_thread(CliRunner().invoke, main, ["lines", "--json"])

    assert json.loads(listed.stdout) == portal.switches.lines
    assert portal.oauth.tally["refreshes"] == 1
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "was not asked: run `call-consumer login`" in refused.stderr


async def test_a_login_without_the_scopes_for_calls_stores_nothing(
    bench: Bench, portal: SandboxPortal, given: dict[str, Any]
) -> None:
    assert given
    portal.patch({"scopes": ["crm", "call"]})
    settings = bench.settings()
    with pytest.raises(LoginFailed, match="lacks the scope telephony"):
        await log_in(settings, Code(portal.oauth.code()))

    finding = await check_login(settings)
    assert (finding.state, finding.fix) == ("wrong", "run `call-consumer login`")

"""What the authorisation server answers, and what a person pastes."""

import json

import pytest

from consumer.bitrix24.seal import Seal, Unreadable
from consumer.bitrix24.tokens import (
    Code,
    NoTokens,
    Tokens,
    authorise_address,
    read_pasted,
    read_scopes,
    read_token_answer,
    read_tokens,
    token_address,
)
from consumer.decision import Refused, Unavailable

PAGE = {
    "access_token": "canary-access",
    "client_endpoint": "https://portal.bitrix24.com/rest/",
    "domain": "oauth.bitrix24.tech",
    "expires_in": 3600,
    "member_id": "a223c6b3710f85df22e9377d6c4f7553",
    "refresh_token": "canary-refresh",
    "scope": "app",
    "server_endpoint": "https://oauth.bitrix24.tech/rest/",
    "status": "T",
}
"""The vendor's own example."""
GIVEN = Tokens(
    access="canary-access",
    refresh="canary-refresh",
    obtained_at=5.0,
    logged_in_at=5.0,
    expires_in_s=3600.0,
    server="https://oauth.bitrix24.tech/rest/",
    portal="portal.bitrix24.com",
)


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def test_the_vendors_example_is_read() -> None:
    assert read_token_answer(200, body(**PAGE), 5.0) == GIVEN


def test_what_an_answer_leaves_out_stays_as_it_was() -> None:
    answer = read_token_answer(200, body(access_token="new"), 9.0, GIVEN)

    assert isinstance(answer, Tokens)
    assert (answer.access, answer.refresh, answer.server) == ("new", GIVEN.refresh, GIVEN.server)
    assert (answer.obtained_at, answer.logged_in_at) == (9.0, 5.0)


REFUSALS: dict[str, tuple[int, bytes, str, str]] = {
    "with the client error of OAuth": (400, body(error="invalid_grant"), "invalid_grant", "login"),
    "in capitals": (400, body(error="INVALID_GRANT"), "INVALID_GRANT", "login"),
    "with 200": (200, body(error="wrong_client"), "wrong_client", "login"),
    "removed": (401, body(error="NOT_INSTALLED"), "NOT_INSTALLED", "login"),
    "over for 180 days": (401, body(error="expired_token"), "expired_token", "login"),
    "not paid": (402, body(error="PAYMENT_REQUIRED"), "PAYMENT_REQUIRED", "portal"),
    "a code that nobody knows": (403, body(error="new_one"), "new_one", "portal"),
    "no code": (404, b"<html>", "HTTP_404", "portal"),
}


@pytest.mark.parametrize(("status", "sent", "code", "scope"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_told_by_its_code(status: int, sent: bytes, code: str, scope: str) -> None:
    answer = read_token_answer(status, sent, 5.0)

    assert isinstance(answer, Refused)
    assert (answer.failure.code, answer.scope) == (code, scope)
    assert ("call-consumer login" in answer.failure.description) == (scope == "login")


AWAY: dict[str, tuple[int, bytes]] = {
    "broken": (500, body(error="INTERNAL_SERVER_ERROR")),
    "a gateway's page": (502, b"<html>"),
    "busy": (503, body(error="QUERY_LIMIT_EXCEEDED")),
    "hasty": (429, b""),
    "no JSON": (200, b"<html>"),
    "no tokens": (200, b"{}"),
    "half of them": (200, body(access_token="a")),
    "another type": (200, body(access_token=["a"], refresh_token="b")),
    "a list": (200, b"[]"),
    "too deep": (200, b"[" * 100_000),
}


@pytest.mark.parametrize(("status", "sent"), AWAY.values(), ids=AWAY)
def test_what_makes_no_sense_is_tried_again_later(status: int, sent: bytes) -> None:
    assert isinstance(read_token_answer(status, sent, 5.0), Unavailable)


ODD_SECONDS: list[object] = [None, "soon", [], {}]


@pytest.mark.parametrize("value", ODD_SECONDS, ids=repr)
def test_how_long_a_token_lasts_need_not_be_told(value: object) -> None:
    assert read_tokens(PAGE | {"expires_in": value}, 5.0).expires_in_s is None


ADDRESS = "https://application.example/?code=c0de&state=st&domain=p.example&scope=call%2Ccrm"
PASTED: dict[str, tuple[str, Code | Tokens]] = {
    "a code": (" c0de\n", Code("c0de")),
    "an address": (ADDRESS, Code("c0de", "", ("call", "crm"))),
    "an address that names its server": (
        f"{ADDRESS}&server_domain=oauth.bitrix24.tech",
        Code("c0de", "oauth.bitrix24.tech", ("call", "crm")),
    ),
    "its query alone": ("code=c0de&state=st", Code("c0de")),
    "an address without a state": ("https://x/?code=c0de", Code("c0de")),
    "an answer of the server": (json.dumps(PAGE), GIVEN),
    "the event of an installation": (
        json.dumps({"event": "ONAPPINSTALL", "data": {}, "auth": PAGE}, indent=2),
        GIVEN,
    ),
}


@pytest.mark.parametrize(("text", "read"), PASTED.values(), ids=PASTED)
def test_what_is_pasted_is_read(text: str, read: object) -> None:
    assert read_pasted(text, 5.0, "st") == read


NOTHING = ["", "two words", "{", "[]", '{"auth": 1}', "https://x/?state=st", "https://x/?code="]


@pytest.mark.parametrize("text", [*NOTHING, ADDRESS.replace("state=st", "state=other")])
def test_what_holds_no_tokens_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(NoTokens) as refused:
        read_pasted(text, 5.0, "st")

    assert "c0de" not in str(refused.value)


PORTALS = {
    "https://portal.example/rest/": "https://portal.example/oauth/authorize/",
    "https://portal.example:8443/rest/": "https://portal.example:8443/oauth/authorize/",
    "https://gateway.example/b24/rest/": "https://gateway.example/b24/oauth/authorize/",
    "https://portal.example/": "https://portal.example/oauth/authorize/",
}


@pytest.mark.parametrize(("portal", "page"), PORTALS.items(), ids=PORTALS)
def test_the_page_that_lets_an_application_in_is_the_portals(portal: str, page: str) -> None:
    assert authorise_address(portal, "local.1&2", "s") == f"{page}?client_id=local.1%262&state=s"


SERVERS = {
    "https://oauth.bitrix.info/": "https://oauth.bitrix.info/oauth/token/",
    "https://oauth.bitrix.info": "https://oauth.bitrix.info/oauth/token/",
    "https://oauth.bitrix.info/rest/": "https://oauth.bitrix.info/oauth/token/",
    "https://oauth.bitrix.info/oauth/token/": "https://oauth.bitrix.info/oauth/token/",
    "oauth.bitrix24.tech": "https://oauth.bitrix24.tech/oauth/token/",
    "http://127.0.0.1:8024/base/rest": "http://127.0.0.1:8024/base/oauth/token/",
}


@pytest.mark.parametrize(("server", "endpoint"), SERVERS.items(), ids=SERVERS)
def test_the_endpoint_is_found_from_whichever_address(server: str, endpoint: str) -> None:
    assert token_address(server) == endpoint


def test_scopes_may_have_commas_or_blanks_between() -> None:
    assert read_scopes("call,telephony crm") == ("call", "telephony", "crm")
    assert read_scopes("app") == read_scopes("") == ()


def test_what_is_sealed_opens_with_the_same_secret_for_the_same_portal_only() -> None:
    sealed = Seal("secret", "https://one.example/rest/").close(GIVEN)

    assert Seal("secret", "https://one.example/rest/").open(sealed) == GIVEN
    for other in (
        Seal("other", "https://one.example/rest/"),
        Seal("secret", "https://two.example/rest/"),
    ):
        with pytest.raises(Unreadable):
            other.open(sealed)
    spoilt = sealed[:40] + (b"B" if sealed[40:41] == b"A" else b"A") + sealed[41:]
    with pytest.raises(Unreadable):
        Seal("secret", "https://one.example/rest/").open(spoilt)
    assert b"canary" not in sealed


def test_nothing_shows_its_secrets() -> None:
    shown = repr([GIVEN, Code("canary-code")])

    assert "canary" not in shown

"""OAuth's tokens: what the authorisation server answers, and what a person pastes. Pure.

Source: https://apidocs.bitrix24.com/settings/oauth/index.html
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from consumer.bitrix24.known_words import SERVER_AWAY
from consumer.bitrix24.lookup import errors_of
from consumer.bitrix24.responses import error_of
from consumer.decision import Failure, Refused, Unavailable
from consumer.errors import LOGIN

VENDORS_SERVER = "https://oauth.bitrix.info/"
VENDORS_HOSTS = {"oauth.bitrix.info", "oauth.bitrix24.tech"}
NO_SCOPES = ("app",)
"""What the token server's answer says instead of an application's scopes."""
REFRESH_LASTS_DAYS = 180
LASTING = {
    "application_not_found",
    "error_oauth",
    "expired_token",
    "insufficient_scope",
    "invalid_token",
    "not_installed",
    "unauthorized_client",
}
"""Codes, besides those of the scope *login*, by which the server refuses a refresh for good."""
_CLIENT_ERROR, _SERVER_ERROR = 400, 500


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the authorisation server gives out.

    Attributes:
        access: Shown with each request, for an hour.
        refresh: Good for one exchange against new ones, within 180 days.
        obtained_at: In seconds since the epoch, by our clock.
        logged_in_at: When a person logged in, likewise.
        expires_in_s: How long *access* lasts; None where that was not said.
        server: The authorisation server, as it calls itself; empty where it does not.
        portal: The portal's host.
        user: The id of the user in whose name is called.
        scopes: What the application may do; empty where that was not said.
    """

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    obtained_at: float
    logged_in_at: float
    expires_in_s: float | None = None
    server: str = ""
    portal: str = ""
    user: str = ""
    scopes: tuple[str, ...] = ()


TokenAnswer = Tokens | Refused | Unavailable


class NoTokens(ValueError):
    """Raised for what holds no tokens; says in words what is wrong."""


def read_token_answer(
    status: int, body: bytes, now: float, before: Tokens | None = None
) -> TokenAnswer:
    """Say what an answer of the token endpoint means: by code, ``wrong_client`` comes with 200.

    Args:
        status: The HTTP status.
        body: The raw body.
        now: Seconds since the epoch.
        before: The tokens that were to be renewed, if any.
    """
    code, description = error_of(body)
    if status >= _SERVER_ERROR or status in {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
    }:
        return _away(status, code)
    if code:
        return _refused(code, description)
    if status >= _CLIENT_ERROR:
        return _refused(f"HTTP_{status}", "it gives no error code")
    try:
        return read_tokens(json.loads(body), now, before)
    except (ValueError, RecursionError):
        return _away(status, "")


def _away(status: int, code: str) -> Unavailable:
    return Unavailable(Failure("OAUTH_UNAVAILABLE", f"{SERVER_AWAY} answers HTTP {status} {code}"))


def _refused(code: str, description: str) -> Refused:
    lasting = code.lower() in LASTING or any(row.scope == "login" for row in errors_of(code))
    told = f"{SERVER_AWAY} refuses: {description or code}"
    if not lasting:
        return Refused(Failure(code, told), "portal")
    return login_needed(code, told)


def login_needed(code: str, told: str) -> Refused:
    """Return what it means for a call that a person has to log in, and why."""
    return Refused(Failure(code, f"{LOGIN}; {told}"), "login")


def read_tokens(answer: object, now: float, before: Tokens | None = None) -> Tokens:
    """Read tokens from JSON: the server's answer, or the event of an application's installation.

    Raises:
        NoTokens: There are none.
    """
    if not isinstance(answer, dict):
        raise NoTokens("it is no JSON object")
    fields: dict[str, Any] = answer["auth"] if isinstance(answer.get("auth"), dict) else answer
    access, refresh = _text(fields, "access_token"), _text(fields, "refresh_token")
    refresh = refresh or (before.refresh if before else "")
    if not (access and refresh):
        missing = "access_token" if not access else "refresh_token"
        raise NoTokens(f"it has no {missing}")
    portal = urlsplit(_text(fields, "client_endpoint")).hostname or _text(fields, "domain")
    return Tokens(
        access=access,
        refresh=refresh,
        obtained_at=now,
        logged_in_at=before.logged_in_at if before else now,
        expires_in_s=_seconds(fields.get("expires_in")),
        server=_text(fields, "server_endpoint") or (before.server if before else ""),
        portal=portal or (before.portal if before else ""),
        user=_text(fields, "user_id") or (before.user if before else ""),
        scopes=read_scopes(_text(fields, "scope")) or (before.scopes if before else ()),
    )


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _seconds(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, str | int | float) else None
    except ValueError:
        return None


def read_scopes(text: str) -> tuple[str, ...]:
    """Read a list of scopes, with commas or blanks between; empty where none are named."""
    scopes = tuple(scope for scope in re.split(r"[,\s]+", text) if scope)
    return () if scopes == NO_SCOPES else scopes


@dataclass(frozen=True, slots=True)
class Code:
    """What the portal gives for a login, good for 30 s; *server* where the address names it."""

    code: str = field(repr=False)
    server: str = ""
    scopes: tuple[str, ...] = ()


def read_pasted(text: str, now: float, state: str) -> Code | Tokens:
    """Read what a person pastes: a code, the whole address one was sent to, or tokens as JSON.

    Args:
        text: As it was pasted.
        now: Seconds since the epoch.
        state: What the address must repeat, if it repeats any.

    Raises:
        NoTokens: It is none of them.
    """
    text = text.strip()
    if text.startswith("{"):
        try:
            return read_tokens(json.loads(text), now)
        except (RecursionError, json.JSONDecodeError):
            raise NoTokens("it is no JSON that can be read") from None
    if "=" in text:
        return _read_address(text, state)
    if not re.fullmatch(r"[\w.~+/-]+", text):
        raise NoTokens("it is no code, no address and no JSON")
    return Code(text)


def _read_address(text: str, state: str) -> Code:
    query = {name: values[0] for name, values in parse_qs(text.rpartition("?")[2]).items()}
    if "error" in query:
        raise NoTokens(f"the portal refuses: {query['error']}")
    if not query.get("code"):
        raise NoTokens("the address holds no code")
    if query.get("state", state) != state:
        raise NoTokens("it is the answer to another login: open the address above")
    return Code(query["code"], query.get("server_domain", ""), read_scopes(query.get("scope", "")))


def authorise_address(portal_url: str, client_id: str, state: str) -> str:
    """Return the address at which a person lets the application in.

    Args:
        portal_url: Up to where the names of methods are appended.
        client_id: The application's.
        state: Comes back with the code.
    """
    base = portal_url.removesuffix("/").removesuffix("rest").rstrip("/")
    return f"{base}/oauth/authorize/?{urlencode({'client_id': client_id, 'state': state})}"


def token_address(server: str) -> str:
    """Return the token endpoint of an authorisation server, whichever of its addresses is known."""
    address = server if "://" in server else f"https://{server}"
    base = re.sub(r"/(rest|oauth/token)?/*$", "", address)
    return f"{base}/oauth/token/"

"""OAuth as a portal and the vendor's authorisation server do it: codes, tokens, their rotation.

One application, one user; the page at which a person lets the application in asks nobody.

Source: https://apidocs.bitrix24.com/settings/oauth/index.html
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlencode
from uuid import uuid4

from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from consumer.sandbox.parameters import parameters_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request

    from consumer.sandbox.request import RestRequest
    from consumer.sandbox.switches import Switches

CODE_LASTS_S = 30.0
REFRESH_LASTS_S = 180 * 86_400.0
USER = "1"


class OAuthServer:
    """What was given out, and what became of it.

    Args:
        switches: How the portal behaves just now.
        now: The clock, in Unix seconds.
    """

    def __init__(self, switches: Callable[[], Switches], now: Callable[[], float]) -> None:
        self._switches = switches
        self._now = now
        self._codes: dict[str, float] = {}
        self._access: dict[str, float] = {}
        self._refresh: dict[str, float] = {}
        self._rotated: set[str] = set()
        self.tally: Counter[str] = Counter()
        """Counts *logins*, *refreshes*, *refused*, *down*; *rotated*: used-up tokens that came."""

    def code(self) -> str:
        """Give out a code."""
        code = uuid4().hex
        self._codes[code] = self._now() + CODE_LASTS_S
        return code

    @property
    def given_out(self) -> set[str]:
        """All tokens so far."""
        return {*self._access, *self._refresh, *self._rotated}

    def expire(self) -> None:
        """End the time of every access token."""
        self._access = dict.fromkeys(self._access, self._now())

    def refusal_of(self, request: RestRequest) -> str | None:
        """Name the answer that refuses a request for its token; None if it is let pass."""
        if request.token is None:
            return None
        if self._switches().application == "removed":
            return "NOT_INSTALLED"
        over_at = self._access.get(request.token)
        if over_at is None:
            return "invalid_token"
        return "expired_token" if self._now() >= over_at else None

    def answer(self, params: Mapping[str, object]) -> tuple[int, dict[str, object]]:
        """Answer at the token endpoint; return status and body."""
        switches = self._switches()
        if (params.get("client_id"), params.get("client_secret")) != (
            switches.client_id,
            switches.client_secret,
        ):
            return self._refused(200, "wrong_client", "Wrong client")
        if switches.application == "removed":
            return self._refused(401, "NOT_INSTALLED", "Application not installed")
        match params.get("grant_type"):
            case "authorization_code":
                given, kind = self._codes.pop(str(params.get("code")), 0.0), "logins"
            case "refresh_token":
                given, kind = self._used_up(str(params.get("refresh_token"))), "refreshes"
            case _:
                return self._refused(400, "invalid_request", "Invalid request")
        if given <= self._now():
            return self._refused(400, "invalid_grant", "Invalid grant")
        self.tally[kind] += 1
        return 200, self._tokens()

    def _used_up(self, token: str) -> float:
        """Take a refresh token; return until when it was good, 0 if it was not."""
        self.tally["rotated"] += token in self._rotated
        good_until = self._refresh.pop(token, 0.0)
        if self._switches().application == "revoked":
            return 0.0
        self._rotated.add(token)
        return good_until

    def _refused(self, status: int, code: str, description: str) -> tuple[int, dict[str, object]]:
        self.tally["refused"] += 1
        return status, {"error": code, "error_description": description}

    def _tokens(self) -> dict[str, object]:
        switches = self._switches()
        access, refresh = uuid4().hex, uuid4().hex
        self._access[access] = self._now() + switches.token_lifetime_s
        self._refresh[refresh] = self._now() + REFRESH_LASTS_S
        return {
            "access_token": access,
            "refresh_token": refresh,
            "expires_in": switches.token_lifetime_s,
            "scope": "app",  # so it is, whatever the application's scopes are
            "status": "L",
            "member_id": "5a11d0b0c0ffee",
            "user_id": int(USER),
        }


def routes(server: OAuthServer, switches: Callable[[], Switches]) -> list[Route]:
    """Serve the page of the portal, the endpoint of the authorisation server, and the tally."""

    async def authorise(request: Request) -> Response:
        if request.query_params.get("client_id") != switches().client_id:
            return Response("Application not found", 404)
        granted = {
            "code": server.code(),
            "state": request.query_params.get("state", ""),
            "domain": request.url.netloc,
            "member_id": "5a11d0b0c0ffee",
            "scope": ",".join(switches().scopes),
            "server_domain": request.url.netloc,
        }
        return RedirectResponse(f"{switches().redirect_to}?{urlencode(granted)}", 302)

    async def token(request: Request) -> Response:
        if switches().authorisation_down:
            server.tally["down"] += 1
            return Response("<html>Service Unavailable</html>", 503)
        status, body = server.answer(parameters_of(request, await request.body()))
        base = str(request.base_url)
        named = {"domain": request.url.netloc, "server_endpoint": f"{base}rest/"}
        known = {**named, "client_endpoint": f"{base}rest/"} if status == 200 else {}  # noqa: PLR2004
        return JSONResponse(known | body, status)

    async def tokens(request: Request) -> Response:
        if request.method == "DELETE":
            server.expire()
        return JSONResponse(server.tally)

    return [
        Route("/oauth/authorize/", authorise),
        Route("/oauth/token/", token, methods=["GET", "POST"]),
        Route("/sandbox/tokens", tokens, methods=["GET", "DELETE"]),
    ]

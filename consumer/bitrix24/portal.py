"""Bitrix24 over HTTP: sends requests; `responses` and `call_history` read the answers."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from urllib.parse import urlsplit

import httpx

from consumer import tracing
from consumer.bitrix24.access import Access, Credential, NoAccess
from consumer.bitrix24.call_history import Page, read_page
from consumer.bitrix24.known_words import (
    ANSWER_LOST,
    NOT_RENEWED,
    NOT_RENEWED_TEXT,
    UNREACHABLE,
    code_of,
)
from consumer.bitrix24.redaction import redacted
from consumer.bitrix24.responses import Usage, read_clock, read_response, read_usage
from consumer.bitrix24.transport import AiohttpTransport, proxy_to
from consumer.decision import Failure, Outcome, Placed, Refused, Unavailable, Unsure
from consumer.findings import LookUpFailed, NoHistory
from consumer.masking import STARS
from consumer.messages import CallRequested

PLACE = "voximplant.infocall.startwithtext"
HISTORY = "voximplant.statistic.get"
LINES = "voximplant.line.get"
VOICES = "voximplant.tts.voices.get"
CONNECT_TIMEOUT_S = 5.0
ASK_TIMEOUT_S = 15.0
CLOCK_NOISE_S = 2.0
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
KEEPALIVE_S = 5.0
"""A kept connection that the portal has just closed fails after the request was written."""
OVER = {"expired_token", "invalid_token"}
"""What a portal says of a token to renew: by code, its statuses differ from its pages'."""
MOST_RENEWALS = 2
"""One to take over what another process has renewed, and one more if that is over too."""
RENEW_WITHIN_S = 15.0
SHORTEST_SECRET = 8
"""In characters; what is shorter is found in words that are none."""


class Portal:
    """Asks one Bitrix24 portal over HTTPS.

    Args:
        access: The way in.
        timeout_s: How long one call may take; the portal itself cuts at 60 s.
        draw: Waits until a request may be sent a second time, with a renewed credential.
    """

    def __init__(
        self,
        access: Access,
        *,
        timeout_s: float = 65.0,
        draw: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._access = access
        self._draw = draw
        self._timeout_s = timeout_s
        self.host = urlsplit(access.url).hostname
        self.clock_offset_s: float | None = None
        """How far the portal's web server's clock is ahead of ours, as its latest answer shows."""
        self.usage: Usage | None = None
        """What the latest call used of the operating limit, by our clock."""
        self._headers = httpx.Headers(
            {
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
                "User-Agent": f"call-consumer/{version('call-consumer')}",
            }
        )
        self.silence = ""
        """Why `ask` had no answer the last time, in words."""
        tls = httpx.create_ssl_context() if access.url.startswith("https:") else None
        self._transport = AiohttpTransport(tls, proxy_to(access.url), KEEPALIVE_S)

    async def _post(
        self,
        method: str,
        parameters: Mapping[str, object],
        timeout_s: float,
        send_before: float = math.inf,
    ) -> httpx.Response:
        """Ask, and once more with another credential where the portal says that ours is over.

        It says so before it does anything: nobody is phoned twice.

        Raises:
            NoAccess: There is no credential.
        """
        credential = await self._access.credential()
        response = await self._send(method, parameters, credential, timeout_s, send_before)
        for _ in range(MOST_RENEWALS):
            if not (credential.renewable and _is_over(response)):
                break
            credential = await self._renew(credential, send_before)
            response = await self._send(method, parameters, credential, timeout_s, send_before)
        return response

    async def _renew(self, refused: Credential, send_before: float) -> Credential:
        within_s = min(RENEW_WITHIN_S, max(send_before - time.monotonic(), 0.0))
        try:
            async with asyncio.timeout(within_s):
                credential = await self._access.renew(refused)
                if self._draw is not None:
                    await self._draw()
                return credential
        except TimeoutError:
            raise NoAccess(Unavailable(Failure(NOT_RENEWED, NOT_RENEWED_TEXT))) from None

    async def _send(
        self,
        method: str,
        parameters: Mapping[str, object],
        credential: Credential,
        timeout_s: float,
        send_before: float,
    ) -> httpx.Response:
        """Send without a client of httpx's, which keeps cookies.

        PHP serves the requests of one session, which a cookie names, one after the other.
        """
        limits = httpx.Timeout(self._timeout_s, connect=CONNECT_TIMEOUT_S)
        request = httpx.Request(
            "POST",
            _parsed(self._access.url + method),
            json={**parameters, **credential.parameters},
            headers=self._headers,
            extensions={"timeout": limits.as_dict(), "send_before": send_before},
        )
        # The limit is on each read, not on the whole: an answer may drip for ever, and one whose
        # chunks are broken aiohttp awaits without a limit.
        with tracing.asking(self._access.url, method):
            async with asyncio.timeout(timeout_s):
                response = await self._transport.handle_async_request(request)
            tracing.answered(response.status_code)
        theirs = read_clock(response.headers)
        if theirs is not None:
            # The header counts whole seconds: half of one is the best guess at the rest.
            offset_s = theirs + 0.5 - time.time()
            self.clock_offset_s = offset_s if abs(offset_s) > CLOCK_NOISE_S else 0.0
        return response

    async def place(self, call: CallRequested, *, send_before: float = math.inf) -> Outcome:
        """Ask the portal to place *call*, once; the outcome quotes no number, text or secret.

        Args:
            call: What to dial.
            send_before: Nothing is sent later than that, in seconds of the monotonic clock.
        """
        parameters = {
            "FROM_LINE": call.from_line,
            "TO_NUMBER": call.to_number,
            "TEXT_TO_PRONOUNCE": call.text_to_pronounce,
        }
        if call.voice is not None:
            parameters["VOICE"] = call.voice
        outcome = await self._ask(parameters, send_before)
        if isinstance(outcome, Placed):
            return outcome
        hidden = (
            call.to_number,
            call.to_number.lstrip("+"),
            call.text_to_pronounce,
            *self._access.secrets,
        )
        failure = replace(
            outcome.failure,
            code=redacted(outcome.failure.code, hidden),
            description=redacted(outcome.failure.description, hidden),
        )
        return replace(outcome, failure=failure)

    async def _ask(self, parameters: Mapping[str, str | None], send_before: float) -> Outcome:
        limit_s = self._timeout_s + CONNECT_TIMEOUT_S
        try:
            response = await self._post(PLACE, parameters, limit_s, send_before)
        except NoAccess as error:
            return error.outcome
        except NEVER_SENT as error:
            # Nothing was sent yet, so a retry cannot ring a phone twice.
            return Unavailable(Failure(code_of(error), f"{UNREACHABLE}: {error}"))
        except (httpx.HTTPError, TimeoutError) as error:
            return Unsure(Failure(code_of(error), ANSWER_LOST))
        usage = read_usage(response.content)
        if usage is not None:
            offset_s = self.clock_offset_s or 0.0
            self.usage = replace(usage, reset_at=usage.reset_at - offset_s)
        return read_response(response.status_code, response.content, response.headers)

    async def ask(self, method: str) -> tuple[int, bytes] | None:
        """Ask a method without parameters; return status and body, or None if no answer came.

        Raises:
            NoAccess: There is no credential to ask with.
        """
        try:
            response = await self._post(method, {}, ASK_TIMEOUT_S)
        except (httpx.HTTPError, TimeoutError) as error:
            self.silence = str(error) or "no answer in time"
            return None
        return response.status_code, self._starred(response.content)

    async def history(self, parameters: Mapping[str, object]) -> Page | NoHistory | LookUpFailed:
        """Ask the call history for one page."""
        try:
            response = await self._post(HISTORY, parameters, self._timeout_s + CONNECT_TIMEOUT_S)
        except NoAccess as error:
            return LookUpFailed(str(error))
        except (httpx.HTTPError, TimeoutError):
            return LookUpFailed()
        return read_page(response.status_code, response.content)

    async def close(self) -> None:
        """Close the connections."""
        await self._access.close()
        await self._transport.aclose()

    def _starred(self, body: bytes) -> bytes:
        """Put stars where an answer repeats a secret."""
        for secret in self._access.secrets:
            if len(secret) >= SHORTEST_SECRET:
                body = body.replace(secret.encode(), STARS.encode())
        return body


def _is_over(response: httpx.Response) -> bool:
    """Tell whether the portal refused a request for its credential, which may be renewed."""
    outcome = read_response(response.status_code, response.content, response.headers)
    return isinstance(outcome, Refused) and outcome.failure.code.lower() in OVER


@cache
def _parsed(url: str) -> httpx.URL:
    """Parse an address once: that takes half as long as all else of building a request."""
    return httpx.URL(url)

"""What holds for every request, before any page: who may ask from where, and what may run."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consumer.addresses import is_loopback

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with none at all a browser hides the origin of a form
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
NOT_OURS = """\
This form does not come from here. Open the page anew, and send it from there.
A script has to send the header Origin, as a browser does: the address of these pages.
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the pages are served: whether we speak TLS, or a proxy does, and says who asks."""

    tls: bool = False
    behind_proxy: bool = False

    def is_encrypted(self, headers: Headers) -> bool:
        """Tell whether the browser speaks TLS: then cookies are for TLS alone."""
        return self.tls or (self.behind_proxy and not _is_local(headers))

    def client(self, headers: Headers, address: str) -> str:
        """Return who asks: of what a proxy says, only its own word counts."""
        told = headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
        return told[:64] if self.behind_proxy and told else address

    def refusal(self, method: str, headers: Headers) -> PlainTextResponse | None:
        """Refuse a name that another has made lead here, and a form of another page."""
        if not (self.tls or self.behind_proxy or _is_local(headers)):
            return PlainTextResponse("Open this page by the address that was printed.\n", 421)
        if method not in {"GET", "HEAD"} and not self._is_ours(headers):
            return PlainTextResponse(NOT_OURS, 403)
        return None

    def _is_ours(self, headers: Headers) -> bool:
        """Tell whether a form comes from one of our pages, as far as the browser says."""
        if (origin := headers.get("origin")) is None:
            return headers.get("sec-fetch-site") == "same-origin"
        scheme, _, host = origin.lower().partition("://")
        safe = scheme == "https" or not self.is_encrypted(headers)
        return safe and host == headers.get("host", "").lower() != ""


def _is_local(headers: Headers) -> bool:
    try:
        return is_loopback(urlsplit(f"//{headers.get('host', '')}").hostname or "")
    except ValueError:
        return False


class Guard:
    """Refuses what does not come from our pages, and tells browsers to be strict."""

    def __init__(self, app: ASGIApp, place: Place) -> None:
        self._app = app
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        extra = {"Strict-Transport-Security": "max-age=31536000"}
        strict = HEADERS | (extra if self._place.is_encrypted(headers) else {})

        async def be_strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(strict)
            await send(message)

        app = self._place.refusal(scope["method"], headers) or self._app
        await app(scope, receive, be_strict)

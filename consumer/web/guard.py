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
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the pages are served.

    Attributes:
        tls: Whether we speak TLS.
        behind_proxy: Whether a proxy does that for us, and says who asks.
    """

    tls: bool = False
    behind_proxy: bool = False

    def is_encrypted(self, host: str) -> bool:
        """Tell whether a browser at *host* speaks TLS: then cookies are for TLS alone."""
        return self.tls or (self.behind_proxy and not _is_local(host))

    def takes(self, headers: Headers) -> bool:
        """Tell whether a name for us is one of ours: another's may be made to lead here."""
        return self.tls or self.behind_proxy or _is_local(headers.get("host", ""))

    def client(self, headers: Headers, address: str) -> str:
        """Return who asks: of what a proxy says, only its own word counts."""
        told = headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
        return told[:64] if self.behind_proxy and told else address


def _is_local(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _is_ours(headers: Headers) -> bool:
    """Tell whether a form comes from one of our pages, as far as the browser says."""
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site") == "same-origin"
    return origin.partition("://")[2].lower() == headers.get("host", "").lower() != ""


class Guard:
    """Refuses what does not come from our pages, and tells browsers to be strict.

    Args:
        app: The pages.
        place: Where they are served.
    """

    def __init__(self, app: ASGIApp, place: Place) -> None:
        self._app = app
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._be_strict(MutableHeaders(scope=message), headers.get("host", ""))
            await send(message)

        await self._answering(scope, headers)(scope, receive, strict)

    def _answering(self, scope: Scope, headers: Headers) -> ASGIApp:
        if not self._place.takes(headers):
            return PlainTextResponse("Open this page by the address that was printed.\n", 421)
        if scope["method"] not in {"GET", "HEAD"} and not _is_ours(headers):
            return PlainTextResponse("This form does not come from here.\n", 403)
        return self._app

    def _be_strict(self, headers: MutableHeaders, host: str) -> None:
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        if self._place.is_encrypted(host):
            headers["Strict-Transport-Security"] = "max-age=31536000"

"""aiohttp under httpx: less than half the processor time, told in httpx's errors.

Those follow how far a request got, and on that hangs whether a phone may be ringing. The package
httpx-aiohttp calls a lost answer a `ConnectTimeout`, and fails at a reason phrase outside ASCII.
"""

import asyncio
import ssl
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from yarl import URL

KINDS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    # aiohttp raises these only while it makes a connection.
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    # With all others the request may have been sent.
    (aiohttp.SocketTimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientOSError, httpx.ReadError),
    (aiohttp.ClientError, httpx.RemoteProtocolError),
)
"""What aiohttp raises, and what httpx calls it: the first that fits."""
TURNS_TO_SEE_A_CLOSE = 2
"""One in which the event loop asks what has come, one in which the connection is told."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends each request once, over kept connections, as many at once as are asked for.

    Args:
        tls: For https.
        proxy: Through which to go, if any.
        keepalive_s: For how long an idle connection is kept.
    """

    def __init__(self, tls: ssl.SSLContext, proxy: URL | None, keepalive_s: float) -> None:
        self._tls = tls
        self._proxy = proxy
        self._keepalive_s = keepalive_s
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request* and read its answer to the end.

        Raises:
            httpx.TransportError: As `KINDS` has it.
            httpx.DecodingError: The answer is not packed as it says.
        """
        # A kept connection that the other end has closed counts as closed once the loop saw it.
        for _ in range(TURNS_TO_SEE_A_CLOSE):
            await asyncio.sleep(0)
        try:
            async with self._opened().request(
                request.method,
                URL(str(request.url), encoded=True),
                data=await request.aread(),
                headers=request.headers,
                allow_redirects=False,
                proxy=self._proxy,
                timeout=_limits(request),
            ) as answer:
                content = await answer.read()
        except aiohttp.ClientError as error:
            kind = next(theirs for ours, theirs in KINDS if isinstance(error, ours))
            raise kind(type(error).__name__) from error
        return httpx.Response(answer.status, headers=answer.raw_headers, content=content)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:  # it belongs to the loop that runs
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, ssl=self._tls, keepalive_timeout=self._keepalive_s
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # httpx does
            )
        return self._session

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def _limits(request: httpx.Request) -> aiohttp.ClientTimeout:
    """Say in aiohttp's words how long *request* may take: a look-up of the name counts too."""
    limits = request.extensions["timeout"]
    return aiohttp.ClientTimeout(
        connect=limits["connect"], sock_connect=limits["connect"], sock_read=limits["read"]
    )


def proxy_to(url: str) -> URL | None:
    """Return the proxy that the environment names for *url* (``HTTPS_PROXY``, ``NO_PROXY``)."""
    parts, known = urlsplit(url), getproxies()
    address = known.get(parts.scheme) or known.get("all")
    return URL(address) if address and not proxy_bypass(parts.netloc) else None

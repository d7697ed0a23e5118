"""aiohttp under httpx: it needs less processor time. Its errors become httpx's.

httpx's errors say how far a request got, and that decides whether a phone may be ringing. The
package httpx-aiohttp is not used: it reports a lost answer as `ConnectTimeout`, which would mean
that nothing was sent, and it fails at a reason phrase outside ASCII.
"""

import select
import ssl
import time
import zlib
from contextvars import ContextVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import aiohttp
import httpx
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from consumer.unreachable import cause_of

NEVER_SENT: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError),
    (TimeoutError, httpx.ConnectTimeout),
    (Exception, httpx.ConnectError),
)
"""What httpx calls an error that came before there was a connection: the first that fits."""
MAYBE_SENT: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (TimeoutError, httpx.ReadTimeout),
    (OSError, httpx.ReadError),
    (Exception, httpx.RemoteProtocolError),
)
"""What httpx calls one that came after: the request may have been sent."""
LONGEST_HEADER = 65_536
"""In bytes; aiohttp's own limit of 8,190 is less than some policies that web servers send."""
LONGEST_BODY = 4 * 1024 * 1024
"""In bytes, unpacked; a page of the call history has some 100 KB."""
GZIP = zlib.MAX_WBITS | 16

_connected: ContextVar[bool] = ContextVar("connected")
_send_before: ContextVar[float] = ContextVar("send_before")


class TooLate(TimeoutError):
    """Raised where a request may not be sent any more when its connection stands."""


class TooLong(Exception):
    """Raised for an answer longer than `LONGEST_BODY`."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends each request once, over kept connections, as many at once as are asked for.

    Args:
        tls: For https.
        proxy: Through which to go, if any.
        keepalive_s: For how long an idle connection is kept.
    """

    def __init__(self, tls: ssl.SSLContext | None, proxy: URL | None, keepalive_s: float) -> None:
        self._tls = tls
        self._proxy = proxy
        self._keepalive_s = keepalive_s
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request* and read its answer to the end.

        Raises:
            httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError: Nothing was sent.
            httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError: It may have been.
            httpx.DecodingError: The answer is not packed as it says.
        """
        _connected.set(False)
        _send_before.set(request.extensions["send_before"])
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
                content = await _read(answer)
        except Exception as error:
            kinds = MAYBE_SENT if _connected.get() else NEVER_SENT
            kind = next(theirs for ours, theirs in kinds if isinstance(error, ours))
            raise kind(_cause(error)) from error
        return _response(answer, content)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:  # it belongs to the loop that runs
            self._session = aiohttp.ClientSession(
                connector=_Connector(self._tls, self._keepalive_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # httpx does
                max_line_size=LONGEST_HEADER,
                max_field_size=LONGEST_HEADER,
            )
        return self._session

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


class _Connector(aiohttp.TCPConnector):
    """Does not reuse a connection on which unexpected data has arrived."""

    def __init__(self, tls: ssl.SSLContext | None, keepalive_s: float) -> None:
        super().__init__(limit=0, ssl=tls or True, keepalive_timeout=keepalive_s)
        self._kept: WeakSet[object] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # its name in aiohttp
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        while self._is_over(connection):
            connection.close()
            connection = await super().connect(req, traces, timeout)
        if time.monotonic() > _send_before.get():
            connection.release()
            raise TooLate
        _connected.set(True)
        return connection

    def _is_over(self, connection: Connection) -> bool:
        """Tell whether anything has come over a kept connection, its end for one, read or not."""
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None or protocol.should_close:
            return True
        if protocol not in self._kept:  # TLS may still have something to say over a new one
            self._kept.add(protocol)
            return False
        arrived = select.poll()
        arrived.register(transport.get_extra_info("socket"), select.POLLIN)
        return bool(arrived.poll(0))


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """Read a body to its end.

    Raises:
        TooLong: It does not end in time.
    """
    content = bytearray()
    async for part in answer.content.iter_any():
        content += part
        if len(content) > LONGEST_BODY:
            raise TooLong
    return bytes(content)


def _response(answer: aiohttp.ClientResponse, content: bytes) -> httpx.Response:
    """Unpack a body, as far as `LONGEST_BODY`: a small one may unpack to gigabytes.

    Raises:
        httpx.DecodingError: It is not packed as it says, or too long.
    """
    packed = answer.headers.get("Content-Encoding", "").strip().lower() == "gzip"
    headers = [
        (name, value)
        for name, value in answer.raw_headers
        if not packed or name.lower() != b"content-encoding"
    ]
    if packed and content:
        unpacking = zlib.decompressobj(GZIP)
        try:
            content = unpacking.decompress(content, LONGEST_BODY)
        except zlib.error as error:
            raise httpx.DecodingError(str(error)) from error
        if not unpacking.eof:
            raise httpx.DecodingError("the answer is cut short, or too long")
    return httpx.Response(answer.status, headers=headers, content=content)


def _cause(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy refuses with HTTP {error.status}"
    cause = cause_of(error)
    return f"the proxy: {cause}" if isinstance(error, aiohttp.ClientProxyConnectionError) else cause


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
    if not address or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return URL(address if "://" in address else f"http://{address}")

"""An error of aiohttp's counts as never sent only where it cannot have been sent."""

from __future__ import annotations

import aiohttp
import httpx
import pytest

from consumer.wire import KINDS

NEVER_SENT = {
    "ClientConnectorError": httpx.ConnectError,
    "ClientConnectorDNSError": httpx.ConnectError,
    "ClientConnectorCertificateError": httpx.ConnectError,
    "ClientConnectorSSLError": httpx.ConnectError,
    "ClientSSLError": httpx.ConnectError,
    "UnixClientConnectorError": httpx.ConnectError,
    "ClientProxyConnectionError": httpx.ProxyError,
    "ClientHttpProxyError": httpx.ProxyError,
    "ConnectionTimeoutError": httpx.ConnectTimeout,
}


def errors_of_aiohttp(kind: type[Exception] = aiohttp.ClientError) -> list[type[Exception]]:
    """Return all classes, in an order that pytest-xdist's processes agree on."""
    below = [each for sub in kind.__subclasses__() for each in errors_of_aiohttp(sub)]
    return sorted({kind, *below}, key=lambda each: each.__name__)


@pytest.mark.parametrize("kind", errors_of_aiohttp(), ids=lambda kind: kind.__name__)
def test_only_what_is_raised_while_connecting_is_never_sent(kind: type[Exception]) -> None:
    told = next(theirs for ours, theirs in KINDS if issubclass(kind, ours))

    if kind.__name__ in NEVER_SENT:
        assert told is NEVER_SENT[kind.__name__]
    else:
        assert not issubclass(told, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError)

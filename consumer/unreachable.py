"""Why a server could not be reached, in words for the person who fixes it."""

import errno
import os
import socket
import ssl
from collections.abc import Iterator

NO_TLS = "it answers without TLS"
_OTHER_NAME = {62, 64}
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_OUT_OF_DATE = {9, 10}
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")
"""How OpenSSL's versions call an answer that is no TLS."""


def cause_of(error: BaseException) -> str:
    """Say why a connection could not be made; clients wrap that in errors of their own.

    No password, path or certificate is quoted.
    """
    # The innermost first: aiormq's own error passes for an OSError with OpenSSL's number.
    known = (cause for each in reversed([*_chain(error)]) if (cause := _known(each)))
    return next(known, f"the connection failed ({type(error).__name__})")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield *error* and what caused it, each once: aio-pika lets errors cause each other."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _known(error: BaseException) -> str | None:
    match error:
        case ssl.SSLCertVerificationError():
            return _certificate(error)
        case ssl.SSLError():
            return _tls(error)
        case socket.gaierror():
            return _name(error)
        case FileNotFoundError():
            return "a certificate file that is named for it is not there"
        case BlockingIOError():
            return None  # so every connect begins: what ended it is said by another
        case TimeoutError():
            return "no answer in time"
        case OSError() if number := _number(error):
            return os.strerror(number).lower()
        case ConnectionError() if type(error) is ConnectionError and error.args:
            return str(error)  # asyncpg's own words
        case _:
            return None


def _certificate(error: ssl.SSLCertVerificationError) -> str:
    # "Hostname mismatch, certificate is not valid for 'portal.example'." and the like
    text = str(getattr(error, "verify_message", "")).rstrip(".") or "it cannot be verified"
    code = getattr(error, "verify_code", 0)
    if code in _OTHER_NAME:
        return f"its certificate is for another host name: {text}"
    if code in _OUT_OF_DATE:
        return f"its certificate is out of date: {text}"
    return f"its certificate is not trusted: {text}; name its CA's file in SSL_CERT_FILE"


def _tls(error: ssl.SSLError) -> str:
    reason = getattr(error, "reason", None) or ""
    if reason in _NOT_TLS:
        return NO_TLS
    return f"TLS failed: {reason.replace('_', ' ').lower()}" if reason else "TLS failed"


def _name(error: socket.gaierror) -> str:
    if error.errno == socket.EAI_AGAIN:
        return "its name cannot be resolved now: the name server does not answer"
    return "its name cannot be resolved: there is no such host"


def _number(error: OSError) -> int | None:
    """Return the number of *error*, or the first of those that a name's addresses gave."""
    if error.errno is not None:
        return error.errno
    numbers = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ETIMEDOUT)
    return next((number for number in numbers if f"[Errno {number}]" in str(error)), None)

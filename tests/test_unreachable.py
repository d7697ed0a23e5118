"""What a client's errors say about why nobody answers."""

import errno
import socket
import ssl

import pytest

from consumer.unreachable import cause_of


def certificate_error(code: int, text: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, text
    return error


def caused_by(cause: BaseException) -> Exception:
    """Wrap *cause* as clients do, in an error that has a number of its own."""
    wrapped = ConnectionError(1, "wrapped")
    wrapped.__cause__ = cause
    return wrapped


def tls_error(reason: str | None) -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL] it failed")
    if reason is not None:
        error.reason = reason
    return error


NO_ISSUER = "unable to get local issuer certificate"
MISMATCH = "Hostname mismatch, certificate is not valid for 'one'"
OUT_OF_TIME = TimeoutError()
OUT_OF_TIME.__context__ = BlockingIOError(errno.EINPROGRESS, "Operation now in progress")
CAUSES: dict[str, tuple[BaseException, str]] = {
    "out of time": (OUT_OF_TIME, "no answer in time"),
    "refused": (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "connection refused"),
    "several addresses refused": (
        OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] and again"),
        "connection refused",
    ),
    "no way there": (OSError(errno.ENETUNREACH, "x"), "network is unreachable"),
    "no such name": (
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        "its name cannot be resolved: there is no such host",
    ),
    "no name server": (
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        "its name cannot be resolved now: the name server does not answer",
    ),
    "too late": (TimeoutError(), "no answer in time"),
    "not trusted": (
        certificate_error(20, NO_ISSUER),
        f"its certificate is not trusted: {NO_ISSUER}; name its CA's file in SSL_CERT_FILE",
    ),
    "another host's": (
        certificate_error(62, f"{MISMATCH}."),
        f"its certificate is for another host name: {MISMATCH}",
    ),
    "expired": (
        certificate_error(10, "certificate has expired"),
        "its certificate is out of date: certificate has expired",
    ),
    "no TLS": (tls_error("WRONG_VERSION_NUMBER"), "it answers without TLS"),
    "other TLS": (
        tls_error("TLSV1_ALERT_PROTOCOL_VERSION"),
        "TLS failed: tlsv1 alert protocol version",
    ),
    "TLS without a reason": (tls_error(None), "TLS failed"),
    "no such file": (
        FileNotFoundError(errno.ENOENT, "x"),
        "a certificate file that is named for it is not there",
    ),
    "asyncpg's words": (ConnectionError("server rejected SSL"), "server rejected SSL"),
    "anything else": (ZeroDivisionError("hush"), "the connection failed (ZeroDivisionError)"),
}


@pytest.mark.parametrize(("error", "cause"), CAUSES.values(), ids=CAUSES)
def test_an_error_is_told_in_words(error: BaseException, cause: str) -> None:
    assert cause_of(error) == cause


@pytest.mark.parametrize(
    ("error", "cause"),
    [pair for name, pair in CAUSES.items() if name != "anything else"],
    ids=[name for name in CAUSES if name != "anything else"],
)
def test_an_error_is_told_in_the_same_words_when_a_client_wraps_it(
    error: BaseException, cause: str
) -> None:
    assert cause_of(caused_by(error)) == cause


def test_errors_that_cause_each_other_are_told_once() -> None:
    first, second = ConnectionResetError(errno.ECONNRESET, "x"), ConnectionError("again")
    first.__cause__, second.__cause__ = second, first

    assert cause_of(second) == "connection reset by peer"

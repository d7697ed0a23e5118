"""Makes up hostile inputs that look like the real ones: good ones, with a few things wrong.

All is drawn from one `random.Random`, so that a seed brings the same inputs again.
"""

from __future__ import annotations

import copy
import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from consumer.bitrix24.call_endings import KNOWN_ENDINGS
from consumer.bitrix24.errors import KNOWN_ERRORS
from tests.canary import NUMBER, TEXT

if TYPE_CHECKING:
    from collections.abc import Callable

Random = random.Random
REQUEST: dict[str, Any] = {
    "request_id": "order-1",
    "to_number": NUMBER,
    "text_to_pronounce": TEXT,
    "from_line": "reg151083",
    "voice": "ruinternalfemale",
    "not_before": "2026-11-27T08:00:00+01:00",
    "expires_at": "2096-11-27T20:00:00Z",
    "metadata": {"campaign": "42"},
    "time_zone": "Europe/Berlin",
    "urgent": True,
}
NEEDED = ("request_id", "to_number", "text_to_pronounce")
CANCELLATION = {"request_id": "order-1", "reason": "moved"}
STATUSES = (
    200,
    200,
    200,
    201,
    204,
    301,
    302,
    400,
    400,
    401,
    403,
    404,
    408,
    429,
    500,
    502,
    503,
    504,
)
TIME = {"operating": 0.14, "operating_reset_at": 1_795_000_000, "date_start": "2026-11-27T08:00:00"}
ODD_TEXTS = (
    *("", " ", "\x00", "\x1b[2J", "\u202e", "\ufeff", "\ud83d\ude00", "NaN", "null", "true", "0"),
    *("-1", "1e309", "+", "+999999999999999999999", "../../etc/passwd", "a" * 3000, "\r\nX: y"),
    *("2026-02-30T00:00:00Z", "2026-11-27T08:00:00", "9999-12-31T23:59:59Z", "٠١٢٣", "'; DROP"),
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e308, 10**30, -(10**30), [], {}, [[]], [None], {"": None}),
    *({"a": {"b": {"c": [1, {"d": "e"}]}}}, [{}] * 20, {str(n): n for n in range(40)}),
)
ODD_PAGES = (
    *(
        b"",
        b"<html><body>Please wait</body></html>",
        b"null",
        b"[]",
        b"0",
        b'""',
        b"\xef\xbb\xbf{}",
    ),
    *(b"{}" * 3, b"[" * 5000, b'{"a":' * 2000, b"NaN", b"\x1f\x8b\x08\x00garbage", b"\x00" * 100),
)
BETWEEN = b'{}[]:,"\\ \n\r\t\x00\xff0eE-+.truefalsenull'


def body(rng: Random) -> bytes:
    """Make a body of `call.requested`."""
    fields = {name: REQUEST[name] for name in REQUEST if name in NEEDED or rng.random() < 0.4}
    return _sent(rng, fields)


def cancellation(rng: Random) -> bytes:
    """Make a body of `call.cancel`."""
    return _sent(rng, CANCELLATION)


def headers(rng: Random) -> dict[str, Any]:
    """Make AMQP headers, ours among them."""
    good: dict[str, Any] = {
        "x-attempt": rng.randint(1, 6),
        "x-replay": rng.randint(0, 3),
        "x-redial": True,
        "x-unsure-since": "2026-11-27T08:00:00.123Z",
        "x-first-seen-at": "2026-11-27T07:00:00Z",
        "x-failed-at": "2026-11-27T09:00:00Z",
        "x-death": [{"exchange": "calls", "queue": "q", "reason": "expired", "count": 1}],
        "traceparent": f"00-{rng.getrandbits(128):032x}-{rng.getrandbits(64):016x}-01",
        "tracestate": "vendor=1",
        "CC": ["elsewhere"],
    }
    some = {name: value for name, value in good.items() if rng.random() < 0.5}
    for name in list(some):
        if rng.random() < 0.4:
            some[name] = _amqp_value(rng)
    return some


def answer(rng: Random) -> tuple[int, bytes, dict[str, str]]:
    """Make status, body and headers of an answer to `startwithtext`."""
    known = rng.choice(KNOWN_ERRORS)
    error = {"error": known.code, "error_description": known.description}
    nested = {"error": {"code": known.code, "message": known.description, "errors": [error]}}
    placed = {"result": {"RESULT": True, "CALL_ID": f"call-{rng.getrandbits(64):x}"}, "time": TIME}
    no = {"result": {"RESULT": False}, "time": TIME}
    quoting = {"error": "NEW_ERROR", "error_description": f"cannot dial {NUMBER}: {TEXT}"}
    kinds: list[dict[str, Any]] = [placed, error, nested, {"errors": [error]}, no, quoting]
    fields: dict[str, Any] = rng.choice([placed, error, *kinds])
    return rng.choice(STATUSES), _sent(rng, fields), _http_headers(rng)


def history_page(rng: Random) -> tuple[int, bytes]:
    """Make status and body of an answer of `voximplant.statistic.get`."""
    rows = [_row(rng, n) for n in range(rng.choice([0, 1, 2, 5, 50]))]
    fields: dict[str, Any] = {"result": rows, "total": len(rows), "time": TIME}
    if rng.random() < 0.3:
        fields["next"] = rng.choice([50, "50", 0, -1, None, 1e308, "x", [], 2**70])
    return rng.choice(STATUSES), _sent(rng, fields)


def _row(rng: Random, number: int) -> dict[str, Any]:
    began = datetime(2026, 11, 27, 8, tzinfo=UTC) + timedelta(seconds=rng.randint(-9999, 9999))
    return {
        "ID": str(1000 + number),
        "CALL_ID": f"call-{rng.getrandbits(64):x}",
        "CALL_TYPE": rng.choice(["5", "5", "5", 5, "1", 5.0]),
        "PORTAL_NUMBER": "reg151083",
        "PHONE_NUMBER": NUMBER,
        "CALL_START_DATE": began.isoformat(),
        "CALL_DURATION": str(rng.randint(0, 60)),
        "CALL_FAILED_CODE": rng.choice(KNOWN_ENDINGS).code,
        "CALL_FAILED_REASON": f"to {NUMBER}",
        "COST": "0.1000",
        "COST_CURRENCY": "EUR",
    }


def _http_headers(rng: Random) -> dict[str, str]:
    good = {
        "date": "Fri, 27 Nov 2026 08:00:00 GMT",
        "retry-after": str(rng.randint(0, 100)),
        "location": "https://renamed.example/rest/1/secret/",
    }
    some = {name: value for name, value in good.items() if rng.random() < 0.5}
    for name in some:
        if rng.random() < 0.4:
            some[name] = _one_line(rng.choice(ODD_TEXTS))
    return some


def _one_line(text: str) -> str:
    """Leave what HTTP lets through in a header."""
    return "".join(c for c in text if c.isprintable()).encode("latin-1", "ignore").decode("latin-1")


def _amqp_value(rng: Random) -> Any:  # noqa: ANN401
    """Make a value of any of the types that AMQP has."""
    others: tuple[Any, ...] = (
        datetime.now(UTC),
        Decimal("1.5"),
        bytearray(b"\xff\xfe"),
        2**31,
        -(2**63),
        0.5,
    )
    numbers = [value for value in ODD_VALUES if not _too_large(value)]
    return rng.choice([*others, *numbers, *ODD_TEXTS])


def _too_large(value: object) -> bool:
    return isinstance(value, int) and abs(value) >= 2**63


def _sent(rng: Random, fields: dict[str, Any]) -> bytes:
    """Write *fields* with up to four things wrong; one time in ten nothing is."""
    if rng.random() < 0.02:
        return rng.choice(ODD_PAGES)
    fields = copy.deepcopy(fields)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3, 4])):
        _spoil(rng, fields)
    written = _json(rng, fields)
    while rng.random() < 0.15:
        written = rng.choice(SPOILERS)(rng, written)
    return written


def _json(rng: Random, fields: dict[str, Any]) -> bytes:
    text = json.dumps(fields, ensure_ascii=rng.random() < 0.5)
    return text.encode(errors="surrogatepass")


def _spoil(rng: Random, value: Any) -> None:  # noqa: ANN401
    """Change one thing somewhere within *value*, an object or a list."""
    places = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not places:
        return
    place = rng.choice(places)
    if isinstance(value[place], dict | list) and rng.random() < 0.7:
        _spoil(rng, value[place])
    else:
        _change(rng, value, place)


def _change(rng: Random, value: Any, place: Any) -> None:  # noqa: ANN401
    match rng.randrange(5):
        case 0:
            del value[place]
        case 1 if isinstance(value, dict):
            value[_misspelt(rng, place)] = value.pop(place)
        case 2 if isinstance(value[place], str):
            value[place] = _edited(rng, value[place])
        case 3:
            value[place] = rng.choice(ODD_TEXTS)
        case _:
            value[place] = copy.deepcopy(rng.choice(ODD_VALUES))


def _misspelt(rng: Random, name: str) -> str:
    spelt = [name.upper(), name.lower(), name + "s", name[:-1], f" {name}", name.replace("_", "")]
    return rng.choice([*spelt, *ODD_TEXTS])


def _edited(rng: Random, text: str) -> str:
    at = rng.randint(0, len(text))
    return text[:at] + rng.choice(ODD_TEXTS) + text[at + rng.randint(0, 3) :]


def _cut(rng: Random, written: bytes) -> bytes:
    return written[: rng.randint(0, len(written))]


def _flipped(rng: Random, written: bytes) -> bytes:
    if not written:
        return written
    at = rng.randrange(len(written))
    return written[:at] + bytes([written[at] ^ (1 << rng.randrange(8))]) + written[at + 1 :]


def _inserted(rng: Random, written: bytes) -> bytes:
    at, byte = rng.randint(0, len(written)), rng.choice(BETWEEN)
    return written[:at] + bytes([byte]) * rng.choice([1, 1, 1, 70_000]) + written[at:]


def _said_twice(rng: Random, written: bytes) -> bytes:
    """Name a field twice."""
    name = rng.choice([*REQUEST, "result", "error"]).encode()
    return written.replace(b"{", b'{"' + name + b'":"twice",', 1)


def _in_another_encoding(rng: Random, written: bytes) -> bytes:
    encoding = rng.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp1251"])
    return written.decode(errors="ignore").encode(encoding, "ignore")


SPOILERS: tuple[Callable[[Random, bytes], bytes], ...] = (
    _cut,
    _flipped,
    _inserted,
    _said_twice,
    _in_another_encoding,
)

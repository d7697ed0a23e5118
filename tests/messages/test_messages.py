"""The wire: which bodies are requests, what is said of the others, and what our headers tell."""

import bz2
import gzip
import json
import lzma
import time
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from consumer.delivery import MessageHeaders, read_headers
from consumer.events import (
    CallFailed,
    CallStarted,
    Event,
    cloud_event_headers,
    event_id,
    event_type,
    invalid_event_id,
    to_json,
)
from consumer.messages import (
    MAX_BODY_BYTES,
    CallRequested,
    Defaults,
    Invalid,
    read_body,
    readable_id,
    rfc3339,
    rfc3339_at,
)
from consumer.messages.bodies import MAX_DEPTH

NUMBER = "+4915112345678"
TEXT = "Frau Meier, your code is 4711."
GOOD = {"request_id": "r-1", "to_number": NUMBER, "text_to_pronounce": TEXT, "from_line": "reg1"}
NOW = datetime(2026, 3, 17, 12, 0, tzinfo=UTC)
EARLIER = NOW - timedelta(hours=1)


def body(**changes: Any) -> bytes:  # noqa: ANN401
    return json.dumps(GOOD | changes).encode()


def body_without(field: str) -> bytes:
    return json.dumps({k: v for k, v in GOOD.items() if k != field}).encode()


def accepted(verdict: CallRequested | Invalid) -> CallRequested:
    assert isinstance(verdict, CallRequested), verdict
    return verdict


# --- bodies that are requests


def test_a_request_has_expired_from_the_very_moment() -> None:
    call = accepted(read_body(body(expires_at="2026-03-17T12:00:00Z"), Defaults()))
    at = datetime(2026, 3, 17, 12, tzinfo=UTC).timestamp()

    assert [call.has_expired(at - 0.001), call.has_expired(at)] == [False, True]


def test_a_request_is_read_as_it_was_sent() -> None:
    sent = body(
        voice="ruinternalfemale",
        not_before="2026-03-17T13:00:00+01:00",
        expires_at="2026-03-17T20:00:00Z",
        metadata={"order": "17", "": ""},
        time_zone="Europe/Berlin",
        urgent=True,
    )

    call = accepted(read_body(sent, Defaults()))

    assert call.model_dump() == GOOD | {
        "voice": "ruinternalfemale",
        "not_before": NOW,
        "expires_at": datetime(2026, 3, 17, 20, tzinfo=UTC),
        "metadata": {"order": "17", "": ""},
        "time_zone": "Europe/Berlin",
        "urgent": True,
    }


def test_a_request_is_not_urgent_and_names_no_zone_unless_it_says_so() -> None:
    call = accepted(read_body(body(), Defaults()))

    assert (call.time_zone, call.urgent) == (None, False)


def test_what_a_request_leaves_out_the_settings_say() -> None:
    defaults = Defaults(line="sip7", voice="usenglishmale")

    call = accepted(read_body(body_without("from_line"), defaults))

    assert (call.from_line, call.voice) == ("sip7", "usenglishmale")


def test_what_a_request_says_goes_before_the_settings() -> None:
    defaults = Defaults(line="sip7", voice="usenglishmale")

    call = accepted(read_body(body(voice="eurgermanfemale"), defaults))

    assert (call.from_line, call.voice) == ("reg1", "eurgermanfemale")


def test_without_any_voice_the_portal_chooses() -> None:
    call = accepted(read_body(body(), Defaults()))

    assert call.voice is None


STILL_GOOD: dict[str, bytes] = {
    "64 KiB": body().ljust(MAX_BODY_BYTES),
    "request id of 128 characters": body(request_id="a" * 128),
    "every kind of character in the id": body(request_id="AZaz09._:-"),
    "text of 2000 characters": body(text_to_pronounce="ж" * 2000),
    "text of one character": body(text_to_pronounce="0"),
    "text around blanks": body(text_to_pronounce=" \n a \n "),
    "line of 128 characters": body(from_line="1" * 128),
    "20 pairs of metadata": body(metadata={str(i): "" for i in range(20)}),
    "no pairs of metadata": body(metadata={}),
    "characters beyond 16 bits": body(text_to_pronounce="\U0001f4de"),
}


def test_what_is_nested_counts_only_outside_of_texts() -> None:
    assert isinstance(read_body(body(text_to_pronounce='[{"[' * 100), Defaults()), CallRequested)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b'{"a":[' + b"[]," * 5000 + b"{}]}", "invalid_field"),
        (b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}", "invalid_field"),
        (b'{"a":[1],"b":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "not_json"),
    ],
    ids=["wide", "as deep as may be", "deeper"],
)
def test_only_what_is_within_one_another_is_deep(sent: bytes, code: str) -> None:
    read = read_body(sent, Defaults())

    assert isinstance(read, Invalid)
    assert read.code == code


@pytest.mark.parametrize("sent", [b'"\\' * 30_000, b'["' * 30_000, b'\\"' * 30_000])
def test_no_body_takes_long_to_read(sent: bytes) -> None:
    began_at = time.monotonic()

    assert isinstance(read_body(sent, Defaults()), Invalid)
    assert time.monotonic() - began_at < 1


def test_a_byte_order_mark_does_no_harm() -> None:
    assert accepted(read_body(b"\xef\xbb\xbf" + body(), Defaults())).request_id == "r-1"


@pytest.mark.parametrize("request_id", ["-", "--all", "-h", "-x3F"])
def test_an_id_that_begins_with_a_dash_is_refused_and_shown(request_id: str) -> None:
    verdict = read_body(body(request_id=request_id), Defaults())

    assert verdict == Invalid("invalid_field", there("request_id", "-", 1), request_id)
    assert readable_id({"request_id": request_id}) == request_id


@pytest.mark.parametrize("sent", STILL_GOOD.values(), ids=STILL_GOOD)
def test_a_request_at_a_limit_is_still_good(sent: bytes) -> None:
    assert isinstance(read_body(sent, Defaults()), CallRequested)


def phone_number(text: str) -> str | None:
    try:
        parsed = phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException:
        return None
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


NUMBERS: dict[str, tuple[str, str | None, str]] = {
    "E.164": ("+4915112345678", None, "+4915112345678"),
    "the vendor's own, possible but not valid": ("+19991234567", None, "+19991234567"),
    "blanks and dashes": ("+1 (999) 123-45-67", None, "+19991234567"),
    "a zero for callers at home": ("+49 (0) 30 123456", None, "+4930123456"),
    "a zero that belongs to the number": ("+39 06 1234567", None, "+39061234567"),
    "national, Germany": ("030/123456", "DE", "+4930123456"),
    "national, Russia": ("8 916 123-45-67", "RU", "+79161234567"),
    "national, brackets first": ("(202) 555-0143", "US", "+12025550143"),
    "dialled out of a country": ("00 44 20 7946 0958", "DE", "+442079460958"),
    "no-break blanks and hyphens": ("+1\u00a0202\u00a0555\u20110143", None, "+12025550143"),
    "pasted out of contacts": ("\u202a+1 (202) 555-0143\u202c", None, "+12025550143"),
    "marks of direction": ("\u200e+1 202 555 0143\u200f", None, "+12025550143"),
    "en dashes": ("+1\u2013202\u2013555\u20130143", None, "+12025550143"),
    "soft hyphens and joiners": ("+1\u00ad202\u200b555\u20600143", None, "+12025550143"),
    "full width": (
        "\uff0b\uff11\uff08\uff12\uff10\uff12\uff09555\uff0d0143",
        None,
        "+12025550143",
    ),
    "Arabic digits": ("+١٢٠٢٥٥٥٠١٤٣", None, "+12025550143"),
    "Persian digits": ("+۱۲۰۲۵۵۵۰۱۴۳", None, "+12025550143"),
    "Devanagari digits": ("+१२०२५५५०१४३", None, "+12025550143"),
    "square brackets": ("[+1] 202 555 0143", None, "+12025550143"),
    "blanks around": (" +1 202 555 0143 ", None, "+12025550143"),
    "national, full width": ("\uff08202\uff095550143", "US", "+12025550143"),
    "a plus outweighs the region": ("+4930123456", "US", "+4930123456"),
}


@pytest.mark.parametrize(("number", "region", "e164"), NUMBERS.values(), ids=NUMBERS)
def test_a_number_is_brought_to_e164(number: str, region: str | None, e164: str) -> None:
    call = accepted(read_body(body(to_number=number), Defaults(region=region)))

    assert call.to_number == e164


PUNCTUATION = [
    chr(code)
    for code in range(0x10000)
    if not chr(code).isalnum() and phone_number(f"+1 202{chr(code)}5550143") == "+12025550143"
]


@pytest.mark.parametrize("mark", PUNCTUATION, ids=[f"U+{ord(c):04X}" for c in PUNCTUATION])
def test_what_phonenumbers_takes_for_punctuation_we_do_too(mark: str) -> None:
    if mark == "*":  # a key to press, for some portals
        return
    call = accepted(read_body(body(to_number=f"+1 202{mark}5550143"), Defaults()))

    assert call.to_number == "+12025550143"


MOMENTS: dict[str, tuple[str, datetime]] = {
    "UTC": ("2026-03-17T12:00:00Z", NOW),
    "small letters": ("2026-03-17t12:00:00z", NOW),
    "east": ("2026-03-17T17:30:00+05:30", NOW),
    "west": ("2026-03-17T04:00:00-08:00", NOW),
    "offset nobody knows": ("2026-03-17T12:00:00-00:00", NOW),
    "a tenth": ("2026-03-17T12:00:00.5Z", NOW + timedelta(milliseconds=500)),
    "nanoseconds": ("2026-03-17T12:00:00.123456789Z", NOW + timedelta(microseconds=123456)),
    "leap day": ("2028-02-29T00:00:00Z", datetime(2028, 2, 29, tzinfo=UTC)),
}


@pytest.mark.parametrize("field", ["not_before", "expires_at"])
@pytest.mark.parametrize(("written", "moment"), MOMENTS.values(), ids=MOMENTS)
def test_a_time_is_read_in_utc(field: str, written: str, moment: datetime) -> None:
    call = accepted(read_body(body(**{field: written}), Defaults()))

    assert getattr(call, field) == moment
    assert getattr(call, field).utcoffset() == timedelta(0)


# --- bodies that are none

CODE_PAGE = "the body is not UTF-8 from byte 28 on: is it in a code page, as Windows-1251?"
VALUE = "the body is an AMQP 1.0 value section: send the JSON in a data section"
NOT_READABLE: dict[str, tuple[bytes, Invalid]] = {
    "64 KiB and one byte": (
        body().ljust(MAX_BODY_BYTES + 1),
        Invalid("too_large", "the body has 65537 bytes, 65536 are allowed"),
    ),
    "too large goes before not UTF-8": (
        b"\xff" * 65537,
        Invalid("too_large", "the body has 65537 bytes, 65536 are allowed"),
    ),
    "not UTF-8": (
        b'{"request_id":"r-1","text":"\xff"}',
        Invalid("not_utf8", CODE_PAGE),
    ),
    "half a surrogate pair in a value": (
        b'{"request_id":"r-1","text_to_pronounce":"\\ud83d"}',
        Invalid("not_utf8", "the body holds half of a surrogate pair"),
    ),
    "half a surrogate pair in a name": (
        b'{"request_id":"r-1","\\udcde":1}',
        Invalid("not_utf8", "the body holds half of a surrogate pair"),
    ),
    "nothing": (b"", Invalid("not_json", "the body is not JSON at character 0: Expecting value")),
    "plain text": (
        b"call me",
        Invalid("not_json", "the body is not JSON at character 0: Expecting value"),
    ),
    "two requests": (
        b"{}{}",
        Invalid("not_json", "the body is not JSON at character 2: Extra data"),
    ),
    "NaN": (
        b'{"request_id":"r-1","n":NaN}',
        Invalid("not_json", "the body is not JSON that can be read: NaN, or nested too deep"),
    ),
    "Infinity": (
        b"[-Infinity]",
        Invalid("not_json", "the body is not JSON that can be read: NaN, or nested too deep"),
    ),
    "nested too deep": (
        b"[" * 60_000,
        Invalid("not_json", "the body is not JSON that can be read: NaN, or nested too deep"),
    ),
    "nested too deep in objects": (
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        Invalid("not_json", "the body is not JSON that can be read: NaN, or nested too deep"),
    ),
    "a number of 5000 digits": (
        b'{"a":' + b"9" * 5000 + b"}",
        Invalid("not_json", "the body is not JSON that can be read: NaN, or nested too deep"),
    ),
    "gzip": (
        gzip.compress(body()),
        Invalid("compressed", "the body is compressed with gzip: send plain JSON"),
    ),
    "zstd": (
        b"\x28\xb5\x2f\xfd\x00",
        Invalid("compressed", "the body is compressed with zstd: send plain JSON"),
    ),
    **{
        method: (
            beginning,
            Invalid("compressed", f"the body is compressed with {method}: send plain JSON"),
        )
        for method, beginning in {
            "zlib": zlib.compress(body()),
            "bzip2": bz2.compress(body()),
            "xz": lzma.compress(body()),
            "lz4": b"\x04\x22\x4d\x18",
            "zip": b"PK\x03\x04",
        }.items()
    },
    "AMQP 1.0, its kind in eight bytes": (
        b"\x00\x80\x00\x00\x00\x00\x00\x00\x00w\xb0\x00\x00\x00\x02{}",
        Invalid("amqp_value", VALUE),
    ),
    "AMQP 1.0, a string": (b"\x00Sw\xa1\x02{}", Invalid("amqp_value", VALUE)),
    "AMQP 1.0, a long binary": (b"\x00Sw\xb0\x00\x00\x01\x00{", Invalid("amqp_value", VALUE)),
    "AMQP 1.0, a map": (b"\x00Sw\xd1\x00\x00\x00\x00", Invalid("amqp_value", VALUE)),
    "AMQP 1.0, a sequence": (
        b"\x00Sv\xd0\x00\x00\x00\x09",
        Invalid("amqp_value", VALUE.replace("value", "sequence")),
    ),
    "UTF-16": (
        body().decode().encode("utf-16"),
        Invalid("not_utf8", "the body is UTF-16: send UTF-8"),
    ),
    "UTF-16 without a mark": (
        body().decode().encode("utf-16-le"),
        Invalid("not_utf8", "the body is UTF-16-LE: send UTF-8"),
    ),
    "UTF-32": (
        body().decode().encode("utf-32-be"),
        Invalid("not_utf8", "the body is UTF-32-BE: send UTF-8"),
    ),
    "a byte order mark and nothing": (
        b"\xef\xbb\xbf",
        Invalid("not_json", "the body is not JSON at character 0: Expecting value"),
    ),
    "a list": (b"[]", Invalid("not_an_object", "the body is JSON but not an object")),
    "null": (b"null", Invalid("not_an_object", "the body is JSON but not an object")),
    "a string": (b'"hi"', Invalid("not_an_object", "the body is JSON but not an object")),
}


@pytest.mark.parametrize(("sent", "invalid"), NOT_READABLE.values(), ids=NOT_READABLE)
def test_a_body_that_cannot_be_read_is_refused(sent: bytes, invalid: Invalid) -> None:
    assert read_body(sent, Defaults(line="reg1")) == invalid


A_MOMENT = "is not an RFC 3339 time with offset, as 2026-01-31T09:00:00Z"
NO_NUMBER = "is no phone number: write +<country code><number>, or set CALLS_DEFAULT_REGION"
A_ZONE = "is no time zone: write an IANA name with its capitals, as Europe/Berlin"
BLANK = "is nothing but blanks"
IMPOSSIBLE = "is not a possible phone number: check its length"


def there(field: str, character: str, position: int) -> str:
    where = f"U+{ord(character):04X} at character {position}"
    return f"{field}: has characters that are not allowed: {where}"


WRONG_FIELDS: dict[str, tuple[bytes, str]] = {
    "no number": (body_without("to_number"), "to_number: is missing"),
    "no text": (body_without("text_to_pronounce"), "text_to_pronounce: is missing"),
    "no line anywhere": (
        body_without("from_line"),
        "from_line: is missing, and no CALLS_DEFAULT_LINE is set",
    ),
    "number as a number": (body(to_number=4915112345678), "to_number: is not a string"),
    "number in letters": (body(to_number="+1 800 FLOWERS"), there("to_number", "F", 8)),
    "number with keys to press": (body(to_number=f"{NUMBER},,1#"), there("to_number", ",", 15)),
    "number with a line break": (body(to_number=f"{NUMBER}\n"), there("to_number", "\n", 15)),
    "number with two pluses": (body(to_number="++12025550143"), there("to_number", "+", 2)),
    "number with an unseen mark inside": (
        body(to_number="\u202a+1 202\u200e5550143\u202c"),
        there("to_number", "\u200e", 8),
    ),
    "number with a narrow blank": (
        body(to_number="+1\u202f2025550143"),
        there("to_number", "\u202f", 3),
    ),
    "number of 43 characters": (body(to_number="+" + "1" * 42), "to_number: is too long"),
    "empty number": (body(to_number=""), "to_number: is too short"),
    "number without digits": (body(to_number="+ ()"), "to_number: is too short"),
    "time with a dash of another kind": (
        body(not_before="2026-03\u201117T12:00:00Z"),
        f"not_before: {A_MOMENT}: U+2011 at character 8",
    ),
    "national number, no region": (body(to_number="030 123456"), f"to_number: {NO_NUMBER}"),
    "no such country code": (body(to_number="+0123456"), f"to_number: {NO_NUMBER}"),
    "a digit short": (body(to_number="+1999123456"), f"to_number: {IMPOSSIBLE}"),
    "a digit long": (body(to_number="+199912345678"), f"to_number: {IMPOSSIBLE}"),
    "empty text": (body(text_to_pronounce=""), "text_to_pronounce: is empty"),
    "blank text": (body(text_to_pronounce=" \t\n\u00a0"), f"text_to_pronounce: {BLANK}"),
    "text of 2001": (body(text_to_pronounce="a" * 2001), "text_to_pronounce: is too long"),
    "text as a list": (body(text_to_pronounce=["a"]), "text_to_pronounce: is not a string"),
    "text null": (body(text_to_pronounce=None), "text_to_pronounce: is null: leave it out instead"),
    "empty line": (body(from_line=""), "from_line: is empty"),
    "blank line": (body(from_line="  "), f"from_line: {BLANK}"),
    "line of 129": (body(from_line="1" * 129), "from_line: is too long"),
    "line as a number": (body(from_line=7), "from_line: is not a string"),
    "line null": (body(from_line=None), "from_line: is null: leave it out instead"),
    "empty voice": (body(voice=""), "voice: is empty"),
    "voice true": (body(voice=True), "voice: is not a string"),
    "voice null": (body(voice=None), "voice: is null: leave it out instead"),
    "metadata null": (body(metadata=None), "metadata: is null: leave it out instead"),
    "metadata a list": (body(metadata=[]), "metadata: is not an object"),
    "metadata with a number": (body(metadata={"a": 1}), "metadata: is not a string"),
    "metadata with null": (body(metadata={"a": None}), "metadata: is not a string"),
    "metadata nested": (body(metadata={"a": {"b": "c"}}), "metadata: is not a string"),
    "21 pairs of metadata": (
        body(metadata={str(i): "" for i in range(21)}),
        "metadata: holds more than 20 pairs",
    ),
    "time without offset": (
        body(expires_at="2026-03-17T12:00:00"),
        f"expires_at: {A_MOMENT}",
    ),
    "time after a blank": (
        body(not_before="2026-03-17 12:00:00Z"),
        f"not_before: {A_MOMENT}: U+0020 at character 11",
    ),
    "a day only": (body(not_before="2026-03-17"), f"not_before: {A_MOMENT}"),
    "30 February": (body(not_before="2026-02-30T12:00:00Z"), f"not_before: {A_MOMENT}"),
    "29 February of no leap year": (
        body(not_before="2027-02-29T12:00:00Z"),
        f"not_before: {A_MOMENT}",
    ),
    "24 o'clock": (
        body(not_before="2026-03-17T24:00:00Z"),
        f"not_before: {A_MOMENT}: U+0034 at character 13",
    ),
    "leap second": (
        body(not_before="2026-12-31T23:59:60Z"),
        f"not_before: {A_MOMENT}: U+0036 at character 18",
    ),
    "offset of 24 hours": (
        body(not_before="2026-03-17T12:00:00+24:00"),
        f"not_before: {A_MOMENT}: U+0034 at character 22",
    ),
    "before all time": (body(not_before="0001-01-01T00:00:00+14:00"), f"not_before: {A_MOMENT}"),
    "line break behind a time": (
        body(not_before="2026-03-17T12:00:00Z\n"),
        f"not_before: {A_MOMENT}: U+000A at character 21",
    ),
    "seconds since the epoch": (body(expires_at=1773740709), f"expires_at: {A_MOMENT}"),
    "time true": (body(expires_at=True), f"expires_at: {A_MOMENT}"),
    "time null": (body(expires_at=None), "expires_at: is null: leave it out instead"),
    "zone of nowhere": (body(time_zone="Europe/Nowhere"), f"time_zone: {A_ZONE}"),
    "zone in small letters": (body(time_zone="europe/berlin"), f"time_zone: {A_ZONE}"),
    "zone as an offset": (body(time_zone="+01:00"), f"time_zone: {A_ZONE}"),
    "zone as a file": (body(time_zone="../../etc/passwd"), f"time_zone: {A_ZONE}"),
    "empty zone": (body(time_zone=""), f"time_zone: {A_ZONE}"),
    "zone as a number": (body(time_zone=1), "time_zone: is not a string"),
    "zone null": (body(time_zone=None), "time_zone: is null: leave it out instead"),
    "urgent as text": (body(urgent="true"), "urgent: is not true or false"),
    "urgent as a number": (body(urgent=1), "urgent: is not true or false"),
    "urgent null": (body(urgent=None), "urgent: is null: leave it out instead"),
    "misspelt field": (
        body(expire_at="2026-03-17T12:00:00Z"),
        "expire_at: is no field of call.requested: check its spelling",
    ),
    "two mistakes": (
        body(voice=7, from_line=""),
        "from_line: is empty; voice: is not a string",
    ),
    "the same mistake twice": (
        body(**{"a b": 1, "c d": 2}),
        "a field: is no field of call.requested: check its spelling",
    ),
}


@pytest.mark.parametrize(("sent", "description"), WRONG_FIELDS.values(), ids=WRONG_FIELDS)
def test_a_wrong_field_is_named_in_plain_words(sent: bytes, description: str) -> None:
    assert read_body(sent, Defaults()) == Invalid("invalid_field", description, "r-1")


def test_where_a_region_is_set_a_bad_number_is_not_blamed_on_it() -> None:
    verdict = read_body(body(to_number="1.(("), Defaults(region="DE"))

    assert verdict == Invalid("invalid_field", "to_number: is no phone number", "r-1")


def test_a_number_that_only_neighbours_can_dial_is_refused() -> None:
    verdict = read_body(body(to_number="5550143"), Defaults(region="US"))

    assert verdict == Invalid("invalid_field", f"to_number: {IMPOSSIBLE}", "r-1")


WRONG_IDS: dict[str, object] = {
    "empty": "",
    "129 characters": "a" * 129,
    "a blank": "a b",
    "a slash": "a/b",
    "an umlaut": "ä",
    "a line break behind": "a\n",
    "a number": 7,
    "a list": ["a"],
    "null": None,
}


@pytest.mark.parametrize("request_id", WRONG_IDS.values(), ids=WRONG_IDS)
def test_an_id_that_is_none_is_not_read(request_id: object) -> None:
    verdict = read_body(body(request_id=request_id), Defaults())

    assert isinstance(verdict, Invalid)
    assert verdict.code == "invalid_field"
    assert verdict.description.startswith("request_id: ")
    assert verdict.request_id is None
    assert readable_id({"request_id": request_id}) is None


ID_MISTAKES: dict[str, tuple[str, str]] = {
    "a blank": ("r 1", there("request_id", " ", 2)),
    "a letter of another script": ("r-ж", there("request_id", "ж", 3)),
    "a line break": ("r\n", there("request_id", "\n", 2)),
    "nothing": ("", "request_id: is empty"),
    "129 characters": ("a" * 129, "request_id: is too long"),
}


@pytest.mark.parametrize(("request_id", "told"), ID_MISTAKES.values(), ids=ID_MISTAKES)
def test_what_is_wrong_with_an_id_is_said(request_id: str, told: str) -> None:
    verdict = read_body(body(request_id=request_id), Defaults())

    assert verdict == Invalid("invalid_field", told)


def test_an_id_is_read_from_a_request_that_is_otherwise_wrong() -> None:
    assert readable_id({"request_id": "r-1", "voice": 7}) == "r-1"
    assert readable_id(["r-1"]) is None


def test_a_description_has_500_characters_at_most() -> None:
    verdict = read_body(body(**{f"field_{'x' * (i + 1)}": 1 for i in range(30)}), Defaults())

    assert isinstance(verdict, Invalid)
    assert len(verdict.description) == 500


# --- nothing quoted

CANARY = "0151 12345678"
SECRETIVE: dict[str, bytes] = {
    "a number too short": body(to_number="+0 151 12345678"),
    "a number in words": body(to_number=f"call {CANARY}"),
    "a national number": body(to_number=CANARY),
    "a text too long": body(text_to_pronounce=CANARY * 200),
    "a text in a list": body(text_to_pronounce=[CANARY]),
    "an id": body(request_id=CANARY),
    "a line": body(from_line=[CANARY]),
    "a voice": body(voice={CANARY: CANARY}),
    "a time": body(expires_at=CANARY),
    "a value of metadata": body(metadata={"a": [CANARY]}),
    "a name of metadata": body(metadata={CANARY: 1}),
    "an unknown field's value": body(phone=CANARY),
    "an unknown field's name": body(**{CANARY: 1}),
    "a number for a field": body(**{"+4915112345678": "0151 12345678"}),
    "a sentence for a field": body(**{f"Frau Meier {CANARY}": 1}),
    "a name with a line break": body(**{f"a\n{CANARY}": 1}),
    "a body that is no object": json.dumps([CANARY]).encode(),
    "a body that is no JSON": f'{{"to_number": {CANARY}}}'.encode(),
    "a bad escape": f'{{"to_number": "\\x{CANARY}"}}'.encode(),
    "bad UTF-8": CANARY.encode() + b"\xff",
}


@pytest.mark.parametrize("sent", SECRETIVE.values(), ids=SECRETIVE)
def test_nothing_of_a_wrong_body_is_quoted(sent: bytes) -> None:
    verdict = read_body(sent, Defaults(line="reg1"))

    assert isinstance(verdict, Invalid)
    for part in (CANARY, "151", "12345678", "Meier"):
        assert part not in verdict.description


SHOWN: dict[str, tuple[str, bool]] = {
    "a misspelt field": ("expires-At", True),
    "40 letters": ("a" * 40, True),
    "41 letters": ("a" * 41, False),
    "digits": ("field1", False),
    "a blank": ("Frau Meier", False),
    "letters of another script": ("Мейер", False),
    "nothing": ("", False),
}


@pytest.mark.parametrize(("name", "shown"), SHOWN.values(), ids=SHOWN)
def test_an_unknown_field_is_named_only_if_it_looks_like_a_name(name: str, *, shown: bool) -> None:
    verdict = read_body(body(**{name: 1}), Defaults())

    field = name if shown else "a field"
    text = f"{field}: is no field of call.requested: check its spelling"
    assert verdict == Invalid("invalid_field", text, "r-1")


def test_a_request_shows_neither_number_nor_text() -> None:
    call = accepted(read_body(body(metadata={"name": "Meier"}), Defaults()))

    assert repr(call) == str(call) == f"{call}" == "CallRequested(request_id='r-1')"


def test_the_error_behind_a_wrong_field_does_not_quote_it_either() -> None:
    with pytest.raises(ValidationError) as caught:
        CallRequested.model_validate(GOOD | {"voice": [CANARY]})

    assert CANARY not in str(caught.value)


# --- bodies nobody thought of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=200), st.sampled_from([None, "DE"]))
@settings(max_examples=150, deadline=None)
def test_no_bytes_at_all_are_too_much(sent: bytes, region: str | None) -> None:
    verdict = read_body(sent, Defaults(line="reg1", region=region))

    assert isinstance(verdict, CallRequested | Invalid)


@given(
    st.dictionaries(st.sampled_from([*CallRequested.model_fields, "other"]), JSON)
    | st.fixed_dictionaries(
        {"request_id": st.just("r-1")},
        optional={
            "to_number": st.from_regex(r"\A[+(]?[0-9][0-9 ()./-]{1,39}\Z"),
            "text_to_pronounce": st.text(),
            "not_before": st.from_regex(r"\A[0-9]{4}-[01]\d-[0-3]\dT[0-2]\d:00:00[+-]\d\d:\d\d\Z"),
            "metadata": st.dictionaries(st.text(), st.text()),
        },
    )
    | JSON,
    st.sampled_from([None, "US", "DE", "RU"]),
)
@settings(max_examples=150, deadline=None)
def test_no_json_at_all_is_too_much(fields: object, region: str | None) -> None:
    sent = json.dumps(fields).encode()

    verdict = read_body(sent, Defaults(line="reg1", region=region))

    assert isinstance(verdict, CallRequested | Invalid)
    if isinstance(verdict, CallRequested):
        again = read_body(body(to_number=verdict.to_number), Defaults())
        assert accepted(again).to_number == verdict.to_number


def test_a_number_that_would_be_another_one_in_e164_is_none() -> None:
    verdict = read_body(body(to_number="000000"), Defaults(region="DE"))

    assert isinstance(verdict, Invalid)
    assert "possible phone number" in verdict.description


# --- events

STARTED_EVENT = CallStarted(
    event_id="4f95f78d-59b6-5a81-bea4-26a2919e1867",
    request_id="r-1",
    call_id=None,
    to_number=NUMBER,
    from_line="reg1",
    attempt=1,
    replay=0,
    started_at="2026-03-17T12:00:00.000Z",
    confirmed_by="answer",
)
FAILED_EVENT = CallFailed(
    event_id="979e2701-ba46-59cd-a1af-bee13e6a1b59",
    request_id=None,
    reason="invalid",
    code="not_json",
    description="the body is not JSON",
    attempt=0,
    replay=0,
    failed_at="2026-03-17T12:00:00.000Z",
)


def test_an_event_leaves_out_what_is_unknown_but_says_that_there_is_no_call_id() -> None:
    assert to_json(STARTED_EVENT) == (
        b'{"event_id":"4f95f78d-59b6-5a81-bea4-26a2919e1867","request_id":"r-1","call_id":null,'
        b'"to_number":"+4915112345678","from_line":"reg1","attempt":1,"replay":0,'
        b'"started_at":"2026-03-17T12:00:00.000Z","confirmed_by":"answer"}'
    )


def test_an_event_about_an_unreadable_body_says_that_there_is_no_request_id() -> None:
    assert to_json(FAILED_EVENT) == (
        b'{"event_id":"979e2701-ba46-59cd-a1af-bee13e6a1b59","request_id":null,'
        b'"reason":"invalid","code":"not_json","description":"the body is not JSON",'
        b'"attempt":0,"replay":0,"failed_at":"2026-03-17T12:00:00.000Z"}'
    )


def test_an_event_is_written_in_utf8() -> None:
    event = CallStarted(
        event_id="e",
        request_id="r-1",
        call_id="c",
        to_number=NUMBER,
        from_line="reg1",
        attempt=1,
        replay=0,
        started_at="",
        confirmed_by="ledger",
        metadata={"имя": "\U0001f4de"},
    )

    assert '"metadata":{"имя":"\U0001f4de"}'.encode() in to_json(event)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(STARTED_EVENT, id="started"),
        pytest.param(
            CallFailed(
                event_id="e",
                request_id="r-1",
                reason="refused",
                code="",
                description="",
                attempt=1,
                replay=0,
                failed_at="",
                to_number=NUMBER,
            ),
            id="failed",
        ),
    ],
)
def test_an_event_does_not_show_the_number(event: Event) -> None:
    assert NUMBER not in repr(event)


PINNED_IDS: dict[str, tuple[str, int, str, str]] = {
    "started": ("r-1", 0, "call.started", "4f95f78d-59b6-5a81-bea4-26a2919e1867"),
    "failed": ("r-1", 0, "call.failed", "73dab8b6-3307-59c8-a15d-a4a11fe25631"),
    "replayed": ("r-1", 1, "call.started", "e2c8efcb-196b-56eb-89e4-6c30afb9e06d"),
    "another": ("a:b", 0, "call.started", "d260bf09-0bd7-5648-9919-4e5b75a9d7a0"),
}


@pytest.mark.parametrize(
    ("request_id", "replay", "kind", "derived"), PINNED_IDS.values(), ids=PINNED_IDS
)
def test_an_event_id_never_changes(request_id: str, replay: int, kind: str, derived: str) -> None:
    assert event_id(request_id, replay, kind) == derived


def test_the_event_id_of_a_body_that_is_no_request_is_its_own() -> None:
    assert invalid_event_id(b"") == "73351056-4cd7-56fd-8733-12a2646f1a60"
    assert invalid_event_id(b"hello") == "979e2701-ba46-59cd-a1af-bee13e6a1b59"


def test_an_event_bears_the_attributes_of_cloudevents() -> None:
    assert event_type(STARTED_EVENT) == "call.started"
    assert cloud_event_headers(STARTED_EVENT, "/call-consumer/call.requested") == {
        "cloudEvents_id": "4f95f78d-59b6-5a81-bea4-26a2919e1867",
        "cloudEvents_source": "/call-consumer/call.requested",
        "cloudEvents_type": "call.started",
        "cloudEvents_specversion": "1.0",
        "cloudEvents_time": "2026-03-17T12:00:00.000Z",
        "cloudEvents_subject": "r-1",
    }


def test_times_are_written_in_utc_wherever_the_worker_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment = datetime(2026, 3, 17, 12, tzinfo=UTC)
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()

    written = rfc3339(moment), rfc3339_at(moment.timestamp())

    monkeypatch.undo()
    time.tzset()
    assert written == ("2026-03-17T12:00:00.000Z",) * 2


def test_an_event_about_an_unreadable_body_has_no_subject() -> None:
    assert event_type(FAILED_EVENT) == "call.failed"
    assert cloud_event_headers(FAILED_EVENT, "/here") == {
        "cloudEvents_id": "979e2701-ba46-59cd-a1af-bee13e6a1b59",
        "cloudEvents_source": "/here",
        "cloudEvents_type": "call.failed",
        "cloudEvents_specversion": "1.0",
        "cloudEvents_time": "2026-03-17T12:00:00.000Z",
    }


def test_a_time_is_written_in_utc_with_milliseconds() -> None:
    moment = datetime.fromisoformat("2026-03-17T13:00:00.987654+01:00")

    assert rfc3339(moment) == "2026-03-17T12:00:00.987Z"


# --- headers

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OURS = {
    "x-attempt": 3,
    "x-replay": 2,
    "x-redial": True,
    "x-first-seen-at": "2026-03-17T10:00:00.000Z",
    "x-unsure-since": "2026-03-17T11:00:00.000Z",
    "traceparent": TRACE,
    "tracestate": "vendor=1",
}
READ = MessageHeaders(
    attempt=3,
    replay=2,
    redial=True,
    first_seen_at=NOW - timedelta(hours=2),
    unsure_since=NOW - timedelta(hours=1),
    trace=(("traceparent", TRACE), ("tracestate", "vendor=1")),
)


def test_headers_are_believed_on_messages_of_ours() -> None:
    assert read_headers(OURS, ours=True, now=NOW) == READ


def test_a_trail_is_written_as_it_is_read() -> None:
    assert READ.as_amqp() == OURS


def test_a_new_trail_is_written_without_what_it_does_not_know() -> None:
    assert MessageHeaders(first_seen_at=NOW).as_amqp() == {
        "x-attempt": 1,
        "x-replay": 0,
        "x-first-seen-at": "2026-03-17T12:00:00.000Z",
    }


def test_of_headers_that_upstream_sent_only_the_trace_is_believed() -> None:
    read = read_headers(OURS | {"x-failed-at": "2026-03-17T11:00:00Z"}, ours=False, now=NOW)

    assert read == MessageHeaders(first_seen_at=NOW, trace=READ.trace)


def test_a_message_without_headers_is_a_first_attempt() -> None:
    assert read_headers({}, ours=True, now=NOW) == MessageHeaders(first_seen_at=NOW)
    assert read_headers({}, ours=False, now=NOW) == MessageHeaders(first_seen_at=NOW)


FIRST_SEEN: dict[str, tuple[dict[str, str], bool, datetime | None, datetime]] = {
    "upstream's own time": ({}, False, EARLIER, EARLIER),
    "no clock runs ahead": ({}, False, NOW + timedelta(seconds=1), NOW),
    "no time": ({}, False, None, NOW),
    "ours, no header": ({}, True, EARLIER, EARLIER),
    "ours, header": (
        {"x-first-seen-at": "2026-03-17T01:00:00Z"},
        True,
        EARLIER,
        NOW.replace(hour=1),
    ),
    "upstream's header": ({"x-first-seen-at": "2026-03-17T01:00:00Z"}, False, EARLIER, EARLIER),
}


@pytest.mark.parametrize(
    ("headers", "ours", "published_at", "expected"), FIRST_SEEN.values(), ids=FIRST_SEEN
)
def test_a_request_was_first_seen_when_upstream_published_it(
    headers: dict[str, str], published_at: datetime | None, expected: datetime, *, ours: bool
) -> None:
    read = read_headers(headers, ours=ours, now=NOW, published_at=published_at)

    assert read.first_seen_at == expected


def test_a_dead_letter_that_was_moved_back_is_the_next_replay() -> None:
    read = read_headers(OURS | {"x-failed-at": "2026-03-17T11:30:00.000Z"}, ours=True, now=NOW)

    assert (read.attempt, read.replay) == (1, 3)
    assert read.unsure_since == READ.unsure_since


def test_a_dead_letter_without_a_replay_is_the_first_one_when_moved_back() -> None:
    read = read_headers({"x-failed-at": "2026-03-17T11:30:00Z"}, ours=True, now=NOW)

    assert (read.attempt, read.replay) == (1, 1)


MALFORMED: dict[str, tuple[str, object]] = {
    "attempt in letters": ("x-attempt", "3"),
    "attempt true": ("x-attempt", True),
    "attempt a fraction": ("x-attempt", 3.0),
    "attempt 0": ("x-attempt", 0),
    "attempt below 0": ("x-attempt", -3),
    "attempt beyond reason": ("x-attempt", 2**40),
    "attempt bytes": ("x-attempt", b"3"),
    "replay in letters": ("x-replay", "2"),
    "replay true": ("x-replay", True),
    "replay below 0": ("x-replay", -1),
    "replay beyond reason": ("x-replay", 2**40),
    "replay a list": ("x-replay", [2]),
    "redial 1": ("x-redial", 1),
    "redial in letters": ("x-redial", "true"),
    "doubt in words": ("x-unsure-since", "yesterday"),
    "doubt a number": ("x-unsure-since", 1773740709),
    "doubt without offset": ("x-unsure-since", "2026-03-17T11:00:00"),
    "doubt a time": ("x-unsure-since", NOW),
    "first seen in words": ("x-first-seen-at", "yesterday"),
    "first seen a list": ("x-first-seen-at", []),
    "failed in words": ("x-failed-at", "yesterday"),
    "failed null": ("x-failed-at", None),
    "trace in capitals": ("traceparent", TRACE.upper()),
    "trace cut off": ("traceparent", TRACE[:-1]),
    "trace with more": ("traceparent", TRACE + "-00"),
    "trace with a line break": ("traceparent", TRACE + "\n"),
    "trace bytes": ("traceparent", TRACE.encode()),
    "trace of nothing": ("traceparent", f"00-{'0' * 32}-b7ad6b7169203331-01"),
    "trace of no parent": ("traceparent", f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01"),
    "trace of version ff": ("traceparent", "ff" + TRACE[2:]),
    "state of no trace": ("tracestate", "vendor=1"),
}


@pytest.mark.parametrize(("name", "value"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_header_is_ignored(name: str, value: object) -> None:
    assert read_headers({name: value}, ours=True, now=NOW) == MessageHeaders(first_seen_at=NOW)


BAD_STATES: dict[str, object] = {
    "too long": "a=" + "b" * 511,
    "not ASCII": "vendor=ä",
    "a number": 7,
    "null": None,
}


@pytest.mark.parametrize("state", BAD_STATES.values(), ids=BAD_STATES)
def test_a_trace_is_carried_on_without_a_state_that_is_none(state: object) -> None:
    read = read_headers({"traceparent": TRACE, "tracestate": state}, ours=False, now=NOW)

    assert read.trace == (("traceparent", TRACE),)


HEADER_VALUES = (
    JSON
    | st.binary()
    | st.datetimes()
    | st.datetimes(timezones=st.timezones())
    | st.decimals()
    | st.text(alphabet="0123456789-:TZ.+")
    | st.just(TRACE)
)


@given(
    st.dictionaries(st.sampled_from([*OURS, "x-failed-at", "x-reason"]), HEADER_VALUES),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_no_headers_at_all_are_too_much(headers: dict[str, Any], ours: bool) -> None:  # noqa: FBT001
    read = read_headers(headers, ours=ours, now=NOW)

    assert read.attempt >= 1
    assert read.replay >= 0
    assert read_headers(read.as_amqp(), ours=True, now=NOW).replay == read.replay

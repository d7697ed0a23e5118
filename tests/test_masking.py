"""What must not be shown is starred, and nothing else."""

import pytest

from consumer.bitrix24.access import secret_parts
from consumer.bitrix24.errors import KNOWN_ERRORS, KnownError
from consumer.bitrix24.lookup import advice_for
from consumer.bitrix24.redaction import redacted
from consumer.masking import masked

NUMBER = "+12025550123"
TEXT = "Your appointment is at nine on Monday, please come"
EXCEEDED = "Infocall limit for this month is exceeded"

MASKED: dict[str, tuple[str, str, str]] = {
    "one letter": ("x", "the limit is exceeded", "the limit is exceeded"),
    "one letter, quoted": ("x", "the text 'x' is bad", "the text '***' is bad"),
    "a sign": (".", "Wrong. Very wrong.", "Wrong. Very wrong."),
    "a short word": ("Hi", "'Hi' is no text for a Highway", "'***' is no text for a Highway"),
    "a whole text": (TEXT, f"bad: {TEXT}", "bad: ***"),
    "a text within a word": (TEXT, f"text{TEXT}end", "text***end"),
    "half a text": (TEXT, f"bad: {TEXT[:30]}...", "bad: ***..."),
    "a text with blanks": ("Good\n  morning all", "bad: Good morning all", "bad: ***"),
    "a text with a soft hyphen": ("ab\u00adcd efgh", "bad: ab cd efgh", "bad: ***"),
    "a number": (NUMBER, f"No call to {NUMBER}", "No call to ***"),
    "a number without its plus": (NUMBER, "No call to 12025550123", "No call to ***"),
    "a number for people": (NUMBER, "No call to +1 (202) 555-0123", "No call to ***"),
    "a national number": (NUMBER, "No call to 202 555-01-23", "No call to ***"),
    "another number": (NUMBER, "No call to +12025550199", "No call to +12025550199"),
    "a secret": ("s3cr3t-webhook", "at /rest/1/s3cr3t-webhook/", "at /rest/1/***/"),
}


@pytest.mark.parametrize(("hidden", "told", "shown"), MASKED.values(), ids=MASKED)
def test_what_is_hidden_is_starred_and_words_stay_words(hidden: str, told: str, shown: str) -> None:
    assert masked(told, [hidden]) == shown


@pytest.mark.parametrize("answer", KNOWN_ERRORS, ids=lambda a: f"{a.code} {a.description}")
def test_no_text_changes_what_the_portal_is_known_to_say(answer: KnownError) -> None:
    for text in ("e", "is", *answer.description.split(), answer.description, answer.code):
        description = redacted(answer.description, (NUMBER, text))
        code = redacted(answer.code, (NUMBER, text))

        assert (code, description) == (answer.code, answer.description)
        assert advice_for(code, description) == answer.advice


KNOWN: dict[str, tuple[str, str, str]] = {
    "what follows": ("reg404", "Could not find config for number reg404", "number ***"),
    "a longer text": (f"{EXCEEDED}, dear Anna", f"{EXCEEDED}, dear Anna", f"{EXCEEDED}***"),
    "not at the beginning": (f"{EXCEEDED}, Anna", f"Bad: {EXCEEDED}, Anna", "Bad: ***"),
    "the second of two": ("Infocall", "Not so; Infocall failure", "Not so; Infocall failure"),
    "in parentheses": ("API", "REST (API) is blocked due to overload", "REST (API) is blocked"),
    "our own": ("no", "no error code", "no error code"),
}


@pytest.mark.parametrize(("text", "told", "shown"), KNOWN.values(), ids=KNOWN)
def test_only_known_words_at_the_beginning_are_spared(text: str, told: str, shown: str) -> None:
    assert shown in redacted(told, (NUMBER, text))


SECRETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "a webhook": ("https://portal.example/rest/1/s3cr3t-webhook/", ("s3cr3t-webhook",)),
    "a short secret": ("https://portal.example/rest/1/abc/", ("abc",)),
    "a mock": ("http://localhost:9000/api/", ()),
    "no webhook": ("https://portal.example/rest/", ()),
}


@pytest.mark.parametrize(("url", "parts"), SECRETS.values(), ids=SECRETS)
def test_the_secret_of_a_webhook_is_hidden_however_short(url: str, parts: tuple[str, ...]) -> None:
    assert secret_parts(url) == parts

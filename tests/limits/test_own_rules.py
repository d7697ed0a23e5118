"""Our own rules: what each forbids, and what is said of it."""

import pytest

from consumer.blocks import Block, Blocks
from consumer.limits.own_rules import Blocked, OwnRules, country_of
from consumer.messages import CallRequested, Defaults, read_request

NUMBER = "+12025550143"
TEXT = "Frau Meier, your code is 4711."
BLOCK = Block("b7", "metadata", "campaign", "42", "wrong text", 1.0, "ann")
BY_NUMBER = Block("b8", "number", "", "d1gest", "asked not to be phoned", 1.0, "ann")
NORTH_AMERICA = frozenset({"US", "CA"})


def call(number: str = NUMBER, **changes: object) -> CallRequested:
    fields = {"request_id": "r-1", "to_number": number, "text_to_pronounce": TEXT} | changes
    verdict = read_request(fields, Defaults(line="reg1"))
    assert isinstance(verdict, CallRequested), verdict
    return verdict


def check(
    rules: OwnRules, asked: CallRequested, *blocks: Block, dialled: int = 0
) -> Blocked | None:
    return rules.check(asked, Blocks(blocks), "d1gest", dialled)


def test_without_rules_everything_is_allowed() -> None:
    assert check(OwnRules(), call(metadata={"campaign": "42"}), dialled=1_000_000) is None


def test_a_block_is_told_with_its_reason_and_how_to_end_it() -> None:
    assert check(OwnRules(), call(metadata={"campaign": "42"}), BLOCK) == Blocked(
        "BLOCKED",
        "block b7, by metadata: wrong text; "
        "once it is over: call-consumer block remove b7, then replay this",
    )


def test_a_block_stops_what_is_urgent_too() -> None:
    found = check(OwnRules(), call(urgent=True), BY_NUMBER)

    assert found is not None
    assert found.code == "BLOCKED"


def test_the_line_of_the_settings_is_blocked_like_one_that_is_named() -> None:
    by_line = Block("b9", "line", "", "reg1", "complaints", 1.0, "ann")

    assert check(OwnRules(), call(), by_line)
    assert check(OwnRules(), call(from_line="reg1"), by_line)
    assert check(OwnRules(), call(from_line="reg2"), by_line) is None


ALLOWED = ["+12025550143", "+14165550143"]
ABROAD = {"+4930123456": "DE", "+18765550143": "JM", "+77012345678": "KZ"}
UNTOLD = ["+19991234567", "+80012345678"]


@pytest.mark.parametrize("number", ALLOWED)
def test_a_country_that_is_listed_is_called(number: str) -> None:
    assert check(OwnRules(NORTH_AMERICA), call(number)) is None


@pytest.mark.parametrize("number", ABROAD)
def test_another_country_is_not_even_where_it_shares_the_code(number: str) -> None:
    assert check(OwnRules(NORTH_AMERICA), call(number)) == Blocked(
        "COUNTRY_NOT_ALLOWED",
        f"the number is of {ABROAD[number]}, which CALLS_COUNTRIES does not list; "
        "list it there if such calls are wanted, then replay this",
    )


@pytest.mark.parametrize("number", UNTOLD)
def test_a_number_whose_country_cannot_be_told_is_not_called(number: str) -> None:
    assert check(OwnRules(NORTH_AMERICA), call(number)) == Blocked(
        "COUNTRY_NOT_ALLOWED",
        "the number's country cannot be told, and CALLS_COUNTRIES allows only some; "
        "check the number, then replay this with --set to_number=…",
    )


LIMITS: dict[str, tuple[int, int, bool]] = {
    "no limit": (0, 99, False),
    "below it": (3, 2, False),
    "reached": (3, 3, True),
    "passed, as it was lowered": (3, 7, True),
}


@pytest.mark.parametrize(("most", "dialled", "blocked"), LIMITS.values(), ids=LIMITS)
def test_a_number_gets_so_many_calls(most: int, dialled: int, *, blocked: bool) -> None:
    found = check(OwnRules(max_per_number=most), call(), dialled=dialled)

    assert (found is not None) is blocked
    if found is not None:
        assert found == Blocked(
            "NUMBER_LIMIT",
            "the number has had the 3 calls within 24 hours that CALLS_MAX_PER_NUMBER_PER_DAY "
            "allows; see why so many are requested; replay this later, or raise the limit",
        )


def test_no_rule_tells_the_number_or_the_text() -> None:
    asked = call(metadata={"campaign": "42"})
    broken = [
        check(OwnRules(), asked, BLOCK),
        check(OwnRules(frozenset({"DE"})), asked),
        check(OwnRules(max_per_number=1), asked, dialled=1),
    ]

    for each in broken:
        assert each is not None
        assert "2025550143" not in each.description
        assert "4711" not in each.description


COUNTRIES: dict[str, str | None] = {
    "+442079460958": "GB",
    "+79161234567": "RU",
    **ABROAD,
    **dict.fromkeys(UNTOLD),
    "+0": None,
    "no number": None,
}


@pytest.mark.parametrize(("number", "country"), COUNTRIES.items())
def test_a_number_is_of_a_country(number: str, country: str | None) -> None:
    assert country_of(number) == country

"""Our own rules: who is not to be phoned, whatever a request asks for. Pure.

When people may be phoned is in `calling_hours`.
"""

from dataclasses import dataclass
from typing import Literal

import phonenumbers

from consumer.blocks import Block, Blocks
from consumer.messages import CallRequested

Code = Literal["BLOCKED", "COUNTRY_NOT_ALLOWED", "NUMBER_LIMIT"]


@dataclass(frozen=True, slots=True)
class Blocked:
    """One of our own rules forbids the call: *code* for programs, *description* for people."""

    code: Code
    description: str


@dataclass(frozen=True, slots=True)
class OwnRules:
    """The rules that settings make.

    Attributes:
        countries: Two letters each: those whose numbers may be called; None for all.
        max_per_number: How many calls one number may get within 24 hours; 0 is no limit.
    """

    countries: frozenset[str] | None = None
    max_per_number: int = 0

    def check(
        self, call: CallRequested, blocks: Blocks, number_digest: str, dialled: int
    ) -> Blocked | None:
        """Say which rule forbids a call, if one does.

        Args:
            call: The request, its line filled in.
            blocks: The operators'.
            number_digest: The keyed digest of its number, as blocks have it.
            dialled: How many calls its number got within the last 24 hours; does not matter where
                there is no limit.
        """
        block = blocks.find(call.metadata or {}, call.from_line, number_digest)
        if block is not None:
            return _by_block(block)
        if self.countries is not None:
            country = country_of(call.to_number)
            if country not in self.countries:
                return _not_allowed(country)
        if 0 < self.max_per_number <= dialled:
            return _too_many(self.max_per_number)
        return None


def country_of(number: str) -> str | None:
    """Return the two letters of the country of a number in E.164, as US.

    None if it is no country's, as +800…, or cannot be told: several countries share +1 and +7, and
    only the digits that follow tell which.
    """
    try:
        region = phonenumbers.region_code_for_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return None
    return region if region in phonenumbers.SUPPORTED_REGIONS else None


def _by_block(block: Block) -> Blocked:
    then = f"once it is over: call-consumer block remove {block.id}, then replay this"
    return Blocked("BLOCKED", f"block {block.id}, by {block.kind}: {block.reason}; {then}")


def _not_allowed(country: str | None) -> Blocked:
    if country is None:
        text = "the number's country cannot be told, and CALLS_COUNTRIES allows only some; "
        then = "check the number, then replay this with --set to_number=…"
    else:
        text = f"the number is of {country}, which CALLS_COUNTRIES does not list; "
        then = "list it there if such calls are wanted, then replay this"
    return Blocked("COUNTRY_NOT_ALLOWED", text + then)


def _too_many(most: int) -> Blocked:
    text = f"the number has had the {most} calls within 24 hours"
    then = "see why so many are requested; replay this later, or raise the limit"
    return Blocked("NUMBER_LIMIT", f"{text} that CALLS_MAX_PER_NUMBER_PER_DAY allows; {then}")

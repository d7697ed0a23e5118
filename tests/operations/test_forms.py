"""What a person writes into a form is read, or refused in words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from consumer.errors import OperatorError
from consumer.ledger import Entry
from consumer.ledger.completions import Completion
from consumer.ledger.letter_acts import LetterAct
from consumer.messages import Defaults
from consumer.messages.endings import Ending
from consumer.operations.choice import Choice
from consumer.operations.controls import Target
from consumer.operations.filters import in_words
from consumer.operations.forms import Form
from consumer.operations.report import Report
from consumer.operations.timeline import timeline
from consumer.operations.wording import clock, in_page_words


def form(**fields: str) -> Form:
    return Form({name.replace("_", "-"): [text] for name, text in fields.items()})


def test_a_filter_chooses_what_the_options_of_dlq_list_would() -> None:
    told = {
        "reason": "refused",
        "code": "ERROR_CORE",
        "description": "config",
        "line": "reg404",
        "metadata": "campaign=42",
        "number": "+1 202 555 0101",
        "since": "2026-01-31T09:00:00Z",
        "until": "",
        "replayed": "no",
        "ids": "a\r\n b \n\na",
    }
    choice = Form({name: [text] for name, text in told.items()}).choice(Defaults())

    assert choice == Choice(
        ids=frozenset({"a", "b"}),
        reasons=("refused",),
        codes=("ERROR_CORE",),
        description="config",
        line="reg404",
        metadata=(("campaign", "42"),),
        number="+12025550101",
        since=datetime(2026, 1, 31, 9, tzinfo=UTC),
        replayed=False,
    )
    assert in_words(choice) == (
        "2 requests, reason refused, code ERROR_CORE, description with config, line reg404, "
        "metadata campaign=42, number +12•••••••01, since 2026-01-31 09:00 UTC, never replayed"
    )


def test_a_group_is_exactly_what_failed_alike() -> None:
    choice = form(group=json.dumps(["refused", None, "no"])).choice(Defaults())

    assert choice == Choice(kind=("refused", None, "no"))
    assert in_words(choice) == "refused : no"


WRONG: dict[str, tuple[dict[str, str], str]] = {
    "nothing": ({}, "Nothing is chosen"),
    "blanks": ({"line": "  "}, "Nothing is chosen"),
    "half a group": ({"group": "[1"}, "look again"),
    "a group of two": ({"group": '["a", "b"]'}, "look again"),
    "no pair": ({"metadata": "campaign"}, "KEY=VALUE"),
    "no time": ({"since": "once"}, "Since: write 7d"),
    "no number": ({"number": "12"}, "Number: "),
}


@pytest.mark.parametrize(("fields", "why"), WRONG.values(), ids=WRONG)
def test_what_chooses_nothing_or_cannot_be_read_is_refused(
    fields: dict[str, str], why: str
) -> None:
    with pytest.raises(OperatorError, match=why):
        form(**fields).choice(Defaults())


def test_all_has_to_be_said() -> None:
    assert form(all="1").choice(Defaults()).everything


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "fast"])
def test_a_rate_is_a_number_above_zero(text: str) -> None:
    with pytest.raises(OperatorError, match=r"0\.001 or more"):
        _ = form(rate=text).rate_per_s


def test_a_rate_may_be_left_out() -> None:
    assert form(rate="0.5").rate_per_s == 0.5
    assert form().rate_per_s is None


def test_edits_are_what_is_filled_in() -> None:
    told = {"set-from_line": ["reg1"], "set-urgent": ["true"], "set-voice": [""], "x": ["y"]}

    assert Form(told).edits == {"from_line": "reg1", "urgent": True}
    with pytest.raises(OperatorError, match="metadata takes a JSON object"):
        _ = Form({"set-metadata": ["{"]}).edits


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201])
def test_a_reason_is_a_few_words(reason: str) -> None:
    with pytest.raises(OperatorError, match="in a few words why"):
        _ = form(reason=reason).reason


TARGETS: dict[str, tuple[str, str, Target]] = {
    "a pair": ("metadata", "campaign=4=2", Target("metadata", "campaign", "4=2")),
    "a line": ("line", "reg1", Target("line", "", "reg1")),
    "a number": ("number", "+1 202 555 0101", Target("number", "", "+12025550101")),
}


@pytest.mark.parametrize(("kind", "value", "target"), TARGETS.values(), ids=TARGETS)
def test_a_target_is_read_and_a_number_is_not_told(kind: str, value: str, target: Target) -> None:
    read = form(kind=kind, value=value).target(Defaults())

    assert read == target
    assert "555" not in read.words


@pytest.mark.parametrize("fields", [{"kind": "line"}, {"kind": "number", "value": "12"}])
def test_a_target_that_is_none_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(OperatorError):
        form(**fields).target(Defaults())


def test_a_time_line_goes_from_published_to_completed() -> None:
    told: dict[str, Any] = {"owner": "o", "body_digest": "", "version": 3}
    entry = Entry(
        request_id="r",
        state="started",
        attempt=2,
        replay=1,
        first_seen_at=10.0,
        first_claimed_at=20.0,
        claimed_at=50.0,
        changed_at=51.0,
        call_id="c1",
        **told,
    )
    act = LetterAct(request_id="r", act="replayed", replay=1, done_at=40.0, done_by="ann (web)")
    ending = Ending(outcome="answered", code="200", description="Successful call", duration_s=12.0)
    ended = Completion("r", 1, "c1", 51.0, 70.0, ending)

    moments = timeline(Report(request_id="r", entry=entry, act=act), ended)

    assert [(moment.at, moment.what) for moment in moments] == [
        (10.0, "published"),
        (20.0, "first dialled"),
        (40.0, "replayed"),
        (50.0, "dialled"),
        (51.0, "started"),
        (70.0, "completed"),
    ]
    assert moments[2].detail == "by ann (web)"


def test_a_page_says_what_to_do_without_commands() -> None:
    assert in_page_words("Replay it with --set to_number=…, or discard it") == (
        "Replay it with a new to_number, or discard it"
    )
    assert in_page_words("`call-consumer lines` lists") == "call-consumer lines lists"
    assert clock(0) == ""
    assert clock(1.0) == "1970-01-01 00:00:01"

"""Which message belongs to which state."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from consumer.announcer import Announcer
from consumer.delivery import MessageHeaders, Unreadable
from consumer.ledger import Entry
from consumer.messages import Invalid
from consumer.rabbitmq.topology import build_topology
from tests.fakes import NUMBER, delivery

if TYPE_CHECKING:
    from consumer.rabbitmq.outgoing import Announcement

NOW = 1_790_000_000.0
ENTRY = Entry(
    request_id="r-1",
    state="started",
    attempt=2,
    replay=1,
    owner="o",
    first_seen_at=NOW - 60,
    changed_at=NOW,
    call_id="c1",
    confirmed_by="history",
    line="reg1",
    code="HTTP_503",
    description="no error code",
    http_status=503,
    body_digest="b",
)


ANNOUNCER = Announcer(build_topology("calls", "q", (5, 30)))


def targets(told: list[Announcement]) -> list[tuple[str, str]]:
    return [(each.outgoing.exchange, each.outgoing.routing_key) for each in told]


def fields(told: Announcement) -> dict[str, Any]:
    """Return the fields of an event."""
    return dict(json.loads(told.outgoing.body))


def test_a_started_call_is_an_event() -> None:
    (told,) = ANNOUNCER.announcements(ENTRY, delivery(metadata={"order": "7"}))

    assert targets([told]) == [("calls", "call.started")]
    event = fields(told)
    assert (event["call_id"], event["attempt"], event["replay"]) == ("c1", 2, 1)
    assert (event["to_number"], event["confirmed_by"]) == (NUMBER, "history")
    assert event["metadata"] == {"order": "7"}
    assert told.event == "call.started"


def test_an_event_repeated_is_the_same_event() -> None:
    first = ANNOUNCER.announcements(ENTRY, delivery())

    assert ANNOUNCER.announcements(ENTRY, delivery()) == first


def test_what_a_person_asks_for_again_is_known_from_the_ledger() -> None:
    (told,) = ANNOUNCER.announcements(ENTRY, delivery(), asked_again=True)

    assert fields(told)["confirmed_by"] == "ledger"


@pytest.mark.parametrize(("wait_s", "queue"), [(1.0, 5), (5.0, 5), (29.6, 30), (900.0, 30)])
def test_a_delayed_request_waits_in_the_nearest_queue(wait_s: float, queue: int) -> None:
    asked = delivery()

    told = ANNOUNCER.postponed(asked, wait_s, replace(ENTRY, unsure_since=NOW))

    assert targets([told]) == [("", f"q.delay.{queue}s")]
    headers = told.outgoing.headers
    assert (headers["x-attempt"], headers["x-reason"]) == (2, "unsure")
    assert headers["x-unsure-since"] == "2026-09-21T14:13:20.000Z"
    assert told.outgoing.body == asked.body


@pytest.mark.parametrize(("replay", "redial"), [(2, True), (1, None)])
def test_that_a_redial_is_wanted_is_said_until_it_is_made(
    replay: int, *, redial: bool | None
) -> None:
    asked = delivery(replay=replay, redial=True)

    told = ANNOUNCER.postponed(asked, 5.0, ENTRY)

    assert told.outgoing.headers.get("x-redial") is redial


def test_a_dead_letter_comes_before_its_event_and_tells_what_went_wrong() -> None:
    asked = delivery()

    told = ANNOUNCER.announcements(replace(ENTRY, state="failed", reason="exhausted"), asked)

    assert targets(told) == [("", "q.dlq"), ("calls", "call.failed")]
    headers = told[0].outgoing.headers
    said = {name: headers[f"x-{name}"] for name in ("reason", "code", "replay")}
    assert said == {"reason": "exhausted", "code": "HTTP_503", "replay": 1}
    assert headers["x-failed-at"]
    assert told[0].outgoing.body == asked.body


def test_a_dead_letter_that_is_out_is_not_sent_again() -> None:
    failed = replace(ENTRY, state="failed", reason="exhausted", published=True)

    assert targets(ANNOUNCER.announcements(failed, delivery())) == [("calls", "call.failed")]


def test_a_call_in_the_making_has_nothing_to_tell() -> None:
    assert ANNOUNCER.announcements(replace(ENTRY, state="placing"), delivery()) == []


def test_an_invalid_request_is_kept_and_announced() -> None:
    asked = delivery(to_number="12")
    assert isinstance(asked.request, Invalid)

    told = ANNOUNCER.invalid(asked, asked.request)

    assert targets(told) == [("", "q.dlq"), ("calls", "call.failed")]
    assert (fields(told[1])["reason"], fields(told[1])["attempt"]) == ("invalid", 0)


@pytest.mark.parametrize("left", [True, False])
def test_what_is_left_to_the_broker_is_told_only(*, left: bool) -> None:
    error = Invalid("not_json", "the body is not JSON")
    headers = MessageHeaders(first_seen_at=datetime.now(UTC))
    unreadable = Unreadable(b"x", error, headers, ("d", 1, 0, None), left_to_broker=left)

    told = ANNOUNCER.invalid(unreadable, error)

    assert (("", "q.dlq") in targets(told)) != left
    assert fields(told[-1])["request_id"] is None

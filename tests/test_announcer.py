"""Which message belongs to which state."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
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
    import aio_pika

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


@dataclass
class FakePublisher:
    """Remembers what was to be published: exchange, routing key, message."""

    published: list[tuple[str, str, aio_pika.Message]] = field(default_factory=list)

    async def publish_until_confirmed(
        self, message: aio_pika.Message, exchange: str, routing_key: str
    ) -> None:
        self.published.append((exchange, routing_key, message))

    @property
    def targets(self) -> list[tuple[str, str]]:
        return [(exchange, key) for exchange, key, _ in self.published]

    def fields(self) -> dict[str, Any]:
        """Return the fields of the last event."""
        return dict(json.loads(self.published[-1][2].body))

    def headers(self) -> dict[str, Any]:
        return dict(self.published[0][2].headers)


@dataclass
class Desk:
    publisher: FakePublisher
    announcer: Announcer


@pytest.fixture
def desk() -> Desk:
    publisher: Any = FakePublisher()
    return Desk(publisher, Announcer(publisher, build_topology("calls", "q", (5, 30))))


async def test_a_started_call_is_an_event(desk: Desk) -> None:
    await desk.announcer.started(ENTRY, delivery(metadata={"order": "7"}))

    assert desk.publisher.targets == [("calls", "call.started")]
    event = desk.publisher.fields()
    assert (event["call_id"], event["attempt"], event["replay"]) == ("c1", 2, 1)
    assert (event["to_number"], event["confirmed_by"]) == (NUMBER, "history")
    assert event["metadata"] == {"order": "7"}


async def test_an_event_repeated_is_the_same_event(desk: Desk) -> None:
    await desk.announcer.started(ENTRY, delivery())
    first = desk.publisher.fields()
    await desk.announcer.started(ENTRY, delivery())

    assert desk.publisher.fields() == first
    message_ids = {message.message_id for _, _, message in desk.publisher.published}
    assert len(message_ids) == 2


@pytest.mark.parametrize(("wait_s", "queue"), [(1.0, 5), (5.0, 5), (29.6, 30), (900.0, 30)])
async def test_a_delayed_request_waits_in_the_nearest_queue(
    desk: Desk, wait_s: float, queue: int
) -> None:
    asked = delivery()

    await desk.announcer.postponed(asked, wait_s, replace(ENTRY, unsure_since=NOW))

    assert desk.publisher.targets == [("", f"q.delay.{queue}s")]
    headers = desk.publisher.headers()
    assert (headers["x-attempt"], headers["x-reason"]) == (2, "unsure")
    assert headers["x-unsure-since"] == "2026-09-21T14:13:20.000Z"
    assert desk.publisher.published[0][2].body == asked.body


@pytest.mark.parametrize(("replay", "kept"), [(1, False), (2, True)], ids=["made", "to be made"])
async def test_a_redial_that_was_made_asks_for_no_other(
    desk: Desk, replay: int, *, kept: bool
) -> None:
    await desk.announcer.postponed(delivery(replay=replay, redial=True), 30.0, ENTRY)

    assert ("x-redial" in desk.publisher.headers()) is kept


async def test_a_dead_letter_tells_what_went_wrong(desk: Desk) -> None:
    asked = delivery()

    await desk.announcer.dead_letter(replace(ENTRY, reason="exhausted"), asked)

    assert desk.publisher.targets == [("", "q.dlq")]
    told = {name: desk.publisher.headers()[f"x-{name}"] for name in ("reason", "code", "replay")}
    assert told == {"reason": "exhausted", "code": "HTTP_503", "replay": 1}
    assert desk.publisher.headers()["x-failed-at"]
    assert desk.publisher.published[0][2].body == asked.body


async def test_an_invalid_request_is_kept_and_announced(desk: Desk) -> None:
    asked = delivery(to_number="12")
    assert isinstance(asked.request, Invalid)

    await desk.announcer.invalid(asked, asked.request)

    assert desk.publisher.targets == [("", "q.dlq"), ("calls", "call.failed")]
    assert (desk.publisher.fields()["reason"], desk.publisher.fields()["attempt"]) == ("invalid", 0)


@pytest.mark.parametrize(("parsed", "kept"), [(True, True), (False, False)])
async def test_what_cannot_be_read_is_left_to_the_broker(
    desk: Desk, *, parsed: bool, kept: bool
) -> None:
    error = Invalid("not_json", "the body is not JSON")
    headers = MessageHeaders(first_seen_at=datetime.now(UTC))
    unreadable = Unreadable(b"x", error, headers, ("d", 1, 0, None), parsed=parsed)

    await desk.announcer.invalid(unreadable, error)

    assert (("", "q.dlq") in desk.publisher.targets) == kept
    assert desk.publisher.fields()["request_id"] is None

"""Names and arguments of exchange and queues, and where to wait."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.rabbitmq.topology import Queue, Topology, build_topology

DELAYS_S = (5, 30, 300, 1800, 3600)
BUILT = build_topology("calls", "call.requested", DELAYS_S)


def test_requests_are_handed_to_one_worker_and_never_dropped() -> None:
    assert BUILT.requests == Queue(
        "call.requested",
        {
            "x-queue-type": "quorum",
            "x-single-active-consumer": True,
            "x-consumer-timeout": 3_600_000,
            "x-delivery-limit": 1000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "call.requested.dlq",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )


def test_there_is_a_queue_for_each_delay_and_it_leads_back() -> None:
    assert list(BUILT.delays) == list(DELAYS_S)
    assert BUILT.delays[1800] == Queue(
        "call.requested.delay.1800s",
        {
            "x-queue-type": "quorum",
            "x-message-ttl": 1_800_000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "call.requested",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )


def test_dead_letters_may_be_looked_at_as_often_as_anyone_likes() -> None:
    assert BUILT.dead_letters == Queue(
        "call.requested.dlq",
        {
            "x-queue-type": "quorum",
            "x-delivery-limit": 2_000_000_000,
            "x-consumer-timeout": 3_600_000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "call.requested.dlq.evicted",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )


def test_what_a_policy_evicts_lies_in_a_queue_without_a_delivery_limit() -> None:
    assert BUILT.evicted == Queue(
        "call.requested.dlq.evicted", {"x-queue-type": "classic", "x-overflow": "reject-publish"}
    )
    assert BUILT.evicted.name not in BUILT.names
    assert BUILT.evicted in BUILT.queues


def test_every_name_derives_from_the_queues() -> None:
    built = build_topology("phone", "reminders", [7])

    assert built.exchange == "phone"
    assert built.requests.name == "reminders"
    assert built.requests.arguments["x-dead-letter-routing-key"] == "reminders.dlq"
    assert built.delays[7].name == "reminders.delay.7s"
    assert built.delays[7].arguments["x-dead-letter-routing-key"] == "reminders"
    assert built.dead_letters.name == "reminders.dlq"
    assert sorted(built.names) == [
        "reminders",
        "reminders.cancel",
        "reminders.delay.7s",
        "reminders.dlq",
    ]


WAITS: dict[str, tuple[float, int]] = {
    "in the past": (-60.0, 5),
    "now": (0.0, 5),
    "less than the shortest": (4.9, 5),
    "the shortest": (5.0, 5),
    "a little short of the next": (29.9, 5),
    "the next": (30.0, 30),
    "between": (299.0, 30),
    "the longest": (3600.0, 3600),
    "a week": (604_800.0, 3600),
    "for ever": (float("inf"), 3600),
}


@pytest.mark.parametrize(("wait_s", "delay_s"), WAITS.values(), ids=WAITS)
def test_the_longest_delay_within_a_wait_is_taken_else_the_shortest(
    wait_s: float, delay_s: int
) -> None:
    assert BUILT.delay_for(wait_s) == BUILT.delays[delay_s]


@given(st.floats(0, 2000), st.sets(st.integers(1, 4000), min_size=1))
@settings(max_examples=50, deadline=None)
def test_waiting_ends_at_most_the_shortest_delay_late(wait_s: float, delays: set[int]) -> None:
    built = build_topology("calls", "q", sorted(delays))

    waited = 0
    while waited < wait_s:
        waited += delay_of(built, wait_s - waited)

    assert waited <= wait_s + min(delays)


def delay_of(built: Topology, wait_s: float) -> int:
    queue = built.delay_for(wait_s)
    (delay_s,) = [delay for delay, its in built.delays.items() if its == queue]
    return delay_s

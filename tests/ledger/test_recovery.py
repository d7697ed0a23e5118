"""While the ledger cannot be written, nobody takes messages and one asks for all."""

import asyncio
from typing import Any

import pytest

from consumer.ledger import LedgerDown
from consumer.ledger.recovery import Recovery
from tests.fakes import FakeSubscription


class FakeLedger:
    """Can be written after some tries."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.tries = 0

    async def check_writable(self) -> None:
        self.tries += 1
        if self.tries <= self.failures:
            raise LedgerDown("busy")


async def test_all_wait_and_one_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.ledger.recovery.RETRY_S", 0.0)
    ledger: Any = FakeLedger(failures=3)
    subscription = FakeSubscription()
    recovery = Recovery(ledger, subscription)

    waiting = [asyncio.create_task(recovery.wait(LedgerDown("busy"))) for _ in range(5)]
    await asyncio.sleep(0)
    assert subscription.paused_by == {"ledger"}
    await asyncio.gather(*waiting)

    assert subscription.paused_by == set()
    assert ledger.tries == 4


async def test_the_intake_is_released_though_nobody_waits_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumer.ledger.recovery.RETRY_S", 0.0)
    ledger: Any = FakeLedger(failures=3)
    subscription = FakeSubscription()
    recovery = Recovery(ledger, subscription)

    waiting = asyncio.create_task(recovery.wait(LedgerDown("busy")))
    await asyncio.sleep(0)
    waiting.cancel()
    for _ in range(20):
        await asyncio.sleep(0)

    assert subscription.paused_by == set()

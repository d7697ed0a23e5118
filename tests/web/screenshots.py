"""Make the pictures of the pages that README.md shows: `python -m tests.web.screenshots`."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from playwright.async_api import FloatRect, async_playwright
from yarl import URL

import consumer.web
from consumer.demo import environment
from consumer.operations.upstream import publish_requests
from consumer.rabbitmq.queue_counts import count_queues
from tests.web.conftest import CHROMIUM, FLAGS

if TYPE_CHECKING:
    from consumer.demo.environment import DemoEnvironment

FOLDER = Path(consumer.web.__file__).parent / "screenshots"
STARTED, DAY_S = 340, 86_400
FAULTS: tuple[tuple[int, dict[str, object]], ...] = (
    (120, {"from_line": "reg404", "metadata": {"campaign": "42"}}),
    (7, {"to_number": "+12025550123"}),
    (3, {"expires_at": "2026-01-01T00:00:00Z"}),
)
LATER = 24
TOP: FloatRect = {"x": 0, "y": 0, "width": 1120, "height": 620}


def bodies() -> list[bytes]:
    """Return a day's requests, most of which go well."""
    asked: list[dict[str, object]] = [{} for _ in range(STARTED)]
    asked += [fields for count, fields in FAULTS for _ in range(count)]
    asked += [{"not_before": "2999-01-01T09:00:00Z"}] * LATER
    return [
        json.dumps(
            {
                "request_id": f"order-{4000 + n}",
                "to_number": f"+1202555{1000 + n}",
                "text_to_pronounce": "Your appointment is at nine.",
                **fields,
            }
        ).encode()
        for n, fields in enumerate(asked)
    ]


async def ask(stage: DemoEnvironment) -> None:
    """Publish them, and wait until all have failed that should."""
    async with httpx.AsyncClient(trust_env=False) as http:
        await http.patch(stage.sandbox("/sandbox"), json={"rate_per_s": 0, "call_duration_s": 0})
    await publish_requests(stage.broker, stage.topology.exchange, bodies())
    dead, waiting = stage.topology.dead_letters.name, stage.topology.requests.name
    while True:
        counts = await count_queues(stage.broker, [dead, waiting])
        failed = sum(count for count, _ in FAULTS)
        if (counts[dead].messages, counts[waiting].messages) == (failed, 0):
            break
        await asyncio.sleep(0.5)


def spread(stage: DemoEnvironment) -> None:
    """Let what has ended have ended in the course of a day, more of it by day."""
    ledger = sqlite3.connect(stage.settings["CALLS_LEDGER_URL"].removeprefix("sqlite:///"))
    chance = random.Random(42)  # noqa: S311  # the same picture each time
    ended = ledger.execute("SELECT request_id FROM calls WHERE state IN ('started', 'failed')")
    for (request_id,) in ended.fetchall():
        at = time.time() - chance.triangular(0, DAY_S, DAY_S / 3)
        ledger.execute("UPDATE calls SET changed_at = ? WHERE request_id = ?", (at, request_id))
    ledger.commit()
    ledger.close()


async def shoot(pages: str, broker: str) -> None:
    """Sign in, and make the pictures."""
    user = URL(broker)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page(viewport={"width": 1120, "height": 800})
        await page.goto(pages)
        await page.fill("[name=user]", user.user or "")
        await page.fill("[name=password]", user.password or "")
        await page.click("button.main")
        await page.wait_for_selector(".figures")
        await page.screenshot(path=FOLDER / "now.png", clip=TOP)
        await page.click("nav >> text=Dead letters")
        await page.wait_for_selector(".group")
        await page.screenshot(path=FOLDER / "dead-letters.png", clip=TOP)
        await browser.close()


def main() -> None:
    """Make them."""
    environment.QUICK |= {"CALLS_RATE_PER_S": "0", "CALLS_PAUSE_AFTER": "1000"}
    with ExitStack() as stack:
        stage = environment.set_up(stack)
        asyncio.run(ask(stage))
        spread(stage)
        log = stage.log.with_name("web.log")
        web = environment._start(stack, ["web", "--port", "0"], stage.settings, log)  # noqa: SLF001
        pages = environment._wait_for(r"http://\S+/(?=\n)", web, log)  # noqa: SLF001
        asyncio.run(shoot(pages, stage.broker))


if __name__ == "__main__":
    main()

"""The pages in a real browser: what an operator does there, and that anybody can read them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.async_playwright import Axe
from structlog.testing import capture_logs

from consumer.operations import carry_out, dead_letters
from consumer.rabbitmq import browser as queue_browser
from tests.web.conftest import served

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

    from consumer.sandbox import SandboxPortal
    from tests.web.conftest import Pages
    from tests.workbench import Bench

pytestmark = [
    pytest.mark.xdist_group("browser"),
]

MISSING_LINE = "reg404"
EVIL = "<script>alert('ran')</script><img src=x onerror=\"alert('ran')\">"


async def failed(bench: Bench, count: int, **fields: object) -> list[str]:
    """Publish requests, and wait until each has failed."""
    fields = {"from_line": MISSING_LINE, **fields}
    ids = [await bench.ask(f"+1202555{1000 + n}", **fields) for n in range(count)]
    for id_ in ids:
        assert (await bench.event(id_)).message.type == "call.failed"
    return ids


async def to(page: Page, name: str) -> None:
    await follow(page, f"nav >> text={name}")


async def follow(page: Page, link: str) -> None:
    """Click, and wait until the next page is there."""
    async with page.expect_navigation():
        await page.click(link)


async def test_a_fault_is_fixed_replayed_and_proved(
    bench: Bench, pages: Pages, portal: SandboxPortal
) -> None:
    async with bench.running():
        await failed(bench, 12)
        page = await pages.open()
        await to(page, "Dead letters")
        await page.click("text=Replay… >> nth=0")
        await page.fill("[name=set-from_line]", "reg151083")
        await page.click("text=See the plan…")
        plan = await page.inner_text("main")
        await page.click("text=Replay 12 dead letters >> nth=-1")
        await page.wait_for_selector(".proof:has-text('12 started, 0 failed, 0 waiting')")

    assert "12 refused ERROR_CORE" in plan
    assert "from_line becomes reg151083" in plan
    assert "each dialled once" in await page.inner_text(".proof")
    assert len(portal.calls) == 12


async def test_it_works_without_javascript(bench: Bench, pages: Pages) -> None:
    async with bench.running():
        await failed(bench, 2)
        page = await pages.open(java_script_enabled=False)
        await to(page, "Dead letters")
        await page.click("text=Replay… >> nth=0")
        await page.fill("[name=set-from_line]", "reg151083")
        await page.click("text=See the plan…")
        await page.click("text=Replay 2 dead letters >> nth=-1")
        while "2 started" not in await page.inner_text("main"):
            await page.click("text=Refresh")


async def test_letters_are_discarded_with_a_reason(bench: Bench, pages: Pages) -> None:
    async with bench.running():
        ids = await failed(bench, 3)
    page = await pages.open()
    await to(page, "Dead letters")
    await page.click("text=Show letters >> nth=0")
    await page.check("tbody input >> nth=0")
    await page.click("text=Discard ticked…")
    await page.fill("main [name=reason]", "a trial")
    await page.click("button.danger")
    with capture_logs() as logged:
        await page.click("text=Discard 1 dead letter for good")
        await page.wait_for_selector(".state.done")
    await to(page, "Dead letters")

    assert await page.inner_text(".count") == "2"
    (act,) = [line for line in logged if line["event"] == "dead_letter.discarded"]
    assert act["request_id"] in ids
    assert (act["who"], act["why"]) == ("ann (web)", "a trial")
    await page.fill("[role=search] [name=id]", act["request_id"])
    await page.click("text=Find")
    assert "discarded by ann (web): a trial" in await page.inner_text(".line")


async def test_two_operators_at_once_dial_each_request_once(
    bench: Bench, pages: Pages, portal: SandboxPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carry_out, "PATIENCE_S", 1.0)
    monkeypatch.setattr(queue_browser, "SILENCE_S", 0.5)
    monkeypatch.setattr(dead_letters, "MISSED_S", 0.1)
    async with bench.running():
        await failed(bench, 6)
        both = [await pages.open("ann"), await pages.open("bob")]
        for page in both:
            await to(page, "Dead letters")
            await page.click("text=Replay… >> nth=0")
            await page.fill("[name=set-from_line]", "reg151083")
            await page.click("text=See the plan…")
        for page in both:
            await page.click("text=Replay 6 dead letters >> nth=-1")
        for page in both:
            await page.wait_for_selector(".state:is(.done, .failed)")
            await page.wait_for_selector(".proof:has-text('6 started')")

    assert len(portal.calls) == 6


async def test_a_replay_is_stopped_half_way(bench: Bench, pages: Pages) -> None:
    async with bench.running():
        await failed(bench, 20)
        page = await pages.open()
        await to(page, "Dead letters")
        await page.click("text=Replay… >> nth=0")
        await page.fill("[name=rate]", "0.5")
        await page.click("text=See the plan…")
        await page.click("text=Replay 20 dead letters >> nth=-1")
        await page.wait_for_selector("progress:not([value='0'])")
        stranger = await pages.open("eve")
        await stranger.click(".note a")
        await stranger.click("text=Stop here")
        assert "refused for user 'eve'" in await stranger.inner_text("[role=alert]")
        await page.click("text=Stop here")
        await page.wait_for_selector(".state.stopped")

    assert "the others are still dead letters" in await page.inner_text(".state")


async def test_a_session_that_is_not_used_ends_by_itself(bench: Bench, browser: Browser) -> None:
    async with served(bench, idle_s=1.0) as pages:
        pages.browser = browser
        page = await pages.open()
        await page.wait_for_url("**/sign-in")
        await page.goto(f"{pages.url}dead-letters")

        assert await page.title() == "Sign in · call-consumer"
        for context in pages.contexts:
            await context.close()


async def test_what_a_message_holds_is_shown_and_never_runs(bench: Bench, pages: Pages) -> None:
    evil = {"to_number": EVIL, "text_to_pronounce": EVIL, "metadata": {EVIL: EVIL}}
    async with bench.running():
        await bench.publish(EVIL.encode(), message_id=EVIL)
        await bench.publish({"request_id": EVIL, **evil})
        await failed(bench, 1, metadata={EVIL: EVIL}, text_to_pronounce=EVIL)
        await bench.until(lambda: len(bench.heard) == 3)
    page = await pages.open()
    await to(page, "Dead letters")
    await page.click("summary")
    await page.check("[name=all]")
    await page.click("details >> text=Show letters")
    await page.wait_for_selector("tbody tr >> nth=2")
    letters = page.url
    for n in range(3):
        await page.goto(f"{letters}/{n}")
        await follow(page, "text=Reveal number and text")
        assert await page.locator("script").count() == 1
        assert await page.locator("main img").count() == 0


async def test_whoever_may_only_look_changes_nothing(
    bench: Bench, pages: Pages, portal: SandboxPortal
) -> None:
    async with bench.running():
        (id_,) = await failed(bench, 1)
        page = await pages.open("eve")
        await to(page, "Dead letters")
        await page.click("text=Replay… >> nth=0")
        await page.click("text=See the plan…")
        said = [await page.inner_text("[role=alert]")]
        await to(page, "Now")
        await page.fill("main [name=reason]", "why not")
        await page.click("text=Pause…")
        said.append(await page.inner_text("[role=alert]"))
        await to(page, "Blocks")
        await page.fill("[name=value]", "campaign=42")
        await page.fill("main [name=reason]", "why not")
        await page.click("text=Block…")
        said.append(await page.inner_text("[role=alert]"))
        await to(page, "Waiting")
        await page.fill("[name=ids]", id_)
        await page.fill("main [name=reason]", "why not")
        await page.click("text=Take back…")
        said.append(await page.inner_text("[role=alert]"))

    assert all("refused for user 'eve'" in text for text in said)
    assert len(portal.calls) == 0


async def test_whoever_may_not_read_dead_letters_does_not_get_in(pages: Pages) -> None:
    page = await pages.open("sid")

    assert "may not read the dead letters" in await page.inner_text("[role=alert]")


async def test_calls_are_paused_blocked_and_let_go_on(bench: Bench, pages: Pages) -> None:
    async with bench.running():
        page = await pages.open()
        await page.wait_for_selector("h2:has-text('Workers')")
        await page.fill("main [name=reason]", "the wrong day")
        await page.click("text=Pause…")
        await page.click("text=Pause the calls of 1 worker")
        await to(page, "Now")
        await page.wait_for_selector(".state:has-text('Paused by ann (web): the wrong day')")
        await page.click("text=Resume…")
        await page.click("text=Resume the calls of 1 worker")
        await to(page, "Now")
        await page.wait_for_selector(".state:has-text('Calls are placed')")
        await to(page, "Blocks")
        await page.select_option("[name=kind]", "number")
        await page.fill("[name=value]", "+12025551001")
        await page.fill("main [name=reason]", "+12025551001 asked us to")
        await page.click("text=Block…")
        with capture_logs() as logged:
            await page.click("text=Add 1 block")
        await to(page, "Blocks")
        row = await page.inner_text("tbody")
        await page.click("text=Remove…")
        await page.click("text=Remove 1 block")
        await to(page, "Blocks")

        assert "a number" in row
        assert "ann (web)" in row
        assert "5551001" not in f"{row} {logged}"
        assert "block.added" in str(logged)
        assert "There are none" in await page.inner_text("main")


async def test_what_waits_is_taken_back(bench: Bench, pages: Pages) -> None:
    async with bench.running():
        later = await bench.ask(not_before="2999-01-01T00:00:00Z")
        page = await pages.open()
        while not await page.locator("tbody input").count():
            await to(page, "Waiting")
        await page.check("tbody input")
        await page.fill("form:has(table) [name=reason]", "not needed")
        await page.click("text=Take back ticked…")
        await page.click("text=Take back 1 request >> nth=-1")

        assert (await bench.event(later))["reason"] == "cancelled"


async def every_page(pages: Pages, page: Page) -> list[str]:
    """Return the addresses of all pages, as they are while there is something on each."""
    addresses = ["", "waiting", "blocks", "dead-letters", "nothing"]
    await to(page, "Dead letters")
    for button in ("Show letters", "Replay…", "Discard…"):
        await page.goto(f"{pages.url}dead-letters")
        await page.click(f"text={button} >> nth=0")
        addresses.append(page.url.removeprefix(pages.url))
    await page.fill("main [name=reason]", "a trial")
    await page.click("button.danger")
    addresses += [page.url.removeprefix(pages.url), f"{addresses[5]}/0"]
    await page.goto(f"{pages.url}replay/{addresses[6].split('/')[1]}")
    await page.click("text=See the plan…")
    await page.click("button.main")
    await page.wait_for_selector(".proof")
    return [*addresses, page.url.removeprefix(pages.url)]


async def test_everybody_can_use_every_page_in_light_and_dark(bench: Bench, pages: Pages) -> None:
    axe, found, widths = Axe(), [], {}
    async with bench.running():
        await failed(bench, 2)
        await bench.ask(not_before="2999-01-01T00:00:00Z")
        signing_in = await pages.stranger()
        page = await pages.open()
        addresses = await every_page(pages, page)
        page = await page.context.new_page()  # where no job changes meanwhile
        for each, address in [(signing_in, "sign-in"), *((page, address) for address in addresses)]:
            await each.goto(f"{pages.url}{address}")
            await each.emulate_media(color_scheme="light")
            found.append((address, await axe.run(each)))
            await each.emulate_media(color_scheme="dark")  # in which nothing but colours differs
            found.append((address, await axe.run(each, options={"runOnly": ["cat.color"]})))
            await each.set_viewport_size({"width": 390, "height": 800})
            widths[address] = await each.evaluate("document.documentElement.scrollWidth")
            await each.set_viewport_size({"width": 1280, "height": 800})

    assert [
        (*where, each.generate_report()) for *where, each in found if each.violations_count
    ] == []
    assert [address for address, width in widths.items() if width > 390] == []
    assert not re.search(r"\d{7}", "".join(addresses))

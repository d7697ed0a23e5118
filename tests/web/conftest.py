"""A browser, the pages, and a broker whose users may do different things."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from playwright.async_api import async_playwright

from consumer.demo.private_node import PrivateNode
from consumer.demo.ways import find_server
from consumer.web.app import Server, build_app
from consumer.web.guard import Place
from consumer.web.sessions import Sessions
from consumer.web.visit import Desk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from playwright.async_api import Browser, BrowserContext, Page

    from tests.workbench import Bench

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
NOT_HERE = "chromium is not installed: apt-get install chromium"
LETTERS = r"^test-.*\.dlq(\.evicted)?$"
RIGHTS = {
    "ann": (r"^(amq\.default|test-.*)$", LETTERS),
    "bob": (r"^(amq\.default|test-.*)$", LETTERS),
    "eve": ("^$", LETTERS),
    "sid": (r"^(amq\.default|test-.*)$", "^$"),
}
"""What each user may write and read. A password is the name, turned round."""
LIMIT_MS = 10_000


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateNode]:
    """Lend a broker that knows these users."""
    if find_server() is None:
        pytest.skip("rabbitmq-server is not installed, so no broker could be given these users")
    users = [{"name": name, "password": name[::-1], "tags": ""} for name in RIGHTS]
    rights = [
        {"user": name, "vhost": "/", "configure": "^$", "write": write, "read": read}
        for name, (write, read) in RIGHTS.items()
    ]
    file = tmp_path_factory.mktemp("broker") / "users.json"
    file.write_text(json.dumps({"users": users, "permissions": rights}))
    with PrivateNode() as node:
        node.ctl("import_definitions", str(file))
        yield node


@pytest.fixture(scope="session")
def rabbitmq_url(node: PrivateNode) -> str:
    """Let the bench be on that broker."""
    return node.url


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Lend one browser to all tests; where there is none they are skipped, but fail in CI."""
    if CHROMIUM is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(NOT_HERE)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@dataclass
class Pages:
    """The pages, served, and who looks at them."""

    url: str
    desk: Desk
    browser: Browser | None = None
    contexts: list[BrowserContext] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    async def open(self, user: str = "ann", **options: Any) -> Page:  # noqa: ANN401
        """Sign in with a browser of one's own."""
        page = await self.stranger(**options)
        await page.fill("[name=user]", user)
        await page.fill("[name=password]", user[::-1])
        await page.click("button.main")
        return page

    async def stranger(self, **options: Any) -> Page:  # noqa: ANN401
        """Come without having signed in; whatever the browser complains of is `wrong`."""
        assert self.browser is not None
        context = await self.browser.new_context(**options)
        context.set_default_timeout(LIMIT_MS)
        self.contexts.append(context)
        page = await context.new_page()
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", lambda dialog: self.wrong.append(dialog.message))
        page.on("console", lambda said: self._note(said.type, said.text))
        await page.goto(self.url)
        return page

    def _note(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and "status of 4" not in text:
            self.wrong.append(text)


@asynccontextmanager
async def served(bench: Bench, *, idle_s: float = 900, **place: bool) -> AsyncIterator[Pages]:
    """Serve the pages in this loop."""
    desk = Desk(bench.settings(), Place(**place), Sessions(idle_s))
    config = uvicorn.Config(
        build_app(desk), port=0, log_config=None, server_header=False, timeout_graceful_shutdown=5
    )
    socket = config.bind_socket()
    server = Server(config, desk)
    task = asyncio.create_task(server.serve(sockets=[socket]))
    while not server.started:  # noqa: ASYNC110  # it tells nobody
        await asyncio.sleep(0.01)
    try:
        yield Pages(f"http://127.0.0.1:{socket.getsockname()[1]}/", desk)
    finally:
        server.should_exit = True
        await task
        socket.close()


@pytest.fixture
async def pages(bench: Bench, browser: Browser) -> AsyncIterator[Pages]:
    """Lend the pages and browsers; nothing went wrong in any."""
    async with served(bench) as pages:
        pages.browser = browser
        yield pages
        for context in pages.contexts:
            await context.close()
    assert pages.wrong == []

"""A browser, and pages of a server of the test's own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.support.browser import browsing
from tests.support.page_server import PageServer

Visit = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with browsing() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def server() -> AsyncIterator[PageServer]:
    server = PageServer()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser, server: PageServer) -> AsyncIterator[Visit]:
    """Opens the page, `visit(width=360, color_scheme="dark")`. Afterwards: no script failed, and nothing but the server was asked."""
    asked: list[str] = []
    wrong: list[str] = []

    async def open_page(*, width: int = 1280, height: int = 800, path: str = "/", **options: Any) -> Page:
        context = await browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(60_000)
        page = await context.new_page()
        context.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url.replace("ws", "http", 1)))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if _is_wrong(message.text) else None)
        await page.goto(f"{server.url}{path}")
        return page

    yield open_page
    for context in browser.contexts:
        await context.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith((f"{server.url}/", "blob:", "data:"))] == []


def _is_wrong(text: str) -> bool:
    """What the browser says of failed requests is part of what is tested; a broken policy is not."""
    return "Content Security Policy" in text or "Trusted" in text

"""The page before a whole system: gateway, store and worker as processes over a real Kafka, the detector that ships, a real Chromium.

`pytest tests/e2e/test_page.py --pictures` writes the README's picture of the page anew.
"""

import asyncio
import signal
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from schemas.connection import KafkaConnection
from schemas.topics import Topics
from tests.support.browser import browsing, give
from tests.support.data import ROOT
from tests.support.kafka import read_topic
from tests.support.system import System, system

pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.model, pytest.mark.timeout(400)]

PICTURE = ROOT / "docs" / "pictures" / "page.png"
SHOWN = ("can.jpg", "maze.jpg", "cat.jpg", "coffee.jpg", "road.jpg", "ticket.jpg", "shelf.jpg", "signs.jpg")
PATIENT_MS = 120_000


async def test_pictures_get_their_boxes_and_the_page_recovers_when_the_gateway_is_killed(
    connection: KafkaConnection, topics: Topics, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    with system(connection, topics, tmp_path, {"MODEL_PATH": "codes"}) as running:
        await asyncio.to_thread(running.start)
        async with browsing() as browser:
            page = await browser.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(PATIENT_MS)
            await page.goto(running.url)
            await shows(page, "#link-words", "Live")
            await give(page, *SHOWN)
            await shows(page, "#list-figures", f"{len(SHOWN)} of {len(SHOWN)} done")
            await look(page, PICTURE if pytestconfig.getoption("pictures") else None)
            await recover(page, running, connection, topics)
            await everything_is_there_after_a_reload(page)


async def look(page: Page, picture: Path | None) -> None:
    """What was found is drawn, listed and timed; a picture of it all, where it is wanted."""
    await page.locator("#list .card", has_text="signs.jpg").click()
    assert await page.locator(".findings button").count() >= 3
    await expect(page.locator(".steps dt")).to_have_count(7)
    await expect(page.locator("#feed button")).to_have_count(len(SHOWN))
    await expect(page.locator("#stage-words")).to_be_hidden()
    if picture is not None:
        await page.mouse.move(0, 0)
        await page.screenshot(path=picture)


async def recover(page: Page, running: System, connection: KafkaConnection, topics: Topics) -> None:
    """The gateway dies while pictures are under way; their results are written while it is away, and others wait in the page."""
    assert running.worker.process is not None
    running.worker.process.send_signal(signal.SIGSTOP)
    await give(page, "fog.jpg", "price-label.jpg")
    words = page.locator("#list .words")
    for place in (0, 1):
        await expect(words.nth(place)).to_have_text("Queued", timeout=PATIENT_MS)
    await asyncio.to_thread(running.gateway.kill)
    await expect(page.locator("#link-state")).to_have_attribute("data-state", "away", timeout=PATIENT_MS)
    await give(page, "page.jpg")
    running.worker.process.send_signal(signal.SIGCONT)
    wanted = len(SHOWN) + 2
    await asyncio.to_thread(read_topic, connection, topics.detections, wanted, PATIENT_MS / 1000)
    running.gateway.start()
    await asyncio.to_thread(running.await_ready)
    await shows(page, "#list-figures", f"{wanted + 1} of {wanted + 1} done")
    await shows(page, "#link-words", "Live")
    assert await page.locator("#list [data-state=completed]").count() == wanted + 1


async def everything_is_there_after_a_reload(page: Page) -> None:
    """From the result store, with pictures that the gateway drew."""
    await page.reload()
    await expect(page.locator("#list [data-state=completed]")).to_have_count(len(SHOWN) + 3, timeout=PATIENT_MS)
    await expect(page.locator("#facts .title")).to_have_text("page.jpg")
    await expect(page.locator("#stage-words")).to_be_hidden(timeout=PATIENT_MS)
    await page.get_by_role("link", name="Status").click()
    await shows(page, "#models td:first-child", "codes")
    await shows(page, "[data-name=online] .figure", "0")


async def shows(page: Page, what: str, words: str) -> None:
    """Wait until the page says so."""
    await expect(page.locator(what)).to_have_text(words, timeout=PATIENT_MS)

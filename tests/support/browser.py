"""A real browser: Chromium as the system has it, driven through Playwright, which downloads none."""

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.support.data import ROOT, may_skip

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PICTURES = ROOT / "infra" / "demo_pictures" / "images"

# A camera that shows a moving pattern, and nobody who has to allow it.
_ARGUMENTS = ("--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")

expect.set_options(timeout=30_000)  # only a broken page takes that long


def find_browser() -> str:
    """Where Chromium is. Without one the test is skipped, but fails in CI, where nobody would see that it was."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is not None:
        return found
    missing = f"no browser: none of {', '.join(NAMES)} is on the PATH (Debian: apt-get install chromium)"
    if may_skip():
        pytest.skip(missing)
    pytest.fail(missing)


@asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    """A browser while the block runs."""
    path = find_browser()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


async def give(page: Page, *files: str | Path) -> None:
    """Choose files, by name of the demo's pictures or by path, as the button does."""
    paths: Sequence[Path] = [file if isinstance(file, Path) else PICTURES / file for file in files]
    await page.set_input_files("#files", paths)


async def live(page: Page) -> None:
    """Wait until the page hears the stream."""
    await expect(page.locator("#link-words")).to_have_text("Live")

"""The page under all hands and eyes: by keyboard, for screen readers, narrow, dark, with a camera; and what its status view tells."""

import asyncio
from importlib.resources import files

import pytest
from playwright.async_api import Page, expect

from tests.infra.page.conftest import Visit
from tests.support.browser import PICTURES, give, live
from tests.support.page_server import PageServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
AXE_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}

# What has the focus: its id, or what it is part of.
FOCUSED = """() => {
  const at = document.activeElement;
  return at.id || at.closest("[id]")?.id + (at.matches("button") ? " button" : " link");
}"""


# Visible buttons that are too small to be hit.
SMALL = """() => [...document.querySelectorAll("button")]
  .filter((button) => button.checkVisibility() && button.getBoundingClientRect().height < 24)
  .map((button) => button.outerHTML)"""


async def violations(page: Page) -> list[str]:
    """What axe finds wrong with the page as it is now."""
    await page.evaluate(AXE)
    found = await page.evaluate("(rules) => axe.run(document, rules)", AXE_RULES)
    return [
        f"{wrong['id']}: {node['target']} {node['failureSummary']}"
        for wrong in found["violations"]
        for node in wrong["nodes"]
    ]


async def press_until(page: Page, wanted: str, key: str = "Tab") -> list[str]:
    """Press a key until something has the focus; everything that had it on the way."""
    passed: list[str] = []
    while not passed or passed[-1] != wanted:
        await page.keyboard.press(key)
        passed.append(await page.evaluate(FOCUSED))
        assert len(passed) < 40, passed
    return passed


async def test_everything_is_done_by_keyboard_alone(visit: Visit, server: PageServer) -> None:
    page = await visit()
    await live(page)
    chosen = [PICTURES / "can.jpg", PICTURES / "cat.jpg"]
    page.on("filechooser", lambda chooser: asyncio.ensure_future(chooser.set_files(chosen)))
    order = await press_until(page, "choose")
    assert order[1:] == ["to-images", "to-status", "open-settings", "choose"]
    await page.keyboard.press("Enter")
    await expect(page.locator("#list .words")).to_have_text(["1 box", "1 box"])

    assert await press_until(page, "list button") == ["open-camera", "list button"]
    await page.keyboard.press("Home")
    await expect(page.locator("#facts .title")).to_have_text("cat.jpg")
    await page.keyboard.press("ArrowDown")
    await expect(page.locator("#facts .title")).to_have_text("can.jpg")
    await expect(page.locator("#list [aria-current=true] .name")).to_have_text("can.jpg")

    assert await press_until(page, "score") == ["chips button", "score"]
    await page.keyboard.press("ArrowRight")
    await expect(page.locator("#score-words")).to_have_text("0.01")
    rest = ["save", "facts button", "feed-pause", "feed button"]
    assert await press_until(page, "feed button") == rest
    await page.keyboard.press("Shift+Tab")
    await page.keyboard.press("Space")
    await expect(page.locator("#feed-pause")).to_have_attribute("aria-pressed", "true")


async def test_dialogs_keep_and_give_back_the_focus(visit: Visit, server: PageServer) -> None:
    page = await visit()
    await page.locator("#open-settings").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("API key")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator("#settings")).to_be_hidden()
    await expect(page.locator("#open-settings")).to_be_focused()


async def test_the_skip_link_leads_to_the_picture(visit: Visit, server: PageServer) -> None:
    page = await visit()
    await page.keyboard.press("Tab")
    await expect(page.locator(".skip")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#stage")).to_be_focused()
    await expect(page.locator("#images")).to_be_visible()


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (360, "dark")])
async def test_axe_finds_nothing_wrong(visit: Visit, server: PageServer, width: int, scheme: str) -> None:
    server.key = "k"
    page = await visit(width=width, color_scheme=scheme)
    await expect(page.locator("#notice-words")).to_have_text("This server wants an API key.")
    assert await violations(page) == []
    await page.get_by_role("button", name="Enter key").click()
    assert await violations(page) == []
    await page.get_by_label("API key").fill(server.key)
    await page.keyboard.press("Enter")
    await live(page)
    await give(page, "can.jpg", "cat.jpg")
    await expect(page.locator("#list .words")).to_have_text(["1 box", "1 box"])
    server.held = True
    await give(page, "fog.jpg")
    await expect(page.locator("#list .words").first).to_have_text("Queued")
    await server.finish(list(server.images)[-1], failed="image_corrupt")
    await expect(page.locator("#facts .wrong")).to_be_visible()
    assert await violations(page) == []
    await page.get_by_role("link", name="Status").click()
    await expect(page.locator("#models td").first).to_have_text("codes")
    assert await violations(page) == []


async def test_screen_readers_are_told_what_happens_and_not_too_much(visit: Visit, server: PageServer) -> None:
    page = await visit()
    await live(page)
    await give(page, "can.jpg", "cat.jpg", "fog.jpg", "maze.jpg", "page.jpg")
    await expect(page.locator("#said")).to_contain_text("more.")
    await expect(page.get_by_role("status").filter(has_text="more.")).to_have_count(1)
    assert len(await page.locator("#said").inner_text()) < 160
    await expect(page.get_by_role("list", name="Detections").get_by_role("button")).to_have_count(1)
    await server.stop()
    await expect(page.get_by_role("alert")).to_contain_text("This page keeps trying")


async def test_nothing_hangs_over_and_everything_can_be_hit(visit: Visit, server: PageServer) -> None:
    page = await visit(has_touch=True)
    await live(page)
    await give(page, "can.jpg", "cat.jpg", "fog.jpg", "maze.jpg", "page.jpg")
    await expect(page.locator("#list .words")).to_have_text(["1 box"] * 5)
    for view in ("Images", "Status"):
        await page.get_by_role("link", name=view).click()
        for width in (360, 540, 800, 1100):
            await page.set_viewport_size({"width": width, "height": 640})
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            assert await page.evaluate(SMALL) == []


async def test_dark_and_light_follow_the_system_or_the_choice(visit: Visit, server: PageServer) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    dark, light = "rgb(17, 19, 21)", "rgb(244, 245, 245)"
    page = await visit(color_scheme="dark")
    assert await page.evaluate(ground) == dark
    await page.emulate_media(color_scheme="light")
    assert await page.evaluate(ground) == light
    await page.get_by_role("button", name="Settings").click()
    await page.get_by_label("Appearance").select_option("dark")
    await page.get_by_role("button", name="Save").click()
    assert await page.evaluate(ground) == dark
    await page.reload()
    assert await page.evaluate(ground) == dark


async def test_the_camera_takes_pictures_and_is_let_go(visit: Visit, server: PageServer) -> None:
    page = await visit()
    await live(page)
    await page.get_by_role("button", name="Camera").click()
    shoot = page.get_by_role("button", name="Take picture")
    await expect(shoot).to_be_enabled()
    await page.evaluate("window.track = document.getElementById('viewfinder').srcObject.getTracks()[0]")
    await shoot.click()
    await expect(page.locator("#camera-words")).to_have_text("Taken, and sent.")
    await expect(page.locator("#list .words")).to_have_text("1 box")
    await expect(page.locator("#list .name")).to_contain_text("camera")
    await page.keyboard.press("Escape")
    await expect(page.locator("#camera")).to_be_hidden()
    assert await page.evaluate("window.track.readyState") == "ended"


async def test_the_status_view_tells_figures_while_it_is_looked_at(visit: Visit, server: PageServer) -> None:
    page = await visit(path="/#status")
    tile = page.locator("[data-name=bulk] .figure")
    await expect(tile).to_have_text("1,204")
    await expect(page.locator("[data-name=p95] .figure")).to_contain_text("ms")
    await expect(page.locator("#models td")).to_contain_text(["codes", "1", "5e5e5e5e5e5e"])
    await expect(page.locator("#health")).to_contain_text("Ready")
    await expect(page.locator("#images")).to_be_hidden()
    await server.stop()
    await expect(page.locator("#status-age")).to_have_text("The server does not answer.")
    await server.start()
    await expect(page.locator("#status-age")).to_contain_text("As of")
    await page.get_by_role("link", name="Images").click()
    await live(page)
    asked = server.requests.count("GET /v1/status")
    await give(page, "can.jpg")
    await expect(page.locator("#list .words")).to_have_text("1 box")
    assert server.requests.count("GET /v1/status") <= asked + 1  # one may have been under way

"""Pictures in, boxes out, in a real browser; and what the page does when something is in the way."""

import base64
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from schemas.problems import ProblemError
from tests.infra.page.conftest import Visit
from tests.support.browser import PICTURES, give, live
from tests.support.page_server import PageServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

# The colour on the canvas where a box's left edge should be, after what was asked for has been drawn.
EDGE = """async ([box, width]) => {
  for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
  const canvas = document.getElementById("canvas");
  const scale = canvas.width / width;
  const at = canvas.getContext("2d").getImageData(Math.round(box[0] * scale), Math.round((box[1] + box[3]) / 2 * scale), 1, 1).data;
  return Array.from(at.slice(0, 3));
}"""
COLOURS = {0: [0x35, 0xC2, 0xFF], 1: [0xFF, 0xB5, 0x2E], 2: [0x79, 0xDD, 0x92]}


def found(label: str, class_id: int, score: float, x: float = 60.0) -> dict[str, Any]:
    return {"label": label, "class_id": class_id, "score": score, "box": [x, 80.0, x + 50.0, 160.0]}


def see(*detections: dict[str, Any]) -> Any:
    return lambda *_: list(detections)


async def has_box(page: Page, detection: dict[str, Any], width: int) -> bool:
    pixel = await page.evaluate(EDGE, [detection["box"], width])
    wanted = COLOURS[detection["class_id"]]
    return all(abs(a - b) < 12 for a, b in zip(pixel, wanted, strict=True))


async def widths(page: Page, name: str) -> int:
    """The width of a picture as the facts tell it."""
    await expect(page.locator("#facts .title")).to_have_text(name)
    size = await page.locator("#facts .summary span").nth(1).inner_text()
    return int(size.split(" ")[0])


async def test_a_picture_is_uploaded_and_its_boxes_are_drawn(visit: Visit, server: PageServer) -> None:
    qr = found("qr", 1, 0.91)
    server.finder = see(qr)
    page = await visit()
    await live(page)
    await give(page, "can.jpg")
    await expect(page.locator("#list .card")).to_have_count(1)
    await expect(page.locator("#list .words")).to_have_text("1 box")
    await expect(page.locator(".findings .label")).to_have_text("qr")
    await expect(page.locator("#canvas")).to_have_attribute("aria-label", "can.jpg. 1 box shown: 1 qr")
    await expect(page.locator("#feed button")).to_have_count(1)
    assert await has_box(page, qr, await widths(page, "can.jpg"))
    steps = page.locator(".steps dt")
    await expect(steps).to_have_text(
        ["Upload and log", "Wait", "Fetch", "Decode", "Inference", "Publish and push", "Total"]
    )
    await expect(page.locator("#said")).to_contain_text("can.jpg: 1 qr.")


async def test_boxes_come_by_the_stream_and_not_by_asking(visit: Visit, server: PageServer) -> None:
    server.held = True
    page = await visit()
    await live(page)
    await give(page, "can.jpg", "cat.jpg")
    await expect(page.locator("#list .words")).to_have_text(["Queued", "Queued"])
    first, second = server.images
    await server.finish(second)
    await expect(page.locator("#list .words")).to_have_text(["1 box", "Queued"])
    await server.finish(first, failed="image_corrupt")
    await expect(page.locator("#list .words")).to_have_text(["1 box", "This file cannot be read as a picture."])
    await expect(page.locator("#list-figures")).to_have_text("2 of 2 done")
    asked = [line for line in server.requests if line.startswith("GET /v1/images/")]
    assert asked == []


async def test_a_failure_is_explained(visit: Visit, server: PageServer) -> None:
    server.held = True
    page = await visit()
    await live(page)
    await give(page, "can.jpg")
    await expect(page.locator("#list .words")).to_have_text("Queued")
    await server.finish(next(iter(server.images)), failed="image_corrupt")
    await expect(page.locator("#facts .wrong")).to_contain_text("This file cannot be read as a picture.")
    await expect(page.locator("#facts .wrong small")).to_have_text(
        "the picture ends too early, image_corrupt, in decode"
    )
    await expect(page.locator("#feed .outcome")).to_have_text("This file cannot be read as a picture.")


async def test_classes_and_score_filter_what_is_shown(visit: Visit, server: PageServer) -> None:
    qr, tag = found("qr", 1, 0.9), found("apriltag", 0, 0.4, x=140.0)
    server.finder = see(qr, tag)
    page = await visit()
    await live(page)
    await give(page, "can.jpg")
    labels = page.locator(".findings .label")
    await expect(labels).to_have_text(["qr", "apriltag"])
    width = await widths(page, "can.jpg")
    assert await has_box(page, tag, width)

    await page.get_by_role("button", name="qr", exact=True).click()
    await expect(labels).to_have_text(["qr"])
    await expect(page.locator("#facts .help").last).to_have_text("1 box hidden by the filter.")
    await expect(page.locator("#list .words")).to_have_text("1 box")
    await expect(page.locator("#canvas")).to_have_attribute("aria-label", "can.jpg. 1 box shown: 1 qr")
    assert await has_box(page, qr, width)
    assert not await has_box(page, tag, width)

    await page.get_by_role("button", name="All classes").click()
    await expect(labels).to_have_count(2)
    await page.get_by_label("Score from").fill("50")
    await expect(page.locator("#score-words")).to_have_text("0.50")
    await expect(labels).to_have_text(["qr"])
    await page.get_by_label("Score from").fill("95")
    await expect(labels).to_have_count(0)


async def test_pictures_may_be_dropped_and_pasted(visit: Visit, server: PageServer) -> None:
    page = await visit()
    await live(page)
    data = base64.b64encode((PICTURES / "can.jpg").read_bytes()).decode()
    for number, kind in enumerate(("drop", "paste"), start=1):
        await page.evaluate(
            """([kind, data]) => {
              const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
              const transfer = new DataTransfer();
              transfer.items.add(new File([bytes], `${kind}.jpg`, { type: "image/jpeg" }));
              const event = kind === "drop"
                ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
                : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true });
              document.body.dispatchEvent(event);
            }""",
            [kind, data],
        )
        await expect(page.locator("#list .name").first).to_have_text(f"{kind}.jpg")
        await expect(page.locator("#list .words")).to_have_text(["1 box"] * number)


async def test_progress_is_what_has_been_sent(visit: Visit, server: PageServer, tmp_path: Path) -> None:
    server.held = True
    large = tmp_path / "large.jpg"
    large.write_bytes((PICTURES / "can.jpg").read_bytes() + bytes(3_000_000))
    page = await visit()
    await live(page)
    network = await page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 2_000_000}
    await network.send("Network.enable")
    await network.send("Network.emulateNetworkConditions", slow)
    await page.evaluate(
        """() => {
          window.seen = [];
          const watch = () => {
            const bar = document.querySelector("#list progress");
            if (bar && !bar.hidden) window.seen.push(bar.value);
            requestAnimationFrame(watch);
          };
          watch();
        }"""
    )
    await give(page, large)
    await expect(page.locator("#list .words")).to_have_text("Queued")
    seen = await page.evaluate("window.seen")
    assert seen == sorted(seen)
    assert [value for value in seen if 0 < value < 1]
    await expect(page.locator("#list progress")).to_be_hidden()


async def test_the_page_recovers_by_itself_after_the_server_restarts(visit: Visit, server: PageServer) -> None:
    server.held = True
    page = await visit()
    await live(page)
    await give(page, "can.jpg", "cat.jpg")
    await expect(page.locator("#list .words")).to_have_text(["Queued", "Queued"])
    await server.stop()
    await expect(page.locator("#link-state")).to_have_attribute("data-state", "away")
    await expect(page.locator("#notice-words")).to_contain_text("This page keeps trying")
    missed, later = server.images
    await server.finish(missed)  # nobody is told
    await give(page, "fog.jpg")
    await expect(page.locator("#list .words").first).to_have_text("The server does not answer.")
    await server.start()
    await live(page)
    await expect(page.locator("#notice")).to_be_hidden()
    await expect(page.locator("#list .words")).to_have_text(["Queued", "Queued", "1 box"])
    await expect(page.locator("#feed .note")).to_contain_text("Some events were missed")
    assert f"GET /v1/images/{missed}" in server.requests
    await server.finish(later)
    await expect(page.locator("#list .words")).to_have_text(["Queued", "1 box", "1 box"])
    assert len(server.images) == 3  # the one that waited was taken, once


async def test_a_connection_that_breaks_is_taken_up_where_it_was(visit: Visit, server: PageServer) -> None:
    server.held = True
    page = await visit()
    await live(page)
    await give(page, "can.jpg")
    await expect(page.locator("#list .words")).to_have_text("Queued")
    (image_id,) = server.images
    server.closed = True
    server.part()
    await expect(page.locator("#link-state")).to_have_attribute("data-state", "away")
    await server.finish(image_id)
    server.closed = False
    await live(page)
    await expect(page.locator("#list .words")).to_have_text("1 box")
    await expect(page.locator("#feed .note")).to_have_count(0)  # the same history went on: nothing was missed
    await expect(page.locator("#feed button")).to_have_count(1)


async def test_what_is_no_picture_is_refused_in_plain_words(visit: Visit, server: PageServer, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("not a picture")
    page = await visit()
    await live(page)
    await give(page, note)
    await expect(page.locator("#list .words")).to_have_text("This file is not a JPEG, PNG or WebP picture.")
    await expect(page.locator("#facts .wrong")).to_contain_text("not a JPEG, PNG or WebP image")
    await expect(page.locator("#said")).to_contain_text("note.txt: This file is not")
    await expect(page.locator("#canvas")).to_be_hidden()
    assert server.requests.count("POST /v1/images") == 1


async def test_a_file_that_cannot_be_read_is_not_taken_for_a_server_that_is_away(
    visit: Visit, server: PageServer, tmp_path: Path
) -> None:
    gone = tmp_path / "gone.jpg"
    gone.write_bytes((PICTURES / "can.jpg").read_bytes())
    server.key = "k"
    page = await visit()
    await give(page, gone)
    await expect(page.locator("#list .words")).to_have_text("This server wants an API key.")
    gone.write_bytes(b"another")
    await page.get_by_role("button", name="Enter key").click()
    await page.get_by_label("API key").fill(server.key)
    await page.keyboard.press("Enter")
    await expect(page.locator("#list .words")).to_have_text("This file cannot be read, or not any more.")
    assert server.images == {}


async def test_too_much_at_once_waits_and_goes_on(visit: Visit, server: PageServer) -> None:
    server.refusals = [ProblemError(429, "rate_limited", "over 5 requests a second", 1)]
    page = await visit()
    await live(page)
    await give(page, "can.jpg")
    await expect(page.locator("#list .words")).to_have_text("Too much at once.")
    await expect(page.locator("#list .words")).to_have_text("1 box")
    assert server.requests.count("POST /v1/images") == 2
    assert len(server.images) == 1


async def test_a_key_is_asked_for_and_stays_in_the_tab(visit: Visit, server: PageServer) -> None:
    server.key = "sst_live_1_secret"
    page = await visit()
    await expect(page.locator("#notice-words")).to_have_text("This server wants an API key.")
    await give(page, "can.jpg")
    await expect(page.locator("#list .words")).to_have_text("This server wants an API key.")
    await page.get_by_role("button", name="Enter key").click()
    await page.get_by_label("API key").fill("wrong")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("#link-words")).to_have_text("Key wanted")
    await page.get_by_role("button", name="Settings").click()
    await page.get_by_label("API key").fill(server.key)
    await page.keyboard.press("Enter")
    await live(page)
    await expect(page.locator("#notice")).to_be_hidden()
    await expect(page.locator("#list .words")).to_have_text("1 box")
    stored = await page.evaluate("[JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie]")
    assert "secret" in stored[0]
    assert "secret" not in stored[1] + stored[2]
    assert "secret" not in page.url


async def test_what_was_sent_before_is_there_after_a_reload(visit: Visit, server: PageServer) -> None:
    page = await visit()
    await live(page)
    await give(page, "can.jpg", "cat.jpg")
    await expect(page.locator("#list .words")).to_have_text(["1 box", "1 box"])
    await page.reload()
    await expect(page.locator("#list .name")).to_have_text(["cat.jpg", "can.jpg"])
    await expect(page.locator("#list .words")).to_have_text(["1 box", "1 box"])
    await expect(page.locator("#canvas")).to_have_attribute("aria-label", "cat.jpg. 1 box shown: 1 linear")
    await expect(page.locator("#stage-words")).to_be_hidden()  # its pixels came from the server


async def test_events_of_other_clients_can_be_opened(visit: Visit, server: PageServer) -> None:
    mine, other = await visit(), await visit()
    await live(mine)
    await live(other)
    await give(mine, "can.jpg")
    await other.locator("#feed button").click()
    await expect(other.locator("#facts .title")).to_have_text("can.jpg")
    await expect(other.locator("#stage-words")).to_be_hidden()
    await expect(other.locator("#canvas")).to_have_attribute("aria-label", "can.jpg. 1 box shown: 1 linear")

"""The HTML report: whole in itself, safe whatever names the log holds, the same for the same diff."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
from PIL import Image

from sinks.diff_html import page
from sinks.diff_html_images import shrink
from sinks.diff_report import Accuracy, DiffJob, DiffReport, make_report
from tests.support.diffs import CAR, CAT, DOG, found, side

EVIL = "<script>alert(1)</script>\"'&"


class _Reader(HTMLParser):
    """What is in a page. Complains of tags that are not closed."""

    VOID = frozenset({"meta", "input", "rect", "use", "image"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


def _report(label: str = "dog", image: str = "a", **fields: Any) -> DiffReport:
    dog = replace(DOG, label=label)
    one = side("yolov8n@1", [found(image, [dog, CAR], **fields), found("b", [CAR], **fields)])
    two = side("yolov8n@2", [found(image, [CAT], "2", **fields), found("b", [CAR], "2", **fields)])
    return make_report(one, two, DiffJob(score=lambda _: Accuracy(2, 0.5, 0.25)))


def _jpeg() -> bytes:
    return shrink(np.full((480, 640, 3), 99, np.uint8), 320)


def test_a_page_shows_both_sets_of_boxes_over_one_picture() -> None:
    read = _read(page(_report(), {("default", "a"): _jpeg()}))
    pictures = [attributes for tag, attributes in read.tags if tag == "image"]
    assert len(pictures) == 1, "the picture is there once"
    assert sum(tag == "use" for tag, _ in read.tags) == 2
    assert [attributes["class"] for tag, attributes in read.tags if tag == "g"] == [
        "box reclassified",
        "box lost",
        "box reclassified",
    ]
    assert "reclassified: dog 0.875 \N{RIGHTWARDS ARROW} cat 0.875, IoU 1.000" in read.text
    content = base64.b64decode(str(pictures[0]["href"]).removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(content)).size == (320, 240)


def test_a_page_loads_and_runs_nothing() -> None:
    read = _read(page(_report(), {("default", "a"): _jpeg()}))
    assert not {"script", "link", "iframe", "img"} & {tag for tag, _ in read.tags}
    for tag, attributes in read.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "src"):
            assert str(attributes.get(name) or "#").startswith(("#", "data:image/jpeg")), tag
    policy = next(attributes for tag, attributes in read.tags if "http-equiv" in attributes)
    assert str(policy["content"]).startswith("default-src 'none'")
    assert not re.search(r"url\(|@import", page(_report(), {}))


def test_names_are_text_whatever_they_are() -> None:
    html = page(_report(label=EVIL, image=EVIL, tenant=EVIL, uri=f"https://x/{EVIL}"), {(EVIL, EVIL): EVIL})
    assert "script" not in {tag for tag, _ in _read(html).tags}
    assert EVIL not in html


def test_a_picture_that_is_gone_leaves_its_boxes() -> None:
    html = page(_report(), {("default", "a"): "image_not_found"})
    read = _read(html)
    assert "No picture: image_not_found" in read.text
    assert sum(tag == "rect" for tag, _ in read.tags) == 3


def test_secrets_of_a_uri_are_not_shown() -> None:
    html = page(_report(uri="https://me:pass@host:1/a.jpg?X-Signature=s3cret#f"), {})
    assert "https://host:1/a.jpg" in html
    assert not re.search("pass|s3cret", html)


def test_the_same_diff_gives_the_same_page() -> None:
    assert page(_report(), {}) == page(_report(), {})


def test_boxes_that_are_no_numbers_do_not_break_a_page() -> None:
    broken = replace(DOG, x1=float("nan"), y2=float("inf"))
    report = make_report(
        side("yolov8n@1", [found("a", [broken])]), side("yolov8n@2", [found("a", [DOG], "2")]), DiffJob()
    )
    html = page(report, {})
    assert "nan" not in re.sub(r"<style>.*</style>", "", html, flags=re.DOTALL)
    assert "Infinity" not in html


def test_nothing_changed_is_said() -> None:
    one, two = side("yolov8n@1", [found("a", [DOG])]), side("yolov8n@2", [found("a", [DOG], "2")])
    assert "every object is as it was" in page(make_report(one, two, DiffJob()), {})

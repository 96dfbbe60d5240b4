"""Annotated pictures: boxes are where they belong, labels can be read, and nothing of the original comes along."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from schemas.records import Detection
from sinks.annotated import Drawing, Drawn, annotate, colour_of, ink_on

GREY = np.full((300, 400, 3), 128, np.uint8)


def box(
    label: str = "dog", class_id: int = 0, score: float = 0.9, corners: tuple[float, ...] = (100, 80, 200, 160)
) -> Detection:
    x1, y1, x2, y2 = corners
    return Detection(label=label, class_id=class_id, score=score, x1=x1, y1=y1, x2=x2, y2=y2)


def drawn(*boxes: Detection, pixels: NDArray[np.uint8] = GREY, **fields: Any) -> Drawn:
    height, width = pixels.shape[:2]
    given: dict[str, Any] = {"frame": (width, height), "max_side": 4096, **fields}
    return annotate(pixels, Drawing(boxes=boxes, **given))


def pixels_of(picture: Drawn) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(picture.content)).convert("RGB")).astype(np.int64)


def changed(picture: Drawn) -> NDArray[np.bool_]:
    marked: NDArray[np.bool_] = (np.abs(pixels_of(picture) - 128) > 40).max(axis=2)
    return marked


def is_like(pixel: NDArray[np.int64], colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(pixel - np.array(colour)) < 60).all())


def test_a_box_is_drawn_where_it_is_in_its_colour_and_its_inside_stays() -> None:
    picture = drawn(box(class_id=3))
    pixels = pixels_of(picture)
    for y, x in ((120, 100), (120, 200), (160, 150)):
        assert is_like(pixels[y, x], colour_of(3)), (y, x)
    assert not changed(picture)[90:150, 110:190].any()
    assert not changed(picture)[170:].any()


def test_the_label_is_above_its_box_in_ink_that_can_be_read() -> None:
    marked = changed(drawn(box()))
    assert marked[60:78, 100:150].mean() > 0.5  # paper
    ink = pixels_of(drawn(box()))[60:78, 100:150].reshape(-1, 3)
    assert (ink.sum(axis=1) < 200).any() or (ink.sum(axis=1) > 700).any()


@pytest.mark.parametrize("class_id", range(80))
def test_ink_contrasts_with_every_class(class_id: int) -> None:
    def luminance(colour: tuple[int, int, int]) -> float:
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(colour_of(class_id)), luminance(ink_on(colour_of(class_id)))), reverse=True)
    assert (bright + 0.05) / (dark + 0.05) >= 4.5  # WCAG AA


def test_boxes_follow_the_frame_when_the_pixels_are_reduced() -> None:
    picture = drawn(box(corners=(200, 160, 400, 320)), frame=(800, 600))  # the pixels are 400 x 300
    assert changed(picture)[120, 98:103].any()
    assert changed(picture)[158:163, 150].any()


def test_a_picture_is_reduced_and_lines_stay_thick_enough_to_see() -> None:
    large = np.full((1500, 2000, 3), 128, np.uint8)
    picture = drawn(box(corners=(500, 400, 1000, 800)), pixels=large, max_side=500)
    assert (picture.width, picture.height) == (500, 375)
    assert changed(picture)[150, 124:128].sum() >= 2
    assert (drawn(max_side=5000).width, drawn(max_side=5000).height) == (400, 300)  # nothing is enlarged


@pytest.mark.parametrize(
    "corners",
    [
        (-500, -500, 9000, 9000),
        (390, 290, 400, 300),
        (0, 0, 3, 3),
        (0, 295, 400, 300),
        (200, 160, 100, 80),
        (float("nan"), 0, float("inf"), 10),
        (-50, -50, -10, -10),
    ],
)
@pytest.mark.parametrize("label", ["", "x" * 5000, "a\nb\0c", "日本語", "\u202eevil", "é" * 200])
def test_whatever_a_model_says_something_is_drawn_within_the_picture(corners: tuple[float, ...], label: str) -> None:
    picture = drawn(box(label=label, corners=corners))
    assert (picture.width, picture.height) == (400, 300)
    assert changed(picture).any()


def test_labels_of_boxes_on_top_of_each_other_are_both_seen() -> None:
    one = changed(drawn(box(class_id=1))).sum()
    both = changed(drawn(box(class_id=1), box(class_id=1, score=0.8, corners=(101, 81, 199, 159)))).sum()
    assert both > 1.3 * one


def test_labels_without_a_font_are_written_without_accents_or_by_number() -> None:
    same = [pixels_of(drawn(box(label=label))) for label in ("codigo", "código")]
    assert (same[0] == same[1]).all()
    same = [pixels_of(drawn(box(label=label))) for label in ("class 0", "日本語")]
    assert (same[0] == same[1]).all()


def test_a_font_of_ones_own_writes_other_scripts() -> None:
    matplotlib = pytest.importorskip("matplotlib")  # it brings one
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    assert (pixels_of(drawn(box(label="код"), font=font)) != pixels_of(drawn(box(label="class 0"), font=font))).any()


@pytest.mark.parametrize("encoding", ["jpeg", "webp"])
def test_nothing_but_pixels_comes_out(encoding: str) -> None:
    picture = drawn(box(), encoding=encoding)
    opened = Image.open(io.BytesIO(picture.content))
    assert opened.format == encoding.upper()
    assert not opened.getexif()
    assert set(opened.info) <= {
        "jfif",
        "jfif_version",
        "jfif_unit",
        "jfif_density",
        "loop",
        "background",
        "timestamp",
        "duration",
    }


def test_the_pixels_that_were_given_stay_as_they_are() -> None:
    before = GREY.copy()
    drawn(box())
    assert (before == GREY).all()


def test_hundreds_of_boxes_and_a_picture_of_one_pixel_do_no_harm() -> None:
    assert drawn(*(box(label=f"n{n}", class_id=n, corners=(n % 400, n % 300, n, n)) for n in range(600))).width == 400
    assert drawn(box(), pixels=np.zeros((1, 1, 3), np.uint8)).height == 1

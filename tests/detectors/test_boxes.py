"""Geometry and suppression, against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from detectors.base import Boxes
from detectors.boxes import PADDING_GREY, Found, Letterbox, Thresholds, join, read_yolo, suppress
from detectors.spec import ModelSpec
from schemas.records import DetectParameters

sides = st.integers(1, 5_000)
canvases = st.sampled_from([(640, 640), (320, 320), (640, 384), (1280, 1280)])
strides = st.sampled_from([None, 32, 64])


@given(width=sides, height=sides, target=canvases, stride=strides)
def test_a_letterbox_holds_the_image_in_its_middle(
    width: int, height: int, target: tuple[int, int], stride: int | None
) -> None:
    box = Letterbox.fit((width, height), target, stride)
    left, top = box.offset
    right, bottom = box.canvas[0] - box.resized[0] - left, box.canvas[1] - box.resized[1] - top
    assert left in {right, right - 1}
    assert top in {bottom, bottom - 1}
    assert all(0 < canvas <= whole for canvas, whole in zip(box.canvas, target, strict=True))
    if stride is None:
        assert box.canvas == target
    else:
        assert all((whole - canvas) % stride == 0 for canvas, whole in zip(box.canvas, target, strict=True))
        assert min(left + right, top + bottom) == 0
        for padding, canvas in ((left + right, box.canvas[0]), (top + bottom, box.canvas[1])):
            assert padding < stride or (padding < 2 * stride and canvas == 2 * stride), "no more than it must be"
        for canvas, whole in zip(box.canvas, target, strict=True):
            assert canvas >= min(2 * stride, whole)


@given(data=st.data(), width=sides, height=sides, target=canvases, stride=strides)
def test_boxes_return_from_the_canvas(
    data: st.DataObject, width: int, height: int, target: tuple[int, int], stride: int | None
) -> None:
    box = Letterbox.fit((width, height), target, stride)
    corners = data.draw(arrays.arrays(np.float32, (5, 2, 2), elements=st.floats(0, 1, width=32)))
    low, high = corners.min(axis=1), corners.max(axis=1)
    xyxy = (np.concatenate((low, high), axis=1) * np.array([width, height] * 2)).astype(np.float32)
    np.testing.assert_allclose(box.restore(box.place(xyxy)), xyxy, atol=max(width, height) * 1e-5)


@given(width=sides, height=sides, xyxy=arrays.arrays(np.float32, (4, 4), elements=st.floats(-2_000, 2_000, width=32)))
def test_restored_boxes_lie_in_the_image(width: int, height: int, xyxy: NDArray[np.float32]) -> None:
    restored = Letterbox.fit((width, height), (640, 640), 32).restore(xyxy)
    assert (restored >= 0).all()
    assert (restored <= np.array([width, height] * 2)).all()


def test_pixels_are_placed_where_the_geometry_says() -> None:
    pixels = np.full((100, 201, 3), 7, np.uint8)
    box = Letterbox.fit((201, 100), (640, 640), 32)
    canvas = box.apply(pixels)
    left, top = box.offset
    assert canvas.shape == (box.canvas[1], box.canvas[0], 3)
    assert (canvas[top : top + box.resized[1], left : left + box.resized[0]] == 7).all()
    assert (canvas == 7).sum() == 3 * box.resized[0] * box.resized[1]
    assert (canvas == PADDING_GREY).sum() == canvas.size - (canvas == 7).sum()


def test_a_canvas_that_held_another_image_may_be_given() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 201, 3), dtype=np.uint8)
    box = Letterbox.fit((201, 90), (320, 320), 32)
    used = np.full((box.canvas[1], box.canvas[0], 3), 9, np.uint8)
    assert box.apply(pixels, out=used) is used
    np.testing.assert_array_equal(used, box.apply(pixels))


@pytest.mark.parametrize("pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3))])
def test_pixels_of_another_kind_are_refused(pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        Letterbox.fit((4, 4), (320, 320), 32).apply(pixels)


def test_an_image_of_the_canvas_s_size_is_not_resampled() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (640, 480, 3), dtype=np.uint8)
    box = Letterbox.fit((480, 640), (640, 640), 32)
    assert box.apply(pixels) is pixels
    kept = pixels.copy()
    kept.flags.writeable = False
    for other in (kept, np.ascontiguousarray(pixels[::-1])[::-1]):
        canvas = box.apply(other)
        assert canvas.flags.carray
        np.testing.assert_array_equal(canvas, pixels)


def overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Intersection over union of two boxes, as it is defined."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return float(shared / union) if union > 0 else 0.0


def naive_suppress(found: Found, iou: float, limit: int) -> list[int]:
    kept: list[int] = []
    for row in sorted(range(len(found.scores)), key=lambda row: (-found.scores[row], row)):
        rivals = [other for other in kept if found.class_ids[other] == found.class_ids[row]]
        if all(overlap(found.xyxy[row].astype(float), found.xyxy[other].astype(float)) <= iou for other in rivals):
            kept.append(row)
    return kept[:limit]


@st.composite
def crowds(draw: st.DrawFn) -> Found:
    """Boxes with whole corners, many of them alike, so that ties and overlaps of every degree come up."""
    count = draw(st.integers(0, 25))
    corners = draw(arrays.arrays(np.int32, (count, 2), elements=st.integers(0, 12)))
    extents = draw(arrays.arrays(np.int32, (count, 2), elements=st.integers(0, 9)))
    scores = draw(arrays.arrays(np.int32, count, elements=st.integers(1, 10)))
    class_ids = draw(arrays.arrays(np.int32, count, elements=st.integers(0, 2)))
    xyxy = np.concatenate((corners, corners + extents), axis=1).astype(np.float32)
    return Found(xyxy, (scores / 10).astype(np.float32), class_ids)


# Thresholds that no quotient of small whole numbers equals, so that rounding decides nothing.
@given(found=crowds(), iou=st.sampled_from([0.0001, 0.30001, 0.4999, 0.70001, 0.9999]), limit=st.integers(0, 30))
def test_suppression_is_that_of_the_definition(found: Found, iou: float, limit: int) -> None:
    assert suppress(found, iou, limit).tolist() == naive_suppress(found, iou, limit)


@pytest.mark.parametrize("limit", [1, 90, 300])
def test_suppression_of_a_large_crowd_is_that_of_the_definition(limit: int) -> None:
    rng = np.random.default_rng(limit)
    corners, extents = rng.integers(0, 60, (400, 2)), rng.integers(1, 40, (400, 2))
    xyxy = np.concatenate((corners, corners + extents), axis=1).astype(np.float32)
    scores, class_ids = rng.integers(1, 50, 400) / np.float32(50), rng.integers(0, 3, 400)
    found = Found(xyxy, scores.astype(np.float32), class_ids.astype(np.int32))
    assert suppress(found, 0.30001, limit).tolist() == naive_suppress(found, 0.30001, limit)


@given(found=crowds(), iou=st.floats(0, 1))
def test_suppressing_twice_changes_nothing(found: Found, iou: float) -> None:
    once = found.take(suppress(found, iou, 300))
    assert suppress(once, iou, 300).tolist() == list(range(len(once.scores)))


def prediction(*rows: tuple[float, float, float, float, int, float], classes: int = 3) -> NDArray[np.float32]:
    """Raw output of a head: centre x, centre y, width, height, class id, score of each anchor."""
    raw = np.zeros((4 + classes, len(rows)), np.float32)
    for anchor, (x, y, width, height, class_id, score) in enumerate(rows):
        raw[:4, anchor] = x, y, width, height
        raw[4 + class_id, anchor] = score
    return raw


BOX = Letterbox.fit((320, 320), (640, 640), 32)


def test_raw_output_becomes_boxes_of_the_image() -> None:
    raw = prediction(
        (100, 200, 40, 80, 2, 0.5), (300, 300, 100, 100, 0, 0.9), (302, 300, 100, 100, 0, 0.8), (9, 9, 9, 9, 1, 0.2)
    )
    found = read_yolo(raw, Thresholds(0.25, 0.7, 300), BOX)
    np.testing.assert_allclose(found.xyxy, [[125, 125, 175, 175], [40, 80, 60, 120]])
    np.testing.assert_allclose(found.scores, [0.9, 0.5])
    assert found.class_ids.tolist() == [0, 2]
    assert [str(array.dtype) for array in (found.xyxy, found.scores, found.class_ids)] == [
        "float32",
        "float32",
        "int32",
    ]


def test_classes_and_limit_narrow_what_is_found() -> None:
    raw = prediction((100, 200, 40, 80, 2, 0.5), (300, 300, 100, 100, 0, 0.9), (500, 300, 100, 100, 0, 0.8))
    assert read_yolo(raw, Thresholds(0.25, 0.7, 300, (2,)), BOX).class_ids.tolist() == [2]
    assert read_yolo(raw, Thresholds(0.25, 0.7, 300, ()), BOX).class_ids.tolist() == []
    assert read_yolo(raw, Thresholds(0.25, 0.7, 2), BOX).class_ids.tolist() == [0, 0]
    assert read_yolo(raw, Thresholds(0.25, 0.7, 0), BOX).class_ids.tolist() == []
    assert read_yolo(raw, Thresholds(0.95, 0.7, 300), BOX).xyxy.shape == (0, 4)


def test_what_a_request_does_not_say_is_the_model_s_default() -> None:
    spec = ModelSpec(path="m.onnx", confidence=0.3, iou=0.6, max_detections=9)
    assert Thresholds.of(DetectParameters(), spec) == Thresholds(0.3, 0.6, 9, None)
    asked = DetectParameters(confidence=0.0, iou=0.0, max_detections=0, classes=(1,))
    assert Thresholds.of(asked, spec) == Thresholds(0.0, 0.0, 0, (1,))


@pytest.mark.parametrize("counts", [[], [0], [2, 0, 3], [0, 0]])
def test_joined_images_keep_their_boxes(counts: list[int]) -> None:
    parts = [Found(np.full((n, 4), n, np.float32), np.ones(n, np.float32), np.full(n, n, np.int32)) for n in counts]
    boxes = join(parts)
    assert isinstance(boxes, Boxes)
    assert np.diff(boxes.offsets).tolist() == counts
    assert boxes.offsets.dtype == np.int32
    assert boxes.class_ids.tolist() == [n for n in counts for _ in range(n)]

"""Codes as encoders draw them: standard readers read them."""

import cv2
import numpy as np
import pytest
import zxingcpp

from detectors.training.codes import NAMES, draw_code
from detectors.training.distractors import draw_distractor
from detectors.training.prints import Stock, dye, print_code

FAMILIES = [
    *(f"DICT_{bits}X{bits}_1000" for bits in (4, 5, 6, 7)),
    *(f"DICT_APRILTAG_{family}" for family in ("16h5", "25h9", "36h10", "36h11")),
    "DICT_ARUCO_ORIGINAL",
    "DICT_ARUCO_MIP_36h12",
]
BLACK_ON_WHITE = Stock((255, 255, 255), (0, 0, 0))


@pytest.mark.parametrize("name", ["qr", "datamatrix", "barcode"])
def test_readers_read_every_code(name: str) -> None:
    draws = np.random.default_rng(1)
    for _ in range(25):
        modules = draw_code(draws, name).modules
        rows = np.repeat(modules, 20, axis=0) if name == "barcode" else modules
        picture = cv2.resize(255 - rows * np.uint8(255), None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
        framed = cv2.copyMakeBorder(picture, 30, 30, 40, 40, cv2.BORDER_CONSTANT, value=255)
        assert len(zxingcpp.read_barcodes(framed)) == 1, modules.shape


def test_markers_are_found_in_one_of_the_dictionaries() -> None:
    draws = np.random.default_rng(2)
    detectors = [
        cv2.aruco.ArucoDetector(cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, one))) for one in FAMILIES
    ]
    for _ in range(10):
        modules = draw_code(draws, "marker").modules
        picture = cv2.resize(255 - modules * np.uint8(255), None, fx=12, fy=12, interpolation=cv2.INTER_NEAREST)
        framed = cv2.copyMakeBorder(picture, 24, 24, 24, 24, cv2.BORDER_CONSTANT, value=255)
        assert any(detector.detectMarkers(framed)[1] is not None for detector in detectors)


@pytest.mark.parametrize("name", NAMES)
def test_a_print_says_where_its_code_is(name: str) -> None:
    """All ink but the digits of linear codes lies in the place, and a marker's frame reaches its four sides."""
    for seed in range(20):
        block = print_code(np.random.default_rng(seed), name, 120, BLACK_ON_WHITE)
        (place,) = block.places
        left, top, right, bottom = (int(value) for value in place.rect)
        assert place.name == name
        assert 0 <= left < right <= block.size[0]
        assert 0 <= top < bottom <= block.size[1]
        dark = block.pixels[..., 0] < 250
        if name == "marker":
            rows, columns = (np.flatnonzero(np.any(dark, axis=axis)) for axis in (1, 0))
            inked = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            assert inked == pytest.approx(place.rect, abs=2)
        if name != "barcode":
            outside = dark.copy()
            outside[top:bottom, left:right] = dark[0, 0]
            assert (outside == dark[0, 0]).all()


def test_no_look_alike_is_read_as_a_code() -> None:
    for seed in range(60):
        ink = draw_distractor(np.random.default_rng(seed), 200)
        picture = cv2.copyMakeBorder(
            dye(ink, BLACK_ON_WHITE), 20, 20, 20, 20, cv2.BORDER_CONSTANT, value=(255, 255, 255)
        )
        assert not zxingcpp.read_barcodes(picture), f"seed {seed}"

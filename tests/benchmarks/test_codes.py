"""The benchmark of real pictures: which boxes are right, what is counted, and what a decoder is given; on pictures drawn here."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import zxingcpp
from numpy.typing import NDArray

from tests.benchmarks.codes_course import as_boxes, count, find_codes
from tests.benchmarks.codes_reading import CROPS, ENLARGED, WHOLE, crop, race
from tests.benchmarks.codes_sheet import draw_sheet, failures_of
from tests.benchmarks.codes_truth import FoundBox, KnownCode, RealPicture, Verdict, is_right, judge
from tests.benchmarks.engine_course import run_side
from tests.benchmarks.stage import Backstage

SQUARE = ((10.0, 10.0), (50.0, 10.0), (50.0, 50.0), (10.0, 50.0))
# A linear code 100 px long, of which 10 px of the height were scanned.
STRIP = ((20.0, 40.0), (120.0, 40.0), (120.0, 50.0), (20.0, 50.0))


def box(*corners: float, label: str = "qr", score: float = 0.9) -> FoundBox:
    left, top, right, bottom = corners
    return FoundBox((left, top, right, bottom), label, score)


@pytest.mark.parametrize(
    ("found", "right"),
    [
        (box(10, 10, 50, 50), True),
        (box(10, 10, 50, 31), True),  # IoU 0.525
        (box(10, 10, 50, 29), False),  # 0.475
        (box(10, 10, 50, 50, label="datamatrix"), False),
        (box(100, 100, 140, 140), False),
    ],
)
def test_a_square_code_is_right_by_iou(found: FoundBox, right: bool) -> None:
    assert is_right(KnownCode("qr", SQUARE), found) is right


def test_a_turned_code_is_judged_by_the_box_around_it() -> None:
    turned = KnownCode("datamatrix", ((30.0, 0.0), (60.0, 30.0), (30.0, 60.0), (0.0, 30.0)))
    assert is_right(turned, box(0, 0, 60, 60, label="datamatrix"))
    assert not is_right(turned, box(15, 15, 45, 45, label="datamatrix"))


@pytest.mark.parametrize(
    ("found", "right"),
    [
        ((18, 10, 122, 80), True),  # the code's whole height, of which the strip is a small part
        ((20, 42, 120, 80), True),  # 0.8 of the strip
        ((20, 43, 120, 80), False),  # 0.7
        ((41, 10, 122, 80), False),  # 0.79
        ((0, 0, 166, 80), True),  # the strip is 0.602 of its length
        ((0, 0, 170, 80), False),  # 0.588
        ((20, 0, 120, 170), False),  # too high
    ],
)
def test_a_linear_code_is_right_by_what_is_known_of_it(found: tuple[float, ...], right: bool) -> None:
    assert is_right(KnownCode("barcode", STRIP), box(*found, label="barcode")) is right


@pytest.mark.parametrize("found", [(18, 10, 122, 80), (41, 10, 122, 80)])
def test_a_linear_code_upside_down_is_judged_alike(found: tuple[float, ...]) -> None:
    """Its corners go the other way round, where the decoder read it mirrored."""
    boxed = box(*found, label="barcode")
    assert is_right(KnownCode("barcode", STRIP[::-1]), boxed) is is_right(KnownCode("barcode", STRIP), boxed)


def test_a_linear_code_of_which_one_line_was_scanned_is_where_that_line_is() -> None:
    line = KnownCode("barcode", ((20.0, 40.0), (120.0, 40.0), (120.0, 41.0), (20.0, 41.0)))
    assert is_right(line, box(18, 10, 122, 80, label="barcode"))
    assert not is_right(line, box(18, 60, 122, 130, label="barcode"))


def test_a_box_is_right_for_one_code_only() -> None:
    picture = RealPicture(Path("two.png"), "qr", (KnownCode("qr", SQUARE), KnownCode("qr", SQUARE)))
    assert judge(picture, [box(10, 10, 50, 50)]).found == (True, False)
    assert judge(picture, [box(10, 10, 50, 50), box(11, 10, 50, 50)]).found == (True, True)


def test_alarms_are_of_look_alikes_alone_and_codes_of_unknown_place_are_told_apart() -> None:
    anything = [box(1, 1, 9, 9, label="marker")]
    assert judge(RealPicture(Path("a.png"), "none"), anything) == Verdict((), alarm=True, suspected=None)
    assert judge(RealPicture(Path("a.png"), "none"), []) == Verdict((), alarm=False, suspected=None)
    assert judge(RealPicture(Path("a.png"), "qr"), anything) == Verdict((), alarm=False, suspected=False)
    assert judge(RealPicture(Path("a.png"), "marker"), anything).suspected is True


def test_what_was_found_is_counted_by_class() -> None:
    pictures = [
        RealPicture(Path("a.png"), "qr", (KnownCode("qr", SQUARE),)),
        RealPicture(Path("b.png"), "barcode", (KnownCode("barcode", STRIP),)),
        RealPicture(Path("c.png"), "datamatrix"),
        RealPicture(Path("d.png"), "none"),
    ]
    boxes = [[box(10, 10, 50, 50)], [box(0, 0, 9, 9)], [], [box(0, 0, 9, 9)]]
    verdicts = [judge(*pair) for pair in zip(pictures, boxes, strict=True)]
    assert count(pictures, verdicts) == {
        "found": {"qr": 1, "datamatrix": 0, "barcode": 0, "all": 1},
        "known": {"qr": 1, "datamatrix": 0, "barcode": 1, "all": 2},
        "alarms": 1,
        "look_alikes": 1,
        "suspected": 0,
        "placeless": 1,
    }
    assert [entry[0].file.name for entry in failures_of(pictures, boxes, verdicts)] == ["b.png", "c.png", "d.png"]


def draw(text: str, form: zxingcpp.BarcodeFormat, scale: int = 4) -> NDArray[np.uint8]:
    return np.array(zxingcpp.create_barcode(text, form).to_image(scale=scale, add_quiet_zones=False), np.uint8)


@pytest.fixture
def drawn(tmp_path: Path) -> tuple[list[RealPicture], list[list[FoundBox]]]:
    """A picture with a QR code and a Data Matrix, both boxed; one with a linear code that was missed; one with neither."""
    pixels = np.full((240, 400), 230, np.uint8)
    qr, matrix = draw("first", zxingcpp.BarcodeFormat.QRCode), draw("second", zxingcpp.BarcodeFormat.DataMatrix)
    pixels[40 : 40 + qr.shape[0], 40 : 40 + qr.shape[1]] = qr
    pixels[60 : 60 + matrix.shape[0], 280 : 280 + matrix.shape[1]] = matrix
    lines = np.full((200, 400), 230, np.uint8)
    bars = draw("ABC-123", zxingcpp.BarcodeFormat.Code128, 2)
    lines[60 : 60 + bars.shape[0], 40 : 40 + bars.shape[1]] = bars
    files = [tmp_path / f"{name}.png" for name in ("codes", "lines", "none")]
    for file, content in zip(files, (pixels, lines, np.full((60, 90), 128, np.uint8)), strict=True):
        cv2.imwrite(str(file), content)
    quad = ((40.0, 60.0), (140.0, 60.0), (140.0, 80.0), (40.0, 80.0))
    pictures = [
        RealPicture(files[0], "qr"),
        RealPicture(files[1], "barcode", (KnownCode("barcode", quad),)),
        RealPicture(files[2], "none"),
    ]
    boxes = [
        [
            box(40, 40, 40 + qr.shape[1], 40 + qr.shape[0]),
            box(280, 60, 280 + matrix.shape[1], 60 + matrix.shape[0], label="datamatrix"),
        ],
        [],
        [box(5, 5, 30, 30, label="marker")],
    ]
    return pictures, boxes


def test_a_decoder_reads_whole_pictures_and_what_is_boxed(
    drawn: tuple[list[RealPicture], list[list[FoundBox]]],
) -> None:
    texts, ms = race(*drawn)
    contents = {way: [{text for _, text in found} for found in texts[way]] for way in texts}
    assert contents == {
        WHOLE: [{"first", "second"}, {"ABC-123"}, set()],
        CROPS: [{"first", "second"}, set(), set()],
        ENLARGED: [{"first", "second"}, set(), set()],
    }
    assert all(len(times) == 3 and min(times) >= 0 for times in ms.values())


def test_each_side_says_what_it_found_picture_by_picture(
    drawn: tuple[list[RealPicture], list[list[FoundBox]]], tmp_path: Path
) -> None:
    pictures, boxes = drawn
    stage = Backstage(scratch=tmp_path, pictures=tmp_path, model="fake")
    said, ours = find_codes(stage, pictures)
    assert said["model"] == "fake"
    assert all(1 <= len(found) <= 3 for found in ours)
    theirs = run_side("opencv", {"paths": [str(picture.file) for picture in pictures]}, tmp_path)
    assert theirs["seconds"] > 0
    found = [as_boxes(rows) for rows in theirs["boxes"]]
    assert "qr" in {one.label for one in found[0]}
    assert is_right(KnownCode("qr", corners(boxes[0][0])), next(one for one in found[0] if one.label == "qr"))
    assert found[2] == []


def corners(found: FoundBox) -> tuple[tuple[float, float], ...]:
    left, top, right, bottom = found.corners
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def test_a_crop_has_a_margin_and_ends_at_the_frame() -> None:
    pixels = np.zeros((100, 200), np.uint8)
    assert crop(pixels, box(50, 40, 90, 60)).shape == (37, 57)
    assert crop(pixels, box(-4, -4, 300, 200)).shape == (100, 200)


def test_failures_come_on_a_sheet(drawn: tuple[list[RealPicture], list[list[FoundBox]]], tmp_path: Path) -> None:
    pictures, boxes = drawn
    verdicts = [judge(*pair) for pair in zip(pictures, boxes, strict=True)]
    failed = failures_of(pictures, boxes, verdicts)
    assert [entry[0].file.stem for entry in failed] == ["lines", "none"]
    draw_sheet(failed, tmp_path / "deep" / "sheet.jpg")
    draw_sheet([], tmp_path / "empty.jpg")
    sheets = [cv2.imread(str(tmp_path / name)) for name in ("deep/sheet.jpg", "empty.jpg")]
    assert [sheet.shape for sheet in sheets if sheet is not None] == [(320, 1680, 3)] * 2

"""Whether a decoder reads more, and faster, where it is only given what the shipped detector boxed."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import zxingcpp
from numpy.typing import NDArray

from tests.benchmarks.codes_course import find_codes, read_pixels, spec_of
from tests.benchmarks.codes_truth import FoundBox, RealPicture, read_pictures
from tests.benchmarks.engine_course import run_side
from tests.benchmarks.races import in_turn
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Backstage

ROUNDS = 3
# A code is read with some of what is around it: its quiet zone, and what a box cut off.
_MARGIN, _LEAST_MARGIN_PX = 0.15, 8
_FORMAT = zxingcpp.BarcodeFormat
_FORMATS = {
    "qr": [_FORMAT.QRCode, _FORMAT.MicroQRCode, _FORMAT.RMQRCode],
    "datamatrix": [_FORMAT.DataMatrix],
    "barcode": [_FORMAT.AllLinear],
}
_ANY = [form for forms in _FORMATS.values() for form in forms]
WHOLE, CROPS, ENLARGED = "the whole picture", "what was boxed", "what was boxed; twice as large where that was not read"

Text = tuple[str, str]
"""Symbology and content."""
Way = Callable[[NDArray[np.uint8], Sequence[FoundBox]], set[Text]]


def run(stage: Backstage) -> Section:
    """All ways in turn on the same pixels, one picture at a time on one core."""
    pictures = read_pictures()
    model, boxes = find_codes(stage, pictures)
    paths = [str(picture.file) for picture in pictures]
    alone = {"way": "alone", "spec": spec_of(stage), "paths": paths, "cache": str(stage.scratch / "engine")}
    finding_ms = statistics.fmean(run_side("engine", alone, stage.scratch)["ms"])
    texts, ms = race(pictures, boxes)
    spent = {way: statistics.fmean(times) for way, times in ms.items()}
    return Section(
        name="codes-reading",
        title="Reading codes: whole pictures, and only what was boxed",
        how=(
            f"zxing-cpp with its default options on {len(pictures)} real pictures, asked for QR, Data Matrix and linear codes: given the "
            f"whole picture, or each box of {model['model']} with {_MARGIN:.0%} of its longer side around it, and then asked for the "
            "box's class alone. It is this decoder on whole pictures that told which codes are known, so it starts with all of these. "
            "A content counts once in a picture. Pixels are decoded before. One picture at a time on one core, "
            f"{ROUNDS} rounds in turn, of each picture its best time, then the mean; finding the boxes is from file to boxes, on all cores."
        ),
        columns=("decoder is given", "codes read", "that whole pictures do not give", "ms a picture"),
        rows=[
            *(
                (way, str(sum(map(len, texts[way]))), str(_beyond(texts[way], texts[WHOLE])), f"{spent[way]:.2f}")
                for way in texts
            ),
            ("finding the boxes", "-", "-", f"{finding_ms:.2f}"),
        ],
        targets=[
            Target(
                what="codes read from boxes, over whole pictures",
                measured=sum(map(len, texts[ENLARGED])) / max(sum(map(len, texts[WHOLE])), 1),
                wanted=1,
            ),
            Target(
                what="time for whole pictures, over boxes and finding them",
                measured=spent[WHOLE] / (spent[ENLARGED] + finding_ms),
                wanted=1,
            ),
        ],
        figures={
            "model": model,
            "texts": {way: [sorted(found) for found in texts[way]] for way in texts},
            "ms": ms,
            "finding_ms": finding_ms,
        },
    )


def race(
    pictures: Sequence[RealPicture], boxes: Sequence[Sequence[FoundBox]]
) -> tuple[dict[str, list[set[Text]]], dict[str, list[float]]]:
    """What each way reads in each picture, and its best time in ms."""
    ways: dict[str, Way] = {WHOLE: read_whole, CROPS: read_crops, ENLARGED: read_enlarged}
    texts: dict[str, list[set[Text]]] = {way: [] for way in ways}
    ms: dict[str, list[float]] = {way: [] for way in ways}
    for picture, found in zip(pictures, boxes, strict=True):
        pixels = read_pixels(picture.file, cv2.IMREAD_GRAYSCALE)
        best, said = dict.fromkeys(ways, np.inf), dict[str, set[Text]]()
        for number in range(ROUNDS):
            for way in in_turn(ways, number):
                began = time.perf_counter()
                said[way] = ways[way](pixels, found)
                best[way] = min(best[way], (time.perf_counter() - began) * 1e3)
        for way in ways:
            texts[way].append(said[way])
            ms[way].append(best[way])
    return texts, ms


def _beyond(texts: Sequence[set[Text]], base: Sequence[set[Text]]) -> int:
    return sum(len(more - known) for more, known in zip(texts, base, strict=True))


def read_whole(pixels: NDArray[np.uint8], _: Sequence[FoundBox]) -> set[Text]:
    """Every code of the three classes."""
    return _read(pixels, _ANY)


def read_crops(pixels: NDArray[np.uint8], boxes: Sequence[FoundBox]) -> set[Text]:
    """Of each box of a class that can be read, the codes of this class."""
    parts = (_read(crop(pixels, box), _FORMATS[box.label]) for box in boxes if box.label in _FORMATS)
    return set().union(*parts)


def read_enlarged(pixels: NDArray[np.uint8], boxes: Sequence[FoundBox]) -> set[Text]:
    """The same, with a second look at each box of which nothing was read."""
    texts: set[Text] = set()
    for box in boxes:
        if box.label in _FORMATS:
            part = crop(pixels, box)
            texts |= _read(part, _FORMATS[box.label]) or _read(_enlarge(part), _FORMATS[box.label])
    return texts


def crop(pixels: NDArray[np.uint8], box: FoundBox) -> NDArray[np.uint8]:
    """A box and its margin, within the frame."""
    left, top, right, bottom = box.corners
    margin = max(_MARGIN * max(right - left, bottom - top), _LEAST_MARGIN_PX)
    rows = slice(max(int(top - margin), 0), int(bottom + margin) + 1)
    return np.ascontiguousarray(pixels[rows, max(int(left - margin), 0) : int(right + margin) + 1])


def _enlarge(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(pixels, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), np.uint8)


def _read(pixels: NDArray[np.uint8], formats: list[Any]) -> set[Text]:
    return {(str(code.format), code.text) for code in zxingcpp.read_barcodes(pixels, formats=formats)}

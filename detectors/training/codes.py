"""Codes from real encoders, as modules: what zxing-cpp and OpenCV's ArUco module draw at one pixel a module."""

import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import zxingcpp
from numpy.typing import NDArray

from detectors.training.draws import Draws, chance, pick

NAMES = ("qr", "datamatrix", "barcode", "marker")
"""The classes of the shipped detector, in its order."""

_FORMATS = zxingcpp.BarcodeFormat
_ALPHABET = np.array(list(string.ascii_letters + string.digits + "-._:/"))
_CAPITALS = np.array(list(string.ascii_uppercase + string.digits))

# Codewords that a Data Matrix of version 1, 2 ... holds (ISO/IEC 16022, table 7); a character needs one at most.
_SQUARE_CAPACITY = (3, 5, 8, 12, 18, 22, 30, 36, 44, 62, 86, 114, 144, 174, 204)
_RECTANGLE_CAPACITY = {25: 5, 26: 10, 27: 16, 28: 22, 29: 32, 30: 49}

_DICTIONARIES = (
    ("DICT_4X4_1000", 3.0),
    ("DICT_5X5_1000", 2.0),
    ("DICT_6X6_1000", 2.5),
    ("DICT_7X7_1000", 1.0),
    ("DICT_ARUCO_ORIGINAL", 1.5),
    ("DICT_APRILTAG_16h5", 0.7),
    ("DICT_APRILTAG_25h9", 0.7),
    ("DICT_APRILTAG_36h10", 0.5),
    ("DICT_APRILTAG_36h11", 2.5),
    ("DICT_ARUCO_MIP_36h12", 0.4),
)


@dataclass(frozen=True, slots=True)
class Code:
    """A code as its encoder draws it. `modules`: uint8 (rows, columns), 1 = dark; a linear code has one row.

    `digits`: what people read below a linear code. `guards`: which bars reach further down than the others (columns, 1 = longer).
    """

    name: str
    modules: NDArray[np.uint8]
    digits: str = ""
    guards: NDArray[np.uint8] | None = None

    @property
    def linear(self) -> bool:
        """Whether it consists of bars."""
        return self.name == "barcode"


def draw_code(draws: Draws, name: str) -> Code:
    """A code of the class `name` with contents of its own."""
    return _ENCODERS[name](draws)


def _draw_qr(draws: Draws) -> Code:
    if chance(draws, 0.06):
        return Code("qr", _encode(_digits(draws, int(draws.integers(3, 9))), _FORMATS.MicroQRCode))
    level = pick(draws, (("L", 3.0), ("M", 3.0), ("Q", 1.5), ("H", 1.5)))
    version = int(
        pick(draws, (((1, 2), 2.0), ((2, 4), 5.0), ((4, 7), 3.5), ((7, 11), 1.8), ((11, 20), 0.8), ((20, 41), 0.25)))[0]
    )
    version += int(draws.integers(0, 3)) if version < 11 else int(draws.integers(0, 10))
    # About what a version holds at level H, in bytes: enough to look full, and never too much.
    length = int(draws.uniform(0.3, 1) * (4 + 1.1 * (version - 1) ** 1.75))
    return Code("qr", _encode(_text(draws, max(length, 1)), _FORMATS.QRCode, ec_level=level, version=version))


def _draw_datamatrix(draws: Draws) -> Code:
    if chance(draws, 0.13):
        version, capacity = pick(draws, [(item, 1.0) for item in _RECTANGLE_CAPACITY.items()])
    else:
        version = int(
            pick(draws, [(number, 1.0 if number < 10 else 0.25) for number in range(1, len(_SQUARE_CAPACITY) + 1)])
        )
        capacity = _SQUARE_CAPACITY[version - 1]
    length = max(1, int(capacity * draws.uniform(0.5, 1)))
    return Code("datamatrix", _encode(_text(draws, length), _FORMATS.DataMatrix, version=version))


def _draw_barcode(draws: Draws) -> Code:
    kind, low, high = pick(draws, _LINEAR)
    if kind in {"EAN13", "EAN8", "UPCA", "UPCE"}:
        # The encoder adds the check digit. UPC-E begins with 0, and digits from 5 on need no care for its zero suppression.
        content = _digits(draws, low) if kind != "UPCE" else "0" + "".join(map(str, draws.integers(5, 10, 6)))
        image = _image(content, getattr(_FORMATS, kind))
        # What is dark in the first row and in the last one is a guard.
        return Code("barcode", image[:1], _spread(content, kind), image[-1])
    length = int(draws.integers(low, high + 1))
    if kind == "ITF":
        content = _digits(draws, length + length % 2)
    elif kind == "Codabar":
        content = f"A{_digits(draws, length)}B"
    elif kind == "Code128":
        content = _digits(draws, length + length % 2) if chance(draws, 0.4) else _text(draws, length)
    else:
        content = "".join(draws.choice(_CAPITALS, length))
    return Code("barcode", _image(content, getattr(_FORMATS, kind))[:1], content)


_LINEAR = (
    (("EAN13", 12, 12), 5.0),
    (("UPCA", 11, 11), 2.5),
    (("EAN8", 7, 7), 1.2),
    (("UPCE", 6, 6), 1.0),
    (("Code128", 3, 18), 4.0),
    (("Code39", 2, 12), 2.5),
    (("ITF", 4, 16), 2.0),
    (("Codabar", 4, 12), 0.5),
    (("Code93", 4, 12), 0.4),
)


def _draw_marker(draws: Draws) -> Code:
    dictionary, ids = _dictionary(pick(draws, _DICTIONARIES))
    image = dictionary.generateImageMarker(int(draws.integers(ids)), dictionary.markerSize + 2, borderBits=1)
    return Code("marker", (image == 0).astype(np.uint8))


_ENCODERS: dict[str, Callable[[Draws], Code]] = {
    "qr": _draw_qr,
    "datamatrix": _draw_datamatrix,
    "barcode": _draw_barcode,
    "marker": _draw_marker,
}


def _encode(content: str, kind: Any, **options: Any) -> NDArray[np.uint8]:
    try:
        return _image(content, kind, **options)
    except ValueError:  # the contents do not fit after all: without a version the encoder takes one that does
        options.pop("version", None)
        return _image(content, kind, **options)


def _image(content: str, kind: Any, **options: Any) -> NDArray[np.uint8]:
    barcode = zxingcpp.create_barcode(content, kind, **options)
    found: NDArray[np.uint8] = (np.array(barcode.to_image(scale=1, add_quiet_zones=False)) == 0).astype(np.uint8)
    return found


def _text(draws: Draws, length: int) -> str:
    return "".join(draws.choice(_ALPHABET, length))


def _digits(draws: Draws, length: int) -> str:
    return "".join(map(str, draws.integers(0, 10, length)))


def _spread(content: str, kind: str) -> str:
    """Digits as a shop's codes set them: in groups."""
    if kind == "EAN13":
        return f"{content[0]}  {content[1:7]}  {content[7:]}{content[2]}"
    return f"{content[:1]} {content[1:6]} {content[6:]}" if kind == "UPCA" else content


@lru_cache(maxsize=len(_DICTIONARIES))
def _dictionary(name: str) -> tuple[Any, int]:
    dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name))
    return dictionary, dictionary.bytesList.shape[0]

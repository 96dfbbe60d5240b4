"""Pictures in which a detector failed, on one sheet to look at."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.codes_course import read_pixels
from tests.benchmarks.codes_truth import FoundBox, RealPicture, Verdict

_SIDE, _TEXT, _COLUMNS = 280, 40, 6
_GREEN, _RED, _GREY = (60, 170, 40), (40, 40, 220), (90, 90, 90)

Entry = tuple[RealPicture, Sequence[FoundBox], Verdict]


def failures_of(
    pictures: Sequence[RealPicture], boxes: Sequence[Sequence[FoundBox]], verdicts: Sequence[Verdict]
) -> list[Entry]:
    """Missed codes, then alarms."""
    entries = list(zip(pictures, boxes, verdicts, strict=True))
    missed = [entry for entry in entries if not all(entry[2].found) or entry[2].suspected is False]
    return missed + [entry for entry in entries if entry[2].alarm]


def draw_sheet(entries: Sequence[Entry], path: Path) -> None:
    """A cell for each picture: what is there in green, what was found in red."""
    cells = [_draw(*entry) for entry in entries]
    cells += [np.full((_SIDE + _TEXT, _SIDE, 3), 255, np.uint8)] * (
        -len(cells) % _COLUMNS or (0 if cells else _COLUMNS)
    )
    rows = [np.hstack(cells[start : start + _COLUMNS]) for start in range(0, len(cells), _COLUMNS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), np.vstack(rows)):
        raise RuntimeError(f"cannot write {path}")


def _draw(picture: RealPicture, boxes: Sequence[FoundBox], verdict: Verdict) -> NDArray[np.uint8]:
    pixels = read_pixels(picture.file, cv2.IMREAD_COLOR)
    gain = _SIDE / max(pixels.shape[:2])
    shown = cv2.resize(pixels, None, fx=gain, fy=gain, interpolation=cv2.INTER_AREA if gain < 1 else cv2.INTER_LINEAR)
    for code in picture.codes:
        quad = np.round(np.array(code.quad) * gain).astype(np.int32)
        cv2.polylines(shown, [quad], isClosed=True, color=_GREEN, thickness=2)
    for box in boxes:
        left, top, right, bottom = (round(value * gain) for value in box.corners)
        cv2.rectangle(shown, (left, top), (right, bottom), _RED, 2)
        cv2.putText(shown, f"{box.label} {box.score:.2f}", (left + 2, top + 12), 0, 0.4, _RED, 1, cv2.LINE_AA)
    cell = np.full((_SIDE + _TEXT, _SIDE, 3), 255, np.uint8)
    cell[: shown.shape[0], : shown.shape[1]] = shown[:_SIDE, :_SIDE]
    what = "alarm" if verdict.alarm else f"{picture.contains} missed"
    for line, (text, colour) in enumerate(((picture.file.stem[-38:], _GREY), (what, _RED))):
        cv2.putText(cell, text, (2, _SIDE + 15 + 18 * line), 0, 0.4, colour, 1, cv2.LINE_AA)
    return cell

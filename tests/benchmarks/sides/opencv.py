"""OpenCV's own detectors of QR codes and linear barcodes, from file to boxes, on every core."""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np

from detectors.cores import usable_cores
from tests.benchmarks.codes_truth import box_around
from tests.benchmarks.sides.effort import effort

_local = threading.local()


def main() -> None:
    """Boxes as rows left, top, right, bottom, label, score, in the order of the pictures, and what it took; a few warm it up before."""
    task = json.loads(sys.argv[1])
    paths: list[str] = task["paths"]
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(_find, paths[:16]))
        with effort() as said:
            found = list(pool.map(_find, paths))
    print(json.dumps({**said, "boxes": found}), flush=True)


def _find(path: str) -> list[list[Any]]:
    # One set a thread: they keep state while they look.
    detectors = getattr(_local, "detectors", None)
    if detectors is None:
        detectors = _local.detectors = {"qr": cv2.QRCodeDetector(), "barcode": cv2.barcode.BarcodeDetector()}
    pixels = cv2.imread(path)
    rows = []
    for label, detector in detectors.items():
        _, quads = detector.detectMulti(pixels)
        for quad in () if quads is None else np.asarray(quads, np.float32).reshape(-1, 4, 2):
            rows.append([*box_around(quad), label, 1.0])
    return rows


if __name__ == "__main__":
    main()

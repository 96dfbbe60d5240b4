"""What decoding costs: the libraries that could do it, large photographs whole and reduced, and what a process of its own adds."""

import io
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from detectors.decode import decode, decode_for
from detectors.decoder_process import Limits
from detectors.decoders import Decoders
from detectors.policy import ImagePolicy
from tests.benchmarks.races import in_turn
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Stage
from tests.support.data import shared_dir
from tests.support.images import encode, photograph

Decode = Callable[[bytes], object]
Contents = Sequence[bytes]
Figures = dict[str, dict[str, float]]

ROUNDS = 5
LARGE_SIDE = 4000
CANVAS = (640, 640)
IN_USE, ISOLATED, WHOLE, REDUCED = "in use", "in use, in a process of its own", "whole", f"reduced for {CANVAS[0]} px"


def run(stage: Stage) -> Section:
    """All ways take turns on the same bytes, one image at a time, on one core; of each image's times the best counts."""
    photographs, large = _photographs()
    limits = Limits(max_pixels=50_000_000, canvas=None, seconds=60, memory_bytes=ImagePolicy().decode_memory_bytes)
    cv2.setNumThreads(1)
    figures: Figures = {}
    with Decoders(1, limits) as decoders:
        for name, (contents, ways) in _races(photographs, large, decoders.decode).items():
            figures[name] = _race(contents, ways)
            told = ", ".join(f"{way} {ms:.2f}" for way, ms in figures[name].items())
            stage.say(f"{name}: {told} ms an image")
    return Section(
        name="decoders",
        title="Decoding",
        how=(
            f"{len(photographs)} photographs of about 640 x 480 pixels, some of them written anew as PNG and WebP, and some enlarged to "
            f"{LARGE_SIDE} pixels. One at a time, on one core; {ROUNDS} rounds in turn, of each image its best time, then the median of "
            "the images."
        ),
        columns=("images", "by", "ms an image", "over the one in use"),
        rows=[
            (name, way, f"{ms:.2f}", f"{ms / next(iter(times.values())):.2f}")
            for name, times in figures.items()
            for way, ms in times.items()
        ],
        targets=_targets(figures),
        figures=figures,
    )


def _races(
    photographs: list[Image.Image], large: Contents, isolated: Decode
) -> dict[str, tuple[Contents, Mapping[str, Decode]]]:
    """What is decoded, by what; the first is what everything else is compared with."""
    some = photographs[::8]
    used: Decode = partial(decode, max_pixels=50_000_000)
    jpeg = {
        IN_USE: used,
        ISOLATED: isolated,
        "simplejpeg alone": _by_simplejpeg,
        "OpenCV": _by_opencv,
        "Pillow": _by_pillow,
    }
    other = {IN_USE: used, "OpenCV": _by_opencv, "Pillow": _by_pillow}
    whole, reduced = (partial(decode_for, max_pixels=50_000_000, canvas=canvas) for canvas in (None, CANVAS))
    return {
        "JPEG": ([encode(image, "JPEG", quality=92) for image in photographs], jpeg),
        "PNG": ([encode(image, "PNG") for image in some], other),
        "WebP": ([encode(image, "WEBP", quality=85) for image in some], other),
        f"JPEG of {LARGE_SIDE} px": (large, {WHOLE: whole, REDUCED: reduced}),
    }


def _race(contents: Contents, ways: Mapping[str, Decode]) -> dict[str, float]:
    """Milliseconds of each way: of each image the best, of these the median."""
    times: dict[str, NDArray[np.float64]] = {way: np.full(len(contents), np.inf) for way in ways}
    for number in range(ROUNDS):
        for way in in_turn(ways, number):
            for at, content in enumerate(contents):
                began = time.perf_counter()
                ways[way](content)
                times[way][at] = min(times[way][at], (time.perf_counter() - began) * 1e3)
    return {way: statistics.median(best.tolist()) for way, best in times.items()}


def _targets(figures: Figures) -> list[Target]:
    jpeg, large = figures["JPEG"], figures[f"JPEG of {LARGE_SIDE} px"]
    others = [
        min(times["OpenCV"], times["Pillow"]) / times[IN_USE] for name, times in figures.items() if IN_USE in times
    ]
    return [
        Target(
            what="a process of its own adds, ms a photograph",
            measured=jpeg[ISOLATED] - jpeg[IN_USE],
            wanted=0.5,
            at_least=False,
        ),
        Target(what="the best of OpenCV and Pillow over what is in use, at worst", measured=min(others), wanted=0.9),
        Target(what=f"{LARGE_SIDE} px whole over reduced", measured=large[WHOLE] / large[REDUCED], wanted=1.5),
    ]


def _by_simplejpeg(content: bytes) -> Any:
    return simplejpeg.decode_jpeg(content, "RGB")


def _by_opencv(content: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)


def _by_pillow(content: bytes) -> Any:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def _photographs() -> tuple[list[Image.Image], Contents]:
    """Photographs of the shared data or else made ones, and the bytes of a few that are large."""
    shared = shared_dir()
    files: list[Path] = sorted((shared / "datasets" / "coco-val-80" / "images").iterdir()) if shared else []
    made = [photograph(seed, 640, 480) for seed in range(0 if files else 80)]
    photographs = [Image.open(path).convert("RGB") for path in files] + made
    large = [image.resize((LARGE_SIDE, LARGE_SIDE * image.height // image.width)) for image in photographs[::20]]
    return photographs, [encode(image, "JPEG", quality=92) for image in large]

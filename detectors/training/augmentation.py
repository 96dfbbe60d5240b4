"""What is done to pictures on their way to the network, so that it does not learn them by heart. numpy and OpenCV: a few ms a picture."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from detectors.training.placing import PAD, Sample, hide, join, place, turn
from detectors.training.recipe import AugmentationPlan

_Pixels = NDArray[np.uint8]

# Sensors' noise is drawn once and cut at random afterwards: drawing it for each picture would cost more than all the rest.
_NOISE_SIDE, _NOISE_SIGMA = 1024, 32.0


def calmed(plan: AugmentationPlan) -> AugmentationPlan:
    """The plan without what makes pictures unlike those that are met in use."""
    low, high = plan.scale
    return replace(
        plan, scale=(low**0.5, high**0.5), mosaic=0.0, light=plan.light / 2, grey=0.0, invert=0.0, blur=0.0, noise=0.0, jpeg=0.0
    )  # fmt: skip


def compose(
    first: Sample, draw: Callable[[], Sample], side: int, plan: AugmentationPlan, rng: np.random.Generator
) -> Sample:
    """The square input of `side` pixels for a picture; `draw` gives further pictures, for a mosaic. Pure for a state of `rng`."""
    canvas = np.full((side, side, 3), PAD, np.uint8)
    if rng.random() < plan.mosaic:
        x, y = (int(value) for value in rng.integers(round(0.3 * side), round(0.7 * side) + 1, 2))
        areas = [(0, 0, x, y), (x, 0, side, y), (0, y, x, side), (x, y, side, side)]
        samples = [first, draw(), draw(), draw()]
    else:
        areas, samples = [(0, 0, side, side)], [first]
    placed = [
        place(canvas, area, _turn(sample, plan, rng), _scale(plan, rng), plan.kept_share, rng)
        for area, sample in zip(areas, samples, strict=True)
    ]
    composed = hide(join(placed), rng)
    return replace(composed, pixels=recolour(composed.pixels, plan, rng))


def _turn(sample: Sample, plan: AugmentationPlan, rng: np.random.Generator) -> Sample:
    mirrored = rng.random() < plan.flip
    return turn(sample, int(rng.integers(1, 4)) if rng.random() < plan.quarter_turns else 0, mirrored=mirrored)


def _scale(plan: AugmentationPlan, rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(plan.scale))))


def recolour(pixels: _Pixels, plan: AugmentationPlan, rng: np.random.Generator) -> _Pixels:
    """As a camera might have it: out of focus, then its light and colours, its noise, its compression."""
    if rng.random() < plan.blur:
        pixels = cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.4, 1.8)))
    if rng.random() < plan.grey:
        pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    inverted = rng.random() < plan.invert
    if rng.random() < plan.light or inverted:
        pixels = cv2.LUT(pixels, _curves(plan, rng, inverted=inverted))
    if rng.random() < plan.noise:
        pixels = _add_noise(pixels, float(rng.uniform(2, 16)), rng)
    if rng.random() < plan.jpeg:
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=int(rng.integers(25, 80)))
        pixels = simplejpeg.decode_jpeg(data)
    return pixels


def _curves(plan: AugmentationPlan, rng: np.random.Generator, *, inverted: bool) -> _Pixels:
    """For each channel what becomes of the values 0..255: (256, 1, 3) for OpenCV's table look-up."""
    contrast, gamma, brightness = (rng.uniform(-s, s) for s in (plan.contrast, plan.gamma, plan.brightness))
    gains = 1 + rng.uniform(-plan.colour, plan.colour, 3)
    values = np.linspace(0, 1, 256)[:, None] ** ((1 + gamma) if gamma > 0 else 1 / (1 - gamma))
    values = ((values - 0.5) * (1 + contrast) + 0.5) * (1 + brightness) * gains
    values = 1 - values if inverted else values
    return np.ascontiguousarray((values.clip(0, 1) * 255).round().astype(np.uint8)[:, None])


def _add_noise(pixels: _Pixels, sigma: float, rng: np.random.Generator) -> _Pixels:
    height, width = pixels.shape[:2]
    noise = _noise()
    y, x = (int(rng.integers(max(1, _NOISE_SIDE - size + 1))) for size in (height, width))
    # Larger inputs than the noise get it repeated.
    down, across = -(-height // _NOISE_SIDE), -(-width // _NOISE_SIDE)
    patch = noise[y : y + height, x : x + width] if down == across == 1 else np.tile(noise, (down, across, 1))
    noisy: _Pixels = cv2.addWeighted(
        pixels, 1.0, patch[:height, :width], sigma / _NOISE_SIGMA, -128 * sigma / _NOISE_SIGMA
    )
    return noisy


@cache
def _noise() -> _Pixels:
    """Gaussian around 128, always the same."""
    drawn = np.random.default_rng(0).normal(128, _NOISE_SIGMA, (_NOISE_SIDE, _NOISE_SIDE, 3))
    return drawn.clip(0, 255).round().astype(np.uint8)

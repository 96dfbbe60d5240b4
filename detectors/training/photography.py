"""From a scene as it is to a picture as a phone, a scanner or a screen grab gives it. Pictures: uint8 BGR (height, width, 3)."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.training.draws import Draws, chance, log_uniform, pick
from detectors.training.textures import Pixels, crop_grain

_COARSE = 8


@dataclass(frozen=True, slots=True)
class Blur:
    """How far out of focus a picture may be. `mild`: sigma in pixels that any code in it stands; `strong`: that its codes just stand."""

    mild: float
    strong: float


def photograph(draws: Draws, scene: Pixels, blur: Blur, harsh: float) -> Pixels:
    """`scene` through light, lens, sensor and processing. `harsh`: 1 for ordinary conditions, up to 2 for glare and blur more often."""
    lit = _light(draws, scene, harsh)
    lit = _defocus(draws, lit, blur, harsh)
    lit = _expose(draws, lit)
    lit = _noise(draws, lit)
    if chance(draws, 0.22):
        lit = _sharpen(draws, lit)
    return _rescale(draws, lit, blur) if chance(draws, 0.15) else lit


def encode(draws: Draws, picture: Pixels, crisp: bool) -> bytes:
    """The picture as JPEG of varied quality; grey at times. Screenshots (`crisp`) are stored well."""
    if chance(draws, 0.1 if crisp else 0.14):
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    quality = int(draws.uniform(80, 98)) if crisp or chance(draws, 0.45) else int(draws.uniform(22, 90))
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if chance(draws, 0.75) else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    found, coded = cv2.imencode(
        ".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    )
    assert found
    return coded.tobytes()


def _light(draws: Draws, scene: Pixels, harsh: float) -> Pixels:
    """Gradients, vignetting, shadows with harder and softer edges, glare."""
    height, width = scene.shape[:2]
    columns, rows = width // _COARSE + 1, height // _COARSE + 1
    field = np.ones((rows, columns), np.float32)
    if chance(draws, 0.7):
        corners = draws.normal(1, draws.choice([0.06, 0.18, 0.3]), (3, 3)).clip(0.3, 1.5).astype(np.float32)
        field *= cv2.resize(corners, (columns, rows), interpolation=cv2.INTER_LINEAR)
    if chance(draws, 0.25):
        y, x = np.linspace(-1, 1, rows, dtype=np.float32)[:, None], np.linspace(-1, 1, columns, dtype=np.float32)
        field *= 1 - np.float32(draws.uniform(0.1, 0.35)) * (x * x + y * y)
    if chance(draws, 0.22 * harsh):
        field *= _shadow(draws, columns, rows)
    lit = scene
    if np.ptp(field) > 0.01:
        full = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
        lit = cv2.multiply(scene, cv2.cvtColor(full, cv2.COLOR_GRAY2BGR), scale=1.0, dtype=cv2.CV_8U)
    if chance(draws, 0.13 * harsh):
        glare = cv2.resize(_glare(draws, columns, rows), (width, height), interpolation=cv2.INTER_CUBIC)
        lit = cv2.add(lit, cv2.cvtColor(glare, cv2.COLOR_GRAY2BGR))
    return lit


def _shadow(draws: Draws, columns: int, rows: int) -> NDArray[np.float32]:
    shade = np.ones((rows, columns), np.float32)
    depth = float(draws.uniform(0.3, 0.8))
    points = (draws.uniform(-0.4, 1.4, (int(draws.integers(3, 6)), 2)) * (columns, rows)).astype(np.int32)
    cv2.fillPoly(shade, [points], depth, cv2.LINE_AA)
    found: NDArray[np.float32] = cv2.GaussianBlur(shade, (0, 0), log_uniform(draws, 0.4, 6))
    return found


def _glare(draws: Draws, columns: int, rows: int) -> NDArray[np.uint8]:
    """Light that bounces off gloss: blobs and streaks, up to white."""
    glare = np.zeros((rows, columns), np.uint8)
    for _ in range(int(draws.integers(1, 4))):
        centre = int(draws.integers(columns)), int(draws.integers(rows))
        axes = (
            max(1, int(log_uniform(draws, 0.01, 0.22) * columns)),
            max(1, int(log_uniform(draws, 0.01, 0.22) * columns)),
        )
        cv2.ellipse(glare, centre, axes, draws.uniform(0, 180), 0, 360, int(draws.integers(60, 256)), -1)
    found: NDArray[np.uint8] = cv2.GaussianBlur(glare, (0, 0), log_uniform(draws, 0.8, 6))
    return found


def _defocus(draws: Draws, picture: Pixels, blur: Blur, harsh: float) -> Pixels:
    kind = draws.random() / harsh**0.5
    if kind < 0.13:
        return _blur(draws, picture, blur.strong * draws.uniform(0.45, 1))
    if kind < 0.45:
        return _blur(draws, picture, min(blur.mild, log_uniform(draws, 0.5, 2.2)))
    if kind < 0.55:
        return _shake(draws, picture, min(9.0, blur.strong * 2.2) * draws.uniform(0.4, 1))
    # A lens and a sensor are never sharper than this.
    return _blur(draws, picture, draws.uniform(0.25, 0.6)) if kind < 0.85 else picture


def _blur(draws: Draws, picture: Pixels, sigma: float) -> Pixels:
    """Out of focus: a Gaussian, or the disc that a lens makes, of the same spread."""
    if sigma < 0.25:
        return picture
    if chance(draws, 0.3) and 0.8 < sigma < 4:
        round_one: Pixels = cv2.filter2D(picture, -1, _disc(2 * sigma), borderType=cv2.BORDER_REFLECT)
        return round_one
    if sigma < 4:
        soft: Pixels = cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        return soft
    # Nothing finer is left: half the size does.
    small = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / 2, borderType=cv2.BORDER_REFLECT)
    found: Pixels = cv2.resize(small, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_LINEAR)
    return found


def _disc(radius: float) -> NDArray[np.float32]:
    half = int(np.ceil(radius))
    across = np.arange(-half, half + 1)
    disc = np.clip(radius + 0.5 - np.hypot(across[:, None], across), 0, 1).astype(np.float32)
    found: NDArray[np.float32] = disc / disc.sum()
    return found


def _shake(draws: Draws, picture: Pixels, length: float) -> Pixels:
    """The camera moved by `length` pixels, straight."""
    half = int(np.ceil(length / 2)) + 1
    path = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    turn = draws.uniform(0, np.pi)
    ends = [
        (round((half + side * length / 2 * np.cos(turn)) * 16), round((half + side * length / 2 * np.sin(turn)) * 16))
        for side in (-1, 1)
    ]
    cv2.line(path, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, 4)
    found: Pixels = cv2.filter2D(picture, -1, path / max(path.sum(), 1e-6), borderType=cv2.BORDER_REFLECT)
    return found


def _expose(draws: Draws, picture: Pixels) -> Pixels:
    """Exposure, contrast, tone curve and colour cast in one table a channel."""
    gain = pick(draws, (((0.85, 1.2), 6.0), ((0.4, 0.85), 1.6), ((1.2, 1.7), 1.2)))
    level = np.arange(256) / 255 * draws.uniform(*gain)
    if chance(draws, 0.3):
        low, high = draws.uniform(0, 0.3), draws.uniform(0.6, 1)
        level = low + level * (high - low)
    level = np.clip(level, 0, 1.2) ** draws.uniform(0.75, 1.35) if chance(draws, 0.5) else level
    casts = 1 + draws.normal(0, 0.07, 3) if chance(draws, 0.5) else np.ones(3)
    table = np.clip(level[:, None] * casts * 255, 0, 255).astype(np.uint8)
    found: Pixels = cv2.LUT(picture, table.reshape(1, 256, 3))
    return found


def _noise(draws: Draws, picture: Pixels) -> Pixels:
    """A phone's noise: of light, of colour and coarser, and what is left when it was smoothed away."""
    height, width = picture.shape[:2]
    if chance(draws, 0.3):
        return picture
    deep = log_uniform(draws, 1, 16)
    luma = crop_grain(draws, width, height)
    if chance(draws, 0.4):  # demosaicked sensors and resized pictures have noise of more than a pixel
        luma = cv2.GaussianBlur(luma, (0, 0), draws.uniform(0.4, 1.2)) * 2
    parts = [cv2.add(part, luma * deep, dtype=cv2.CV_8U) for part in cv2.split(picture)]
    if chance(draws, 0.35):
        small = max(2, width // 3), max(2, height // 3)
        for number in (0, 2):
            chroma = cv2.resize(
                np.ascontiguousarray(crop_grain(draws, *small)), (width, height), interpolation=cv2.INTER_LINEAR
            )
            parts[number] = cv2.add(parts[number], chroma * deep * 0.8, dtype=cv2.CV_8U)
    noisy = cv2.merge(parts)
    found: Pixels = cv2.medianBlur(noisy, 3) if deep > 5 and chance(draws, 0.2) else noisy
    return found


def _sharpen(draws: Draws, picture: Pixels) -> Pixels:
    amount = draws.uniform(0.4, 1.8)
    found: Pixels = cv2.addWeighted(
        picture, 1 + amount, cv2.GaussianBlur(picture, (0, 0), draws.uniform(0.8, 2.2)), -amount, 0
    )
    return found


def _rescale(draws: Draws, picture: Pixels, blur: Blur) -> Pixels:
    """Stored smaller and shown larger again, by whatever means."""
    height, width = picture.shape[:2]
    factor = 1 / min(draws.uniform(1.2, 3), max(1.15, blur.mild * 1.6))
    down = cv2.INTER_AREA if chance(draws, 0.7) else cv2.INTER_LINEAR
    up = pick(draws, ((cv2.INTER_LINEAR, 2.0), (cv2.INTER_CUBIC, 2.0), (cv2.INTER_NEAREST, 0.4)))
    small = cv2.resize(picture, (max(8, int(width * factor)), max(8, int(height * factor))), interpolation=down)
    found: Pixels = cv2.resize(small, (width, height), interpolation=up)
    return found

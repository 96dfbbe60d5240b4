"""Surfaces without any regular figure: noise, wood, cloth, metal, card, light out of focus. uint8 BGR (height, width, 3)."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.training.draws import Draws, chance, colour, log_uniform, pick

Pixels = NDArray[np.uint8]
Field = NDArray[np.float32]


@lru_cache(maxsize=1)
def grain() -> Field:
    """White noise of variance one, float32 (1400, 1400), always the same: crops of it are what noise is made of, as drawing it is slow."""
    return np.random.default_rng(20_240_117).standard_normal((1400, 1400), dtype=np.float32)


def crop_grain(draws: Draws, width: int, height: int) -> Field:
    """A crop of `grain()`; at most 1400 pixels a side."""
    x, y = int(draws.integers(1401 - width)), int(draws.integers(1401 - height))
    return grain()[y : y + height, x : x + width]


def smooth_noise(draws: Draws, width: int, height: int, cells: tuple[float, float]) -> Field:
    """Noise of variance about a half whose figures are `cells` pixels wide and high."""
    columns, rows = (int(np.clip(side / cell, 2, 512)) for side, cell in zip((width, height), cells, strict=True))
    found: Field = cv2.resize(
        np.ascontiguousarray(crop_grain(draws, columns, rows)), (width, height), interpolation=cv2.INTER_CUBIC
    )
    return found


def fractal(draws: Draws, width: int, height: int, finest: float = 3.0) -> Field:
    """Noise on all scales down to `finest` pixels, of variance about one."""
    field = np.zeros((height, width), np.float32)
    cell, weight = max(width, height) / 3, 0.7
    fade = draws.uniform(0.5, 0.95)
    while cell > finest and weight > 0.05:
        cv2.scaleAdd(smooth_noise(draws, width, height, (cell, cell)), weight, field, field)
        cell, weight = cell / 2.4, weight * fade
    return field


def tint(draws: Draws, field: Field, deep: float, first: tuple[int, int, int] | None = None) -> Pixels:
    """A field as lighter and darker tones of one colour; `deep`: grey levels that one unit of it makes."""
    base = first or colour(draws, 30, 250, 0.6)
    reach = 4.0
    index = (
        cv2.convertScaleAbs(field, alpha=127 / reach, beta=128)
        if field.min() > -reach
        else ((field.clip(-reach, reach) / reach + 1) * 127).astype(np.uint8)
    )
    steps = (np.arange(256) - 128) / 127 * reach * deep
    # Shades of a colour darken in proportion.
    ramp = np.clip(np.array(base)[None] * (1 + steps[:, None] / max(60, *base)), 0, 255).astype(np.uint8)
    found: Pixels = cv2.LUT(cv2.cvtColor(index, cv2.COLOR_GRAY2BGR), ramp.reshape(1, 256, 3))
    return found


def gradient(draws: Draws, width: int, height: int) -> Pixels:
    """Corners of different colour, smooth between them; often nearly one colour."""
    base = np.array(colour(draws, 15, 255, 0.6), np.float32)
    corners = np.clip(base + draws.normal(0, draws.choice([3, 15, 50]), (2, 2, 3)), 0, 255).astype(np.float32)
    found: Pixels = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    return found


def draw_texture(draws: Draws, width: int, height: int) -> Pixels:
    """One surface of any kind."""
    return pick(draws, _KINDS)(draws, width, height)


def _noise(draws: Draws, width: int, height: int) -> Pixels:
    return tint(draws, fractal(draws, width, height, draws.choice([2.0, 5.0, 20.0])), log_uniform(draws, 2, 28))


def _speckle(draws: Draws, width: int, height: int) -> Pixels:
    field = fractal(draws, width, height, 12) * 0.6 + crop_grain(draws, width, height) * draws.uniform(0.2, 1)
    return tint(draws, field, log_uniform(draws, 3, 22))


def _wood(draws: Draws, width: int, height: int) -> Pixels:
    warp = smooth_noise(draws, width, height, (width / 2, height / 3)) * draws.uniform(0.5, 3)
    rings = np.sin(np.linspace(0, draws.uniform(8, 60), height, dtype=np.float32)[:, None] + warp)
    field = rings * 0.7 + smooth_noise(draws, width, height, (90, 1.6)) * 0.6
    wood = tint(draws, field, log_uniform(draws, 6, 30), _brown(draws))
    return wood if chance(draws, 0.6) else np.ascontiguousarray(_fit(wood.transpose(1, 0, 2), width, height))


def _brushed(draws: Draws, width: int, height: int) -> Pixels:
    level = int(draws.integers(60, 230))
    field = smooth_noise(draws, width, height, (120, 1)) + fractal(draws, width, height, 60) * draws.uniform(0.5, 2.5)
    metal = tint(draws, field, log_uniform(draws, 4, 22), (level, level, max(0, level - int(draws.integers(-8, 12)))))
    return metal if chance(draws, 0.5) else np.ascontiguousarray(_fit(metal.transpose(1, 0, 2), width, height))


def _weave(draws: Draws, width: int, height: int) -> Pixels:
    pitch = log_uniform(draws, 2.5, 16)
    x = np.sin(np.arange(width, dtype=np.float32) * np.float32(2 * np.pi / pitch))
    y = np.sin(np.arange(height, dtype=np.float32)[:, None] * np.float32(2 * np.pi / (pitch * draws.uniform(0.6, 1.6))))
    field = x * y if chance(draws, 0.6) else x + y
    return tint(draws, field + smooth_noise(draws, width, height, (3, 3)) * 0.5, log_uniform(draws, 4, 30))


def _brick(draws: Draws, width: int, height: int) -> Pixels:
    tall = int(draws.integers(10, 70))
    wide = int(tall * draws.uniform(1.2, 3))
    wall = tint(draws, fractal(draws, width, height, 4), log_uniform(draws, 6, 20))
    mortar, thick = colour(draws, 90, 230, 0.2), max(1, tall // 9)
    for row, top in enumerate(range(0, height, tall)):
        cv2.line(wall, (0, top), (width, top), mortar, thick)
        for left in range(-(row % 2) * wide // 2, width, wide):
            cv2.line(wall, (left, top), (left, top + tall), mortar, thick)
    return wall


def _bokeh(draws: Draws, width: int, height: int) -> Pixels:
    scale = 4
    small = cv2.resize(gradient(draws, 64, 64), (width // scale + 1, height // scale + 1))
    for _ in range(int(draws.integers(4, 40))):
        centre = int(draws.integers(small.shape[1])), int(draws.integers(small.shape[0]))
        glow = small.copy()
        cv2.circle(glow, centre, max(2, int(log_uniform(draws, 3, 40))), colour(draws, 40, 255, 0.9), -1, cv2.LINE_AA)
        small = cv2.addWeighted(small, 0.4, glow, 0.6, 0)
    soft = cv2.GaussianBlur(small, (0, 0), draws.uniform(0.8, 5))
    found: Pixels = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    return found


def _creased(draws: Draws, width: int, height: int) -> Pixels:
    """Foil, film and crumpled paper: facets of light with sharp edges."""
    field = np.abs(smooth_noise(draws, width, height, (width / 6, height / 6))) * -2 + np.abs(
        smooth_noise(draws, width, height, (40, 40))
    )
    return tint(draws, field, log_uniform(draws, 6, 45))


def _brown(draws: Draws) -> tuple[int, int, int]:
    value = draws.uniform(70, 230)
    return int(value * draws.uniform(0.35, 0.65)), int(value * draws.uniform(0.6, 0.8)), int(value)


def _fit(pixels: Pixels, width: int, height: int) -> Pixels:
    return pixels if pixels.shape[:2] == (height, width) else cv2.resize(pixels, (width, height))


_KINDS = (
    (_noise, 4.0),
    (_speckle, 2.0),
    (gradient, 4.0),
    (_wood, 1.6),
    (_brushed, 1.2),
    (_weave, 1.2),
    (_brick, 0.6),
    (_bokeh, 1.2),
    (_creased, 0.8),
)

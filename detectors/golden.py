"""Pictures drawn by code, for comparing backends where no photographs are at hand."""

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.base import Image

# (width, height): ordinary frames, both ways round, then what a letterbox finds hardest.
_SIZES = (
    (640, 640),
    (640, 480),
    (480, 640),
    (1280, 720),
    (1920, 400),
    (227, 963),
    (97, 61),
    (33, 31),
    (2000, 3),
    (3, 2000),
    (1, 1),
)
_SIGN_RED, _WHITE, _ORANGE = (190, 20, 30), (245, 245, 245), (235, 120, 30)
_LAMPS = ((220, 40, 30), (240, 190, 40), (40, 190, 90))


def draw_golden_images() -> dict[str, Image]:
    """Scenes of signs, lights, balls and clocks, by name, in many sizes; the same on every machine, for one version of OpenCV.

    Their content is what models of everyday objects have something to say of, if often with little confidence.
    """
    return {
        f"golden-{width}x{height}": Image(_draw_scene(width, height, seed))
        for seed, (width, height) in enumerate(_SIZES)
    }


def _draw_scene(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    chance = np.random.default_rng(seed)
    picture = _draw_ground(width, height, chance)
    side = min(width, height)
    drawn = (_draw_stop_sign, _draw_traffic_light, _draw_ball, _draw_clock)
    for place in range(6):
        size = int(side * (0.15 + 0.2 * chance.random()))
        x, y = (int(extent * (0.1 + 0.8 * chance.random())) for extent in (width, height))
        drawn[(place + seed) % len(drawn)](picture, (x, y), max(size, 1))
    noise = chance.normal(0, 6, picture.shape)
    return np.ascontiguousarray(np.clip(picture + noise, 0, 255).astype(np.uint8))


def _draw_ground(width: int, height: int, chance: np.random.Generator) -> NDArray[np.uint8]:
    """Sky above, ground below, and blots on both."""
    down = np.linspace(0, 1, height)[:, np.newaxis, np.newaxis]
    sky, ground = np.array((130, 175, 225)), np.array((95, 90, 75))
    picture = np.broadcast_to(sky * (1 - down) + ground * down, (height, width, 3)).astype(np.uint8)
    blots = chance.integers(0, 40, (max(height // 40, 1), max(width // 40, 1), 3), dtype=np.uint8)
    added: NDArray[np.uint8] = cv2.add(picture, cv2.resize(blots, (width, height), interpolation=cv2.INTER_CUBIC))
    return added


def _draw_stop_sign(picture: NDArray[np.uint8], at: tuple[int, int], size: int) -> None:
    for radius, colour in ((size, _WHITE), (int(size * 0.92), _SIGN_RED)):
        angles = np.pi / 8 + np.arange(8) * np.pi / 4
        corners = np.stack((np.cos(angles), np.sin(angles)), axis=1) * radius + at
        cv2.fillPoly(picture, [np.round(corners).astype(np.int32)], colour, cv2.LINE_AA)
    scale, thick = size / 42, max(size // 12, 1)
    start = (at[0] - int(size * 0.8), at[1] + int(size * 0.28))
    cv2.putText(picture, "STOP", start, cv2.FONT_HERSHEY_SIMPLEX, scale, _WHITE, thick, cv2.LINE_AA)


def _draw_traffic_light(picture: NDArray[np.uint8], at: tuple[int, int], size: int) -> None:
    x, y = at
    cv2.rectangle(picture, (x - size // 3, y - size), (x + size // 3, y + size), (25, 28, 25), -1)
    for place, colour in enumerate(_LAMPS):
        centre = (x, y + (place - 1) * int(size * 0.62))
        cv2.circle(picture, centre, max(size // 4, 1), colour, -1, cv2.LINE_AA)


def _draw_ball(picture: NDArray[np.uint8], at: tuple[int, int], size: int) -> None:
    radius = max(size // 2, 1)
    cv2.circle(picture, at, radius, _ORANGE, -1, cv2.LINE_AA)
    cv2.circle(
        picture, (at[0] - radius // 3, at[1] - radius // 3), max(radius // 4, 1), (255, 190, 120), -1, cv2.LINE_AA
    )
    cv2.ellipse(picture, at, (radius, max(radius // 3, 1)), 20, 0, 360, (60, 30, 10), max(radius // 20, 1), cv2.LINE_AA)


def _draw_clock(picture: NDArray[np.uint8], at: tuple[int, int], size: int) -> None:
    cv2.circle(picture, at, size, (40, 40, 45), -1, cv2.LINE_AA)
    cv2.circle(picture, at, int(size * 0.88), _WHITE, -1, cv2.LINE_AA)
    for hour in range(12):
        turn = np.array((np.cos(hour * np.pi / 6), np.sin(hour * np.pi / 6)))
        start, end = (tuple(map(int, turn * size * share + at)) for share in (0.7, 0.82))
        cv2.line(picture, start, end, (20, 20, 20), max(size // 20, 1), cv2.LINE_AA)
    for angle, length in ((0.9, 0.5), (-1.3, 0.75)):
        end = (int(at[0] + np.cos(angle) * size * length), int(at[1] + np.sin(angle) * size * length))
        cv2.line(picture, at, end, (20, 20, 20), max(size // 14, 1), cv2.LINE_AA)

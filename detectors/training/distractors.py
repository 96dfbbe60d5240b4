"""What looks like a code and is none: stripes, grids, checks, noise of squares, rulers, keyboards, facades, text.

Each is a flat pattern of ink, uint8 (height, width), 255 = covered, which the scenes print, bend and photograph as they do codes.
None of them has a finder, a start and stop sign or a frame with a decodable pattern in it.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.training.draws import Draws, chance, log_uniform, pick
from detectors.training.lettering import Coverage, make_word, write_block, write_line


def draw_distractor(draws: Draws, length: float) -> Coverage:
    """A look-alike whose longer side is about `length` pixels."""
    width = max(12, int(length))
    height = max(8, int(length * draws.uniform(0.25, 1)))
    if chance(draws, 0.25):
        width, height = height, width
    ink = pick(draws, _KINDS)(draws, width, height)
    return ink if ink.shape == (height, width) else cv2.resize(ink, (width, height), interpolation=cv2.INTER_AREA)


def _wave(draws: Draws, width: int, height: int) -> Coverage:
    """Blinds, radiators, ribbed plastic: soft stripes."""
    pitch = log_uniform(draws, 3, max(6, width / 4))
    line = np.sin(np.arange(width) * 2 * np.pi / pitch)
    sharp = draws.choice([1, 3, 10])
    return _rows((np.tanh(line * sharp) * 0.5 + 0.5) * 255, height)


def _fence(draws: Draws, width: int, height: int) -> Coverage:
    """Bars of one width, all alike, as fences, grilles, combs and heat sinks have them; some have a rail."""
    pitch = max(3, int(log_uniform(draws, 4, max(6, width / 5))))
    ink = _rows(np.where(np.arange(width) % pitch < max(1, int(pitch * draws.uniform(0.2, 0.75))), 255, 0), height)
    for _ in range(int(draws.integers(0, 3))):
        top = int(draws.integers(height))
        ink[top : top + max(1, height // 14)] = 255
    return ink


def _cloth(draws: Draws, width: int, height: int) -> Coverage:
    """A few broad stripes of any width that repeat: shirts, awnings, deck chairs."""
    motif = np.repeat(draws.integers(0, 256, 6), draws.integers(1, max(3, width // 14), 6))
    return _rows(np.resize(motif, width), height)


def _ruler(draws: Draws, width: int, height: int) -> Coverage:
    ink = np.zeros((height, width), np.uint8)
    pitch = max(3, int(width / draws.integers(12, 90)))
    every = int(draws.choice([5, 10, 4]))
    for number, x in enumerate(range(pitch // 2, width, pitch)):
        tall = height * (0.6 if number % every == 0 else 0.45 if number % every == every // 2 else 0.3)
        cv2.line(ink, (x, 0), (x, int(tall)), 255, max(1, pitch // 6))
        if number % every == 0 and pitch * every > 18:
            _stamp(
                ink,
                write_line(draws, str(number // every), height * 0.2, "DejaVuSans"),
                x - height // 14,
                int(height * 0.68),
            )
    return ink


def _checks(draws: Draws, width: int, height: int) -> Coverage:
    side = max(2, int(min(width, height) / draws.integers(3, 24)))
    y, x = np.indices((height, width)) // side
    return (((x + y) % 2) * 255).astype(np.uint8)


def _mosaic(draws: Draws, width: int, height: int) -> Coverage:
    """Random modules without any finder, with every share of dark ones; some grey, some with grout between."""
    # Ten and more, as fewer could be a marker's.
    side = max(2, int(max(width, height) / draws.integers(10, 60)))
    rows, columns = height // side + 1, width // side + 1
    cells = (draws.random((rows, columns)) < draws.uniform(0.15, 0.85)) * 255
    if chance(draws, 0.35):
        cells = draws.integers(0, 256, (rows, columns))
    ink = cv2.resize(cells.astype(np.uint8), (columns * side, rows * side), interpolation=cv2.INTER_NEAREST)
    if chance(draws, 0.35) and side > 3:
        ink[::side] = ink[:, ::side] = int(draws.choice([0, 255]))
    return np.ascontiguousarray(ink[:height, :width])


def _crossword(draws: Draws, width: int, height: int) -> Coverage:
    side = max(5, int(max(width, height) / draws.integers(9, 22)))
    ink = np.zeros((height, width), np.uint8)
    for top in range(0, height, side):
        for left in range(0, width, side):
            filled = chance(draws, 0.2)
            cv2.rectangle(ink, (left, top), (left + side, top + side), 255, -1 if filled else 1)
            if not filled and side > 9 and chance(draws, 0.4):
                letter = chr(int(draws.integers(65, 91)))
                cv2.putText(ink, letter, (left + side // 4, top + side * 3 // 4), 0, side / 42, 255, 1, cv2.LINE_AA)
    return ink


def _grid(draws: Draws, width: int, height: int) -> Coverage:
    """Squared paper, tiles, window frames, meshes."""
    ink = np.zeros((height, width), np.uint8)
    across, down = (max(4, int(max(width, height) / draws.integers(4, 40))) for _ in range(2))
    thick = max(1, int(min(across, down) * draws.uniform(0.05, 0.35)))
    for x in range(0, width, across):
        cv2.line(ink, (x, 0), (x, height), 255, thick)
    for y in range(0, height, down if chance(draws, 0.5) else across):
        cv2.line(ink, (0, y), (width, y), 255, thick)
    return ink


def _halftone(draws: Draws, width: int, height: int) -> Coverage:
    pitch = log_uniform(draws, 3, 14)
    y, x = np.indices((height, width), dtype=np.float32)
    turn = draws.uniform(0, np.pi / 2)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    tone = cv2.resize(
        draws.uniform(-1.2, 1.2, (3, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    screen = np.cos(u * 2 * np.pi / pitch) + np.cos(v * 2 * np.pi / pitch)
    found: Coverage = (np.clip((screen + tone) * 2 + 0.5, 0, 1) * 255).astype(np.uint8)
    return found


def _dither(draws: Draws, width: int, height: int) -> Coverage:
    side = int(draws.integers(1, 6))
    rows, columns = height // side + 2, width // side + 2
    tone = cv2.resize(draws.uniform(0, 1, (4, 4)), (columns, rows), interpolation=cv2.INTER_CUBIC)
    cells = ((draws.random((rows, columns)) < tone) * 255).astype(np.uint8)
    return np.ascontiguousarray(
        cv2.resize(cells, None, fx=side, fy=side, interpolation=cv2.INTER_NEAREST)[:height, :width]
    )


def _paragraph(draws: Draws, width: int, height: int) -> Coverage:
    tall = log_uniform(draws, 5, max(7, height / 4))
    return write_block(draws, max(1, int(height / tall / 1.4)), tall, width)


def _word(draws: Draws, width: int, height: int) -> Coverage:
    line = write_line(
        draws, make_word(draws).upper(), min(height, 120), "DejaVuSans-Bold" if chance(draws, 0.6) else None
    )
    found: Coverage = cv2.resize(line, (width, height), interpolation=cv2.INTER_LINEAR)
    return found


def _table(draws: Draws, width: int, height: int) -> Coverage:
    ink = np.zeros((height, width), np.uint8)
    tall = max(7, int(height / draws.integers(3, 14)))
    edges = np.sort(draws.integers(0, width, int(draws.integers(2, 7))))
    for top in range(0, height, tall):
        cv2.line(ink, (0, top), (width, top), 255, 1)
        for left in edges:
            _stamp(ink, write_line(draws, make_word(draws), tall * 0.5, "DejaVuSans"), int(left) + 3, top + tall // 4)
    for left in edges:
        cv2.line(ink, (int(left), 0), (int(left), height), 255, 1)
    return ink


def _keys(draws: Draws, width: int, height: int) -> Coverage:
    """A keyboard, a facade, an LED matrix: figures in rows and columns."""
    side = max(4, int(max(width, height) / draws.integers(4, 26)))
    inner, round_ones = max(1, int(side * draws.uniform(0.3, 0.85))), chance(draws, 0.35)
    odd, lit = draws.uniform(0, 0.5), int(draws.integers(0, 256))
    ink = np.zeros((height, width), np.uint8)
    for row, top in enumerate(range(side // 6, height, side)):
        for left in range(side // 6 + (row % 2) * (side // 3 if odd > 0.4 else 0), width, side):
            tone = lit if chance(draws, odd) else 255
            if round_ones:
                cv2.circle(ink, (left + inner // 2, top + inner // 2), inner // 2, tone, -1, cv2.LINE_AA)
            else:
                cv2.rectangle(ink, (left, top), (left + inner, top + inner), tone, -1)
    return ink


def _piano(draws: Draws, width: int, height: int) -> Coverage:
    ink = np.zeros((height, width), np.uint8)
    key = max(4, int(width / draws.integers(7, 36)))
    for number, left in enumerate(range(0, width, key)):
        cv2.line(ink, (left, 0), (left, height), 255, max(1, key // 12))
        if number % 7 not in {2, 6}:
            cv2.rectangle(ink, (left + key * 7 // 10, 0), (left + key * 13 // 10, height * 6 // 10), 255, -1)
    return ink


def _circuit(draws: Draws, width: int, height: int) -> Coverage:
    """Conductors and pads, mazes: lines that turn at right angles."""
    ink = np.zeros((height, width), np.uint8)
    step = max(3, int(max(width, height) / draws.integers(10, 50)))
    for _ in range(int(draws.integers(10, 70))):
        x, y = int(draws.integers(width // step + 1)) * step, int(draws.integers(height // step + 1)) * step
        for _ in range(int(draws.integers(1, 6))):
            to = (
                (x + int(draws.integers(-4, 5)) * step, y)
                if chance(draws, 0.5)
                else (x, y + int(draws.integers(-4, 5)) * step)
            )
            cv2.line(ink, (x, y), to, 255, max(1, step // 3))
            x, y = to
        cv2.circle(ink, (x, y), max(1, step // 2), 255, -1)
    return ink


def _skyline(draws: Draws, width: int, height: int) -> Coverage:
    """Bars of different heights and tones, as charts, books on a shelf and towns have them."""
    ink = np.zeros((height, width), np.uint8)
    left = 0
    while left < width:
        wide = max(2, int(width * draws.uniform(0.015, 0.09)))
        top = int(height * draws.uniform(0, 0.8))
        ink[top:, left : left + wide] = int(draws.integers(40, 256))
        left += wide + int(draws.integers(0, 3)) * wide // 2
    return ink


def _dice(draws: Draws, width: int, height: int) -> Coverage:
    side = max(10, min(width, height, int(max(width, height) / draws.integers(1, 5))))
    ink = np.zeros((height, width), np.uint8)
    for top in range(0, height - side + 1, side):
        for left in range(0, width - side + 1, side):
            cv2.rectangle(ink, (left + 1, top + 1), (left + side - 2, top + side - 2), 255, max(1, side // 16))
            for spot in draws.permutation(9)[: int(draws.integers(1, 7))]:
                centre = left + side * (1 + spot % 3) // 4, top + side * (1 + spot // 3) // 4
                cv2.circle(ink, (int(centre[0]), int(centre[1])), max(1, side // 10), 255, -1, cv2.LINE_AA)
    return ink


def _rings(draws: Draws, width: int, height: int) -> Coverage:
    """Concentric squares or circles, targets, record grooves."""
    ink = np.zeros((height, width), np.uint8)
    middle, most = (width // 2, height // 2), min(width, height) // 2
    count, square = int(draws.integers(1, 7)), chance(draws, 0.5)
    for number in range(count):
        reach = int(most * (1 - number / count))
        tone = 255 if number % 2 == 0 else 0
        if square:
            cv2.rectangle(ink, (middle[0] - reach, middle[1] - reach), (middle[0] + reach, middle[1] + reach), tone, -1)
        else:
            cv2.circle(ink, middle, reach, tone, -1, cv2.LINE_AA)
    return ink


def _frame(draws: Draws, width: int, height: int) -> Coverage:
    """A dark frame that is empty, or holds a word or a plain figure: a sign, an icon, a screen."""
    ink = np.zeros((height, width), np.uint8)
    thick = max(1, int(min(width, height) * draws.uniform(0.03, 0.2)))
    cv2.rectangle(ink, (thick // 2, thick // 2), (width - 1 - thick // 2, height - 1 - thick // 2), 255, thick)
    kind = draws.random()
    if kind < 0.4:
        _stamp(ink, write_line(draws, make_word(draws)[:3], height * 0.4), width // 3, height // 3)
    elif kind < 0.6:
        cv2.circle(
            ink,
            (width // 2, height // 2),
            min(width, height) // 5,
            255,
            -1 if chance(draws, 0.5) else thick,
            cv2.LINE_AA,
        )
    return ink


def _logo(draws: Draws, width: int, height: int) -> Coverage:
    ink = np.zeros((height, width), np.uint8)
    for _ in range(int(draws.integers(2, 7))):
        tone = int(draws.choice([0, 255, 255, 160]))
        points = (draws.random((int(draws.integers(3, 7)), 2)) * (width, height)).astype(np.int32)
        if chance(draws, 0.5):
            cv2.fillPoly(ink, [points], tone, cv2.LINE_AA)
        else:
            axes = int(width * draws.uniform(0.05, 0.4)) + 1, int(height * draws.uniform(0.05, 0.4)) + 1
            cv2.ellipse(ink, tuple(map(int, points[0])), axes, draws.uniform(0, 180), 0, 360, tone, -1, cv2.LINE_AA)
    return ink


def _rows(line: NDArray[np.generic], height: int) -> Coverage:
    return np.repeat(np.asarray(line).astype(np.uint8).reshape(1, -1), height, axis=0)


def _stamp(ink: Coverage, figure: Coverage, left: int, top: int) -> None:
    """Put `figure` onto `ink`, as far as it fits."""
    height, width = ink.shape
    left, top = max(0, left), max(0, top)
    part = figure[: max(0, height - top), : max(0, width - left)]
    ink[top : top + part.shape[0], left : left + part.shape[1]] |= part


_KINDS: tuple[tuple[Callable[[Draws, int, int], Coverage], float], ...] = (
    (_wave, 1.5),
    (_fence, 2.0),
    (_cloth, 1.2),
    (_ruler, 0.8),
    (_checks, 1.2),
    (_mosaic, 1.8),
    (_crossword, 0.8),
    (_grid, 1.0),
    (_halftone, 0.8),
    (_dither, 1.0),
    (_paragraph, 3.0),
    (_word, 1.2),
    (_table, 1.0),
    (_keys, 1.2),
    (_piano, 0.5),
    (_circuit, 0.8),
    (_skyline, 0.7),
    (_dice, 0.5),
    (_rings, 0.7),
    (_frame, 1.0),
    (_logo, 1.0),
)

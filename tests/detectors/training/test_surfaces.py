"""The geometry of bent prints: the way back undoes the way forth, and pixels go where points go."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.training.surfaces import Shape, Surface, draw_matrix, draw_shape

LENGTH = 200.0


def surface(seed: int, bent: float, folded: float) -> Surface:
    draws = np.random.default_rng(seed)
    shape = draw_shape(draws, LENGTH, bent, folded)
    matrix = draw_matrix(draws, LENGTH, draws.uniform(-3, 3), 0.3)
    move = np.array([[1, 0, 128.0], [0, 1, 128.0], [0, 0, 1]])
    return Surface((LENGTH / 2, LENGTH / 2), shape, move @ np.diag([0.5, 0.5, 1]) @ matrix)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), bent=st.sampled_from([0.0, 1.0]), folded=st.sampled_from([0.0, 1.0]))
def test_back_undoes_forth(seed: int, bent: float, folded: float) -> None:
    points = np.random.default_rng(seed).uniform(0, LENGTH, (50, 2))
    bendy = surface(seed, bent, folded)
    assert np.abs(bendy.back(bendy.forth(points)) - points).max() < 0.5


@pytest.mark.parametrize("seed", range(8))
def test_pixels_go_where_points_go(seed: int) -> None:
    bendy = surface(seed, 1.0, 1.0)
    texture = np.zeros((200, 200, 4), np.uint8)
    texture[60:72, 120:132] = 255
    drawn = bendy.draw(texture, (0, 0, 256, 256))[..., 3].astype(float)
    rows, columns = np.indices(drawn.shape) + 0.5
    seen = np.array([(columns * drawn).sum(), (rows * drawn).sum()]) / drawn.sum()
    assert np.abs(seen - bendy.forth(np.array([[126.0, 66.0]]))[0]).max() < 0.6


def test_what_is_round_the_bend_is_turned_away() -> None:
    bottle = Surface((100.0, 100.0), Shape(radius=60.0), np.eye(3))
    assert not bottle.turned_away(np.array([[40.0, 100.0], [160.0, 100.0]]))
    assert bottle.turned_away(np.array([[0.0, 100.0], [160.0, 100.0]]))


def test_a_print_ends_at_the_horizon_of_its_cylinder() -> None:
    bottle = Surface((200.0, 50.0), Shape(radius=40.0), np.array([[1, 0, 60.0], [0, 1, 50.0], [0, 0, 1]]))
    opaque = bottle.draw(np.full((100, 400, 4), 255, np.uint8), (0, 0, 120, 100))[50, :, 3]
    assert opaque[24:96].all()
    assert not opaque[:16].any()
    assert not opaque[104:].any()

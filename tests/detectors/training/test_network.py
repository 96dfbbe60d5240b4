"""The network's shapes and what its head means."""

import pytest
import torch

from detectors.training.network import STRIDE, STRIDES, Network, NetworkPlan, grid

SMALL = NetworkPlan(widths=(4, 4, 8, 8, 8), depths=(0, 0, 1, 0, 0), channels=8, head_convs=1)


def test_any_canvas_of_whole_strides_gives_a_column_for_each_cell() -> None:
    network = Network(3, SMALL).eval()
    for height, width in [(STRIDE, STRIDE), (2 * STRIDE, 5 * STRIDE)]:
        rows = network.decode(network(torch.rand(2, 3, height, width)))
        cells = sum((height // stride) * (width // stride) for stride in STRIDES)
        assert rows.shape == (2, 4 + 3, cells)
        assert rows.dtype == torch.float32


def test_boxes_lie_about_their_cells_in_pixels_of_the_input() -> None:
    network = Network(1, SMALL).eval()
    levels = [torch.zeros(1, 5, 64 // stride, 96 // stride) for stride in STRIDES]
    levels[1][0, 1:, 2, 3] = torch.tensor([30.0, 20.0, 10.0, 40.0])  # softplus(x) = x for large x: distances in strides
    row = network.decode(levels)[0, :, (64 // 8) * (96 // 8) + 2 * (96 // 16) + 3]
    x, y = 3.5 * 16, 2.5 * 16
    left, top, right, bottom = x - 30 * 16, y - 20 * 16, x + 10 * 16, y + 40 * 16
    expected = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top, 0.5]
    torch.testing.assert_close(row, torch.tensor(expected), rtol=1e-4, atol=1e-3)


def test_an_untrained_network_sees_next_to_nothing() -> None:
    network = Network(4, SMALL).eval()
    scores = network.decode(network(torch.rand(1, 3, 64, 64)))[:, 4:]
    assert scores.max() < 0.05


def test_cells_are_counted_row_by_row() -> None:
    assert grid(2, 3, 8, torch.device("cpu")).tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


@pytest.mark.parametrize("wrong", [{"widths": (8, 8)}, {"channels": 0}, {"depths": (0, 0, 0, 0, -1)}])
def test_a_plan_that_makes_no_network_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="network"):
        NetworkPlan(**wrong)  # type: ignore[arg-type]

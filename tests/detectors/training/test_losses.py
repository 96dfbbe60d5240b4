"""Which cells learn which object, and that the loss is lowest where the prediction is right."""

import torch

from detectors.training.assignment import assign, assign_by_size
from detectors.training.losses import Targets, detection_loss
from detectors.training.network import STRIDES, Network, NetworkPlan, grid

CPU = torch.device("cpu")


def test_cells_inside_learn_and_the_best_is_wanted_as_much_as_it_overlaps() -> None:
    places = grid(8, 8, 8, CPU)
    boxes = torch.tensor([[[8.0, 8, 40, 40], [0, 0, 0, 0]]])
    corners = torch.cat((places - 16, places + 16), dim=1)[None]
    scores = torch.full((1, 64, 2), 0.5)
    assigned = assign(scores, corners, places, boxes, torch.tensor([[1, 0]]))
    learning = places[assigned.objects[0] == 0]
    assert len(learning) == 13
    assert learning.amin() > 8
    assert learning.amax() < 40
    # The four cells round the centre (24, 24) predict a box that is off by 4 pixels either way.
    overlap = 28 * 28 / (2 * 32 * 32 - 28 * 28)
    torch.testing.assert_close(assigned.quality.max(), torch.tensor(overlap))
    assert (assigned.quality[assigned.objects < 0] == 0).all()


def test_an_object_between_the_cells_gets_the_nearest_one() -> None:
    places = grid(4, 4, 32, CPU)
    boxes = torch.tensor([[[20.0, 20, 26, 26]]])
    corners = torch.cat((places - 3, places + 3), dim=1)[None]
    assigned = assign(torch.full((1, 16, 1), 0.1), corners, places, boxes, torch.zeros(1, 1, dtype=torch.int64))
    assert (assigned.objects[0] >= 0).nonzero().tolist() == [[0]]


def test_a_cell_that_two_objects_want_goes_to_the_one_it_overlaps_most() -> None:
    places = grid(4, 4, 8, CPU)
    boxes = torch.tensor([[[0.0, 0, 32, 32], [8, 8, 16, 16]]])
    corners = torch.tensor([[8.0, 8, 16, 16]]).expand(16, 4)[None]
    assigned = assign(torch.full((1, 16, 1), 0.5), corners, places, boxes, torch.zeros(1, 2, dtype=torch.int64))
    assert assigned.objects[0, 5] == 1


def _levels(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    places = torch.cat([grid(side // stride, side // stride, stride, CPU) for stride in STRIDES])
    strides = torch.cat([torch.full(((side // stride) ** 2,), float(stride)) for stride in STRIDES])
    return places, strides


def test_by_size_the_middle_of_an_object_learns_it_on_the_levels_that_fit() -> None:
    places, strides = _levels(256)
    boxes = torch.tensor([[[10.0, 10, 40, 40], [50, 50, 250, 250], [0, 0, 0, 0]]])
    objects = assign_by_size(places, strides, boxes).objects[0]
    assert set(strides[objects == 0].tolist()) == {8.0}
    assert set(strides[objects == 1].tolist()) == {32.0}
    assert ((places[objects == 0] - 25).abs() <= 12).all()
    assert ((places[objects == 1] - 150).abs() <= 48).all()
    assert not (objects == 2).any()


def test_by_size_a_place_goes_to_the_smaller_object_and_nothing_goes_without() -> None:
    places, strides = _levels(128)
    inner, outer, dot = [50.0, 50, 70, 70], [50.0, 50, 90, 90], [1.0, 1, 3, 3]
    assigned = assign_by_size(places, strides, torch.tensor([[outer, inner, dot]]))
    at = ((places - 60).abs().amax(dim=1) < 1) & (strides == 8)
    assert assigned.objects[0, at].tolist() == [1]
    assert set(assigned.objects[0].tolist()) >= {0, 2}
    assert ((assigned.quality == 1) == (assigned.objects >= 0)).all()


def test_images_without_objects_teach_their_background() -> None:
    raw = [torch.zeros(2, 5, 64 // stride, 64 // stride, requires_grad=True) for stride in STRIDES]
    nothing = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    losses = detection_loss(raw, [nothing, nothing])
    losses["loss"].backward()
    assert losses["boxes"] == 0
    assert (raw[0].grad[:, 0] > 0).all()


def test_training_on_one_picture_finds_its_objects() -> None:
    torch.manual_seed(1)
    network = Network(2, NetworkPlan(widths=(8, 8, 16, 16, 16), depths=(0, 0, 0, 0, 0), channels=16, head_convs=1))
    image = torch.zeros(1, 3, 64, 64)
    image[:, 0, 8:40, 8:40] = 1
    image[:, 1, 44:60, 30:62] = 1
    targets = [Targets(torch.tensor([[8.0, 8, 40, 40], [30, 44, 62, 60]]), torch.tensor([0, 1]))]
    optimiser = torch.optim.AdamW(network.parameters(), 5e-3)
    for _ in range(80):
        losses = detection_loss(network(image), targets)
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
    rows = network.decode(network(image))[0].detach()
    for class_id, box in enumerate([(24.0, 24, 32, 32), (46, 52, 32, 16)]):
        best = rows[:, rows[4 + class_id].argmax()]
        assert best[4 + class_id] > 0.5
        assert (best[:4] - torch.tensor(box)).abs().max() < 4

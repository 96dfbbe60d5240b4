"""The network that is trained: plain 3x3 residual convolutions, a feature pyramid, and an anchor-free head shared by its levels.

Plain convolutions, since depthwise ones are slow to train on a CPU and gain little there when they run. The head predicts, for each
place of three grids (strides 8, 16, 32), a score for each class and the distances to the four sides of the object there, after FCOS
(Tian et al., 2019); its convolutions are shared by the levels and its normalisations are not, after RTMDet (Lyu et al., 2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import Conv2dNormActivation

STRIDES = (8, 16, 32)
STRIDE = STRIDES[-1]
"""Sides of the input are multiples of it."""

# So that an untrained place says 1 % for every class, and boxes of about four strides.
_SCORE_BIAS = -4.6
_DISTANCE_BIAS = 2.0


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """Sizes of the network.

    `widths`: channels at strides 2, 4, 8, 16 and 32; `depths`: residual blocks at each; `channels`: of the pyramid and the head;
    `head_convs`: convolutions of each of the head's two branches.
    """

    widths: tuple[int, ...] = (16, 32, 64, 96, 128)
    depths: tuple[int, ...] = (0, 1, 2, 2, 2)
    channels: int = 64
    head_convs: int = 2

    def __post_init__(self) -> None:
        if len(self.widths) != 5 or len(self.depths) != 5:
            raise ValueError("network.widths and network.depths need five numbers each, for strides 2, 4, 8, 16 and 32")
        if min(*self.widths, self.channels) < 1 or min(*self.depths, self.head_convs) < 0:
            raise ValueError("network.widths and network.channels must be positive, depths and head_convs not negative")


class Network(nn.Module):
    """Images, float32 (n, 3, height, width), RGB in 0..1, sides multiples of `STRIDE`, to raw predictions of each level.

    A level is (n, classes + 4, height / stride, width / stride): logits of the classes, then the distances to left, top, right and
    bottom before `decode` gives them units. Raises ValueError for no classes.
    """

    def __init__(self, classes: int, plan: NetworkPlan) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError("a network needs at least one class")
        self.classes = classes
        self.plan = plan
        self.trunk = _trunk(plan)
        self.laterals = nn.ModuleList(_conv(width, plan.channels, 1) for width in plan.widths[2:])
        self.smooths = nn.ModuleList(_conv(plan.channels, plan.channels, 3) for _ in STRIDES)
        self.score_branch = _SharedBranch(plan, classes, _SCORE_BIAS)
        self.distance_branch = _SharedBranch(plan, 4, _DISTANCE_BIAS)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Raw predictions, a level each."""
        features = images
        levels: list[Tensor] = []
        for stage in self.trunk:
            features = stage(features)
            levels.append(features)
        pyramid = [lateral(level) for lateral, level in zip(self.laterals, levels[2:], strict=True)]
        for lower, upper in reversed(list(pairwise(range(len(pyramid))))):
            pyramid[lower] = pyramid[lower] + functional.interpolate(pyramid[upper], scale_factor=2.0, mode="nearest")
        pyramid = [smooth(level) for smooth, level in zip(self.smooths, pyramid, strict=True)]
        return [
            torch.cat((self.score_branch(level, number), self.distance_branch(level, number)), dim=1)
            for number, level in enumerate(pyramid)
        ]

    def decode(self, raw: Sequence[Tensor]) -> Tensor:
        """Float32 (n, 4 + classes, places): centre x and y, width and height in pixels of the input, then scores in 0..1."""
        logits, corners = flatten(raw, self.classes)
        centres, sizes = (corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]
        return torch.cat((centres, sizes, logits.sigmoid()), dim=2).transpose(1, 2)


def flatten(raw: Sequence[Tensor], classes: int) -> tuple[Tensor, Tensor]:
    """Logits (n, places, classes) and boxes (n, places, 4), xyxy in pixels of the input; both float32, places in level order."""
    logits, corners = [], []
    for level, stride in zip(raw, STRIDES, strict=True):
        flat = level.float().flatten(2).transpose(1, 2)
        logits.append(flat[..., :classes])
        distances = functional.softplus(flat[..., classes:]) * stride
        places = grid(level.shape[2], level.shape[3], stride, level.device)
        corners.append(torch.cat((places - distances[..., :2], places + distances[..., 2:]), dim=2))
    return torch.cat(logits, dim=1), torch.cat(corners, dim=1)


def grid(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """Centres of a level's cells as (x, y) in pixels of the input: float32 (height * width, 2), row by row."""
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * stride
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * stride
    return torch.stack((x.repeat(height), y.repeat_interleave(width)), dim=1)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels, 3)
        self.second = _conv(channels, channels, 3, activation=None)

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(features + self.second(self.first(features)))


class _SharedBranch(nn.Module):
    """Convolutions that all levels share, each followed by a normalisation of the level's own."""

    def __init__(self, plan: NetworkPlan, outputs: int, bias: float) -> None:
        super().__init__()
        size = plan.channels
        self.convolutions = nn.ModuleList(
            nn.Conv2d(size, size, 3, padding=1, bias=False) for _ in range(plan.head_convs)
        )
        self.norms = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(size) for _ in STRIDES) for _ in range(plan.head_convs))
        self.output = nn.Conv2d(size, outputs, 3, padding=1)
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.constant_(self.output.bias, bias)

    def forward(self, features: Tensor, level: int) -> Tensor:
        for convolution, norms in zip(self.convolutions, self.norms, strict=True):
            features = functional.relu(norms[level](convolution(features)))
        return self.output(features)


def _trunk(plan: NetworkPlan) -> nn.ModuleList:
    stages = []
    for before, width, depth in zip((3, *plan.widths), plan.widths, plan.depths, strict=False):
        stages.append(nn.Sequential(_conv(before, width, 3, stride=2), *(_Residual(width) for _ in range(depth))))
    return nn.ModuleList(stages)


def _conv(
    inputs: int, outputs: int, size: int, stride: int = 1, activation: type[nn.Module] | None = nn.ReLU
) -> nn.Module:
    return Conv2dNormActivation(inputs, outputs, size, stride, activation_layer=activation)

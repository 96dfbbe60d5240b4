"""Muon: the momentum of each convolution's weights, made orthogonal, is what they move by.

After Jordan et al., 2024 (https://kellerjordan.github.io/posts/muon/), with the scale of Liu et al., 2025 (arXiv:2502.16982, section 2.2):
updates are as large as AdamW's, so that both take the same learning rate. `torch.optim.Muon` takes matrices alone, one at a time; here
weights of convolutions are matrices of (outputs, inputs x height x width), and those of one shape are orthogonalised together, which a
CPU does several times as fast.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# The quintic of the Newton-Schulz iteration, and how often: singular values end near 1, and need not be exact.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_LEAST_NORM = 1e-7
# The root mean square of AdamW's updates, as it is observed.
_ADAMW_RMS = 0.2


class Muon(Optimizer):
    """For weights of convolutions in the inner layers; biases, normalisations, the first and the last layers want another optimiser.

    `params` are float tensors of two or more dimensions; groups hold `lr`, `momentum` (Nesterov's) and a decoupled `weight_decay`.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 2e-3, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: None = None) -> None:
        """Change the weights by their gradients; those without one stay."""
        assert closure is None, "it is not evaluated"
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            of_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for weight in weights:
                of_shape[tuple(weight.shape)].append(weight)
            for alike in of_shape.values():
                self._move(alike, group)

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        moves = orthogonal(torch.stack([self._momentum(weight, group["momentum"]).flatten(1) for weight in weights]))
        for weight, move in zip(weights, moves, strict=True):
            scale = _ADAMW_RMS * math.sqrt(max(move.shape))
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(move.view(weight.shape), alpha=-group["lr"] * scale)

    def _momentum(self, weight: Tensor, share: float) -> Tensor:
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(weight.grad, 1 - share)
        return weight.grad.lerp(state["momentum"], share)


def orthogonal(matrices: Tensor) -> Tensor:
    """Each of (n, rows, columns) with its singular values replaced by ones, about: they end within 0.7 to 1.2."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_LEAST_NORM)
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if tall else x

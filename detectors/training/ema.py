"""The average over the steps' weights, which detects better than the weights of any one step (Polyak and Juditsky, 1992)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of a network's floating-point weights and statistics; whole numbers are the last ones."""

    def __init__(self, network: nn.Module) -> None:
        self._state = network.state_dict()
        self._average = {name: value.detach().clone() for name, value in self._state.items()}
        floating = [name for name, value in self._state.items() if value.is_floating_point()]
        self._sources = [self._state[name] for name in floating]
        self._targets = [self._average[name] for name in floating]
        self._rest = [name for name in self._state if name not in floating]

    def update(self, decay: float) -> None:
        """Take in the network's present weights with the share 1 - `decay`."""
        with torch.no_grad():
            torch._foreach_lerp_(self._targets, self._sources, 1 - decay)
            for name in self._rest:
                self._average[name].copy_(self._state[name])

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The averages themselves, not a copy, by the names of the network's state."""
        return self._average

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from averages that were kept."""
        with torch.no_grad():
            for name, value in self._average.items():
                value.copy_(weights[name])

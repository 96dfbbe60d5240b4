"""One optimisation step after the other, and the state that makes the next one what it is."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detectors.training.batches import Batch
from detectors.training.device import Device
from detectors.training.ema import WeightAverage
from detectors.training.losses import Targets, detection_loss
from detectors.training.muon import Muon
from detectors.training.recipe import TrainingPlan
from detectors.training.schedule import average_decay, learning_rate


class Optimiser:
    """A network with what changes it: Muon for the convolutions within, AdamW for the rest; gradient clipping, the average of its weights.

    What is random within the network (dropout, say) is a function of the seed and the step's number.
    """

    def __init__(self, network: nn.Module, plan: TrainingPlan, device: Device) -> None:
        self.network = network
        self.average = WeightAverage(network)
        self._plan, self._device = plan, device
        self._optimisers = _optimisers(network, plan)
        self._scaler = torch.amp.GradScaler(device.device.type, enabled=device.precision == "f16")
        self._buffers = list(network.buffers())

    def step(self, number: int, batch: Batch) -> dict[str, float] | None:
        """Learn from a batch as the step of this number (0-based): its losses, learning rate and gradient norm.

        None where the loss or the gradient is not a finite number: then nothing has changed.
        """
        torch.manual_seed(self._plan.seed + number)
        rate = learning_rate(number, self._plan)
        for group in (group for optimiser in self._optimisers for group in optimiser.param_groups):
            group["lr"] = rate
        self.network.train()
        before = [buffer.clone() for buffer in self._buffers]
        losses = self._losses(batch, aligned=number >= self._plan.fixed_first * self._plan.steps)
        norm = self._apply(losses["loss"]) if math.isfinite(losses["loss"].item()) else None
        self.network.zero_grad(set_to_none=True)
        if norm is None:
            # The statistics of its normalisations are from this batch already.
            for buffer, value in zip(self._buffers, before, strict=True):
                buffer.copy_(value)
            return None
        self.average.update(average_decay(number, self._plan))
        return {name: value.item() for name, value in losses.items()} | {"learning_rate": rate, "gradient_norm": norm}

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, on the CPU."""
        return {
            "network": on_cpu(self.network.state_dict()),
            "optimisers": [_moved(optimiser.state_dict()) for optimiser in self._optimisers],
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any], average: Mapping[str, Tensor]) -> None:
        """Go on from what `state` and `average.weights` were."""
        self.network.load_state_dict(state["network"])
        for optimiser, kept in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self._scaler.load_state_dict(state["scaler"])
        self.average.restore(average)

    def _losses(self, batch: Batch, *, aligned: bool) -> dict[str, Tensor]:
        with self._device.autocast():
            raw = self.network(self._device.as_input(batch.pixels))
        where = self._device.device
        targets = [Targets(entry.boxes.to(where), entry.class_ids.to(where)) for entry in batch.targets]
        return detection_loss(raw, targets, aligned=aligned)

    def _apply(self, loss: Tensor) -> float | None:
        """Change the weights; returns the gradient's norm before clipping, None where it is infinite and nothing was changed.

        In half precision an infinite gradient is how the loss's scale is found: the scaler leaves the step out by itself.
        """
        self._scaler.scale(loss).backward()
        for optimiser in self._optimisers:
            self._scaler.unscale_(optimiser)
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), self._plan.gradient_clip))
        scaled = self._scaler.is_enabled()
        if not math.isfinite(norm) and not scaled:
            return None
        for optimiser in self._optimisers:
            self._scaler.step(optimiser)
        self._scaler.update()
        return norm


def on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy on the CPU, in the plain layout."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in weights.items()}


def _optimisers(network: nn.Module, plan: TrainingPlan) -> tuple[torch.optim.Optimizer, ...]:
    """Weights of convolutions decay; biases and normalisations, which have one number for each channel, do not."""
    inner = {id(value) for value in _inner_weights(network)}
    wide = [value for value in network.parameters() if value.ndim > 1]
    outer = [value for value in wide if id(value) not in inner]
    rest = [value for value in network.parameters() if value.ndim <= 1]
    groups = [{"params": outer, "weight_decay": plan.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return (
        Muon([value for value in wide if id(value) in inner], plan.learning_rate, weight_decay=plan.weight_decay),
        torch.optim.AdamW(groups, lr=plan.learning_rate, fused=True),
    )


def _inner_weights(network: nn.Module) -> list[Tensor]:
    """Those of convolutions from features to features: what sees pixels and what says scores and distances is for AdamW."""
    found = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return [module.weight for module in found if module.in_channels > 3 and module.bias is None]


def _moved(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {name: _moved(entry) for name, entry in value.items()}
    return [_moved(entry) for entry in value] if isinstance(value, list | tuple) else value

"""Where a network is trained and how finely, and what makes it the same each time there."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detectors.cores import usable_cores
from detectors.spec import ModelSpec
from detectors.torch_device import choose_placement, offered_precisions
from detectors.torch_environment import fix_workspaces
from detectors.training.network import Network
from detectors.training.recipe import TrainingPlan
from schemas.errors import ConfigurationError

_DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


@dataclass(frozen=True, slots=True)
class Device:
    """A torch device, and the type that convolutions compute in there. Weights are float32 everywhere."""

    device: torch.device
    precision: str
    name: str
    channels_last: bool

    @classmethod
    def choose(cls, plan: TrainingPlan) -> "Device":
        """The device and precision of a plan. Sets torch's threads. Raises ConfigurationError where there is no such thing here."""
        spec = ModelSpec(path="", device=plan.device)
        placement = choose_placement(spec)
        if placement.is_cuda:
            native = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "f16"
        else:
            native = offered_precisions(spec)[-1]
        precision = native if plan.precision == "auto" else plan.precision
        if precision == "f16" and not placement.is_cuda:
            raise ConfigurationError("training.precision f16 needs a CUDA device: on a CPU choose bf16 or f32")
        return cls(placement.device, precision, placement.name, plan.channels_last)

    @property
    def is_cuda(self) -> bool:
        """Whether this is a CUDA device."""
        return bool(self.device.type == "cuda")

    @property
    def spare_workers(self) -> int:
        """Processes that prepare batches, so many that the network is neither starved nor robbed of its cores."""
        cores = usable_cores()
        return max(1, cores - 1) if self.is_cuda else max(1, cores // 4)

    def autocast(self) -> AbstractContextManager[Any]:
        """Within it, convolutions compute in the precision."""
        autocast: AbstractContextManager[Any] = torch.autocast(
            self.device.type, _DTYPES[self.precision], enabled=self.precision != "f32"
        )
        return autocast

    def as_input(self, pixels: Tensor) -> Tensor:
        """Pixels uint8 (n, height, width, 3) as the network's input: float32 (n, 3, height, width), 0..1, on the device."""
        images = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
        # What `permute` gives is channels-last already.
        return images if self.channels_last else images.contiguous()

    def adopt(self, network: Network) -> Network:
        """The network itself, on the device, in the layout that convolutions are fastest in."""
        network.to(self.device, memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)
        return network

    @contextmanager
    def repeatable(self) -> Iterator[None]:
        """Within it, the same steps give the same bits on the same device. Denormal numbers are zero, which is faster, too."""
        before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
        fix_workspaces()
        torch.use_deterministic_algorithms(mode=True)
        # It is meant to find bugs, and costs time at every allocation.
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)
            torch.use_deterministic_algorithms(mode=before[0])
            torch.utils.deterministic.fill_uninitialized_memory = before[1]

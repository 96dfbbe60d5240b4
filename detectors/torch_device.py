"""Where torch computes and how finely: the device, the precision, and the threads that a process gives to it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from detectors.cores import usable_cores
from detectors.metrics import GPU_OOM
from detectors.processor import processor_name
from detectors.spec import ModelSpec
from schemas.errors import ConfigurationError

log = logging.getLogger(__name__)

_PRECISIONS = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}

_BF16_CAPABILITIES = {"amx_bf16", "avx512_bf16"}


@dataclass(frozen=True, slots=True)
class Placement:
    """A device and the type that networks compute in on it. `name`: the device's own."""

    device: Any
    dtype: Any
    name: str

    @property
    def is_cuda(self) -> bool:
        """Whether work is launched there and waited for, rather than done when a call returns."""
        return bool(self.device.type == "cuda")

    @property
    def place(self) -> str:
        """torch, its version, the device and what a processor can do: what a measurement holds for."""
        device = self.name if self.is_cuda else f"{processor_name()} {' '.join(sorted(_cpu_capabilities()))}"
        return f"torch {torch.__version__} on {device}"

    @property
    def precision(self) -> str:
        """`f32`, `bf16` or `f16`."""
        return next(name for name, dtype in _PRECISIONS.items() if dtype == self.dtype)

    def find_stream(self) -> int:
        """The handle of the stream that work is put on now; 0, the default one, where there are none."""
        return int(torch.cuda.current_stream(self.device).cuda_stream) if self.is_cuda else 0

    def relieve(self) -> None:
        """What helps after memory ran out: count it, and give back what torch keeps for itself."""
        GPU_OOM.labels(device=self.name).inc()
        if self.is_cuda:
            torch.cuda.empty_cache()

    def adopt(self, network: Any) -> Any:
        """The network itself, for inference, on the device, its weights in this type and in the layout that convolutions are fastest in."""
        adopted = network.to(self.device, self.dtype, memory_format=torch.channels_last).eval()
        return adopted.requires_grad_(requires_grad=False)


def choose_placement(spec: ModelSpec) -> Placement:
    """The device and precision that `spec` asks for, tried out. Sets torch's threads, and on CUDA switches TF32 off for `f32`.

    The device `auto` is the first CUDA device, else the CPU. The precision `auto` is f32 here: whoever measures says what it chose.
    Raises ConfigurationError where torch has no such device here, or no such precision on it.
    """
    device, name = _choose_device(spec.device)
    dtype = _choose_dtype(spec.precision, device)
    torch.set_num_threads(_count_threads(device.type))
    if device.type == "cuda" and dtype == torch.float32:
        # cuDNN rounds to 10 bits of mantissa otherwise, and f32 is to find the same boxes on every machine. Holds for the process.
        torch.backends.cudnn.allow_tf32 = False
    return Placement(device, dtype, name)


def _count_threads(device_type: str) -> int:
    """Threads for one torch operation.

    On a CPU, all cores that this process may use: decoders beside it have the gaps, and threads that wait for one another sleep (see
    `detectors.torch_environment`). Beside a GPU one is enough, as what is left to the CPU are small arrays.
    """
    return 1 if device_type == "cuda" else usable_cores()


def offered_precisions(spec: ModelSpec) -> tuple[str, ...]:
    """What the device of `spec` computes in without emulating it, f32 first: what a measurement may choose from."""
    device, _ = _choose_device(spec.device)
    if device.type == "cuda":
        return ("f32", "f16")
    return ("f32", "bf16") if _cpu_capabilities() & _BF16_CAPABILITIES else ("f32",)


def compile_network(call: Callable[[Any], Any], compiler: str | None) -> Callable[[Any], Any]:
    """`call` through `torch.compile` with a backend of that name, or as it is for None. Each shape is compiled when it is first seen."""
    compiled: Callable[[Any], Any] = torch.compile(call, backend=compiler, dynamic=False) if compiler else call
    return compiled


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch had no memory left on a device."""
    return isinstance(error, torch.OutOfMemoryError)


def _cpu_capabilities() -> set[str]:
    return {name for name, able in torch.cpu.get_capabilities().items() if able is True}


def _choose_device(wanted: str) -> tuple[Any, str]:
    chosen = wanted.lower()
    if chosen == "auto":
        chosen = "cuda:0" if torch.cuda.is_available() else "cpu"
        log.info("device auto: %s, as torch %s a CUDA device", chosen, "sees" if chosen != "cpu" else "does not see")
    try:
        device = torch.device(chosen)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"torch has no device {wanted} here: {error}") from error
    return device, str(torch.cuda.get_device_name(device) if device.type == "cuda" else device)


def _choose_dtype(precision: str, device: Any) -> Any:
    if precision == "auto":
        return torch.float32
    if precision not in _PRECISIONS:
        raise ConfigurationError(f"torch models run as {', '.join(_PRECISIONS)} or auto, not as {precision}")
    if precision == "f16" and device.type == "cpu":
        raise ConfigurationError("f16 is for GPUs; on a CPU choose f32, bf16 or auto")
    return _PRECISIONS[precision]

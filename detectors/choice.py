"""Which backend runs a model: by the file, the device, what is asked for and what is installed. Imports none of them."""

import ctypes
import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass

from detectors.spec import ModelSpec
from schemas.errors import ConfigurationError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Backend:
    """`package`: what must be installed. `extra`: what brings it; "" where the base installation does. `devices`: how names may begin."""

    package: str
    extra: str
    suffixes: tuple[str, ...]
    devices: tuple[str, ...]

    def drives(self, device: str) -> bool:
        return device == "auto" or device.lower().startswith(self.devices)


# The build of ONNX Runtime that has CUDA; `import onnxruntime` serves both.
_CUDA_BUILD = "onnxruntime-gpu"

# In the order of preference: for an ONNX file the first that can is the fastest, unless it is left with the CPU where another has a GPU.
_BACKENDS = {
    "tensorrt": _Backend("tensorrt", "tensorrt", (".onnx", ".engine"), ("cuda",)),
    "openvino": _Backend("openvino", "", (".onnx", ".xml"), ("cpu", "gpu", "npu")),
    "onnxruntime": _Backend("onnxruntime", "onnxruntime", (".onnx",), ("cpu", "cuda")),
    "ultralytics": _Backend("ultralytics", "ultralytics", (".pt",), ("cpu", "cuda", "mps", "xpu")),
    "torchvision": _Backend("torchvision", "torch", (".pth",), ("cpu", "cuda", "mps", "xpu")),
}


def is_installed(package: str) -> bool:
    """Whether a package could be imported, which it is not, or a distribution of that name is there."""
    if importlib.util.find_spec(package):
        return True
    return any(importlib.metadata.distributions(name=package))


def sees_cuda() -> bool:
    """Whether NVIDIA's driver is there and finds a device; asks the driver itself, as torch takes seconds to import."""
    try:
        return bool(ctypes.CDLL("libcuda.so.1").cuInit(0) == 0)
    except OSError:
        return False


def check_decode_device(name: str, cuda: Callable[[], bool] | None = None) -> None:
    """Raise ConfigurationError where `images.decode_on` names a CUDA device and the machine has none: known before anything is opened."""
    if name.startswith("cuda") and not (cuda or sees_cuda)():
        raise ConfigurationError(f"images.decode_on: there is no {name}, as no CUDA device is seen here; choose host")


def find_backends(
    spec: ModelSpec, installed: Callable[[str], bool] = is_installed, cuda: Callable[[], bool] = sees_cuda
) -> list[str]:
    """Every backend that reads the file, drives the device and is here, by preference; empty for a stand-in."""
    suffix = spec.file.suffix.lower()
    fit = {name: backend for name, backend in _BACKENDS.items() if suffix in backend.suffixes}
    readers = [name for name, backend in fit.items() if backend.drives(spec.device)]
    return [name for name in readers if installed(_BACKENDS[name].package) and (name != "tensorrt" or cuda())]


def choose_backend(
    spec: ModelSpec,
    installed: Callable[[str], bool] = is_installed,
    cuda: Callable[[], bool] = sees_cuda,
) -> str:
    """The backend for `spec`; `auto` says which and why.

    Raises ConfigurationError where none reads the file, drives the device or is installed, and for a wish that cannot be met.
    """
    suffix = spec.file.suffix.lower()
    fit = {name: backend for name, backend in _BACKENDS.items() if suffix in backend.suffixes}
    if not fit:
        known = ", ".join(sorted({suffix for backend in _BACKENDS.values() for suffix in backend.suffixes}))
        raise ConfigurationError(f"no backend for the model {spec.path!r}; known are {known}, codes, fake and noop")
    if spec.backend != "auto":
        return _check_wish(spec, suffix, installed)
    rejected: list[str] = []
    prefers_onnxruntime = "onnxruntime" in fit and spec.device == "auto" and installed(_CUDA_BUILD) and cuda()
    for name, backend in fit.items():
        if name == "openvino" and prefers_onnxruntime:
            rejected.append("openvino would run on the CPU, and onnxruntime has CUDA")
        elif not backend.drives(spec.device):
            rejected.append(f"{name} does not drive {spec.device}")
        elif not installed(backend.package):
            rejected.append(f"{name} is not installed ({_remedy(backend)})")
        elif name == "tensorrt" and not cuda():
            rejected.append("tensorrt sees no CUDA device")
        else:
            why = "; ".join([f"it reads {suffix}", *rejected])
            log.info("backend auto: %s, as %s", name, why)
            return name
    raise ConfigurationError(f"no backend runs {spec.path} on device {spec.device}: {'; '.join(rejected)}")


def _check_wish(spec: ModelSpec, suffix: str, installed: Callable[[str], bool]) -> str:
    backend = _BACKENDS.get(spec.backend)
    if backend is None:
        raise ConfigurationError(f"backend {spec.backend} is unknown; choose one of auto, {', '.join(_BACKENDS)}")
    if suffix not in backend.suffixes:
        readers = ", ".join(name for name, other in _BACKENDS.items() if suffix in other.suffixes)
        takes = " and ".join(backend.suffixes)
        raise ConfigurationError(
            f"backend {spec.backend} reads {takes}, not {suffix}, which is for {readers}; choose that, or auto, "
            f"or convert the model: sightstream models export"
        )
    if not backend.drives(spec.device):
        names = ", ".join(backend.devices)
        raise ConfigurationError(f"backend {spec.backend} has no device {spec.device}; its devices are: auto, {names}")
    if not installed(backend.package):
        raise ConfigurationError(f"backend {spec.backend} needs the package {backend.package}: {_remedy(backend)}")
    return spec.backend


def _remedy(backend: _Backend) -> str:
    return f"pip install 'sightstream[{backend.extra}]'" if backend.extra else f"pip install {backend.package}"

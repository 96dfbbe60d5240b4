"""Models read and compiled by OpenVINO: which device, which precision, and what a file must be."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.cores import usable_cores
from detectors.openvino_library import ov
from detectors.spec import ModelFile
from detectors.yolo_onnx import Signature
from schemas.errors import ConfigurationError

_TYPES = {"f32": ov.Type.f32, "f16": ov.Type.f16, "bf16": ov.Type.bf16}
_CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
# What may lie between a constant and where it is used.
_PASSING = {"Convert", "Reshape", "Unsqueeze"}
_QUANTISED = {"FakeQuantize", "QuantizeLinear", "DequantizeLinear"}


def read_network(core: Any, file: ModelFile) -> Any:
    """Parse an ONNX file, or an IR with its weights. Raises ConfigurationError if it is neither."""
    try:
        return core.read_model(file.content, file.weights) if file.weights else core.read_model(file.content)
    except RuntimeError as error:
        raise ConfigurationError(
            f"{file.path} is not an ONNX model or IR that OpenVINO reads: {_reason(error)}"
        ) from error


def read_signature(network: Any) -> Signature:
    """What the file says of its input, its output and itself."""
    images, output = (_shape(port.partial_shape) for port in (network.input(0), network.output(0)))
    return Signature(images, output, _read_metadata(network))


def is_quantised(network: Any) -> bool:
    """Whether 8-bit integers are part of the model, so that no setting changes that."""
    return any(node.get_type_name() in _QUANTISED for node in network.get_ops())


def choose_device(core: Any, wanted: str) -> tuple[str, str]:
    """OpenVINO's name for the device and why it was chosen; `auto` prefers a discrete GPU.

    Raises ConfigurationError if it is not there.
    """
    available = list(core.available_devices)
    if wanted != "auto":
        if wanted.split(".", maxsplit=1)[0].upper() not in {name.split(".")[0] for name in available}:
            raise ConfigurationError(f"OpenVINO has no device {wanted} here; it has {', '.join(available)}")
        return wanted.upper(), "it is asked for"
    discrete = [name for name in available if name.startswith("GPU") and _is_discrete(core, name)]
    chosen = discrete[0] if discrete else "CPU"
    why = "a discrete GPU is there" if discrete else f"no discrete GPU among {', '.join(available)}"
    return chosen, why


def float_precisions(core: Any, device: str) -> tuple[str, ...]:
    """The float precisions that the device computes in, f32 first."""
    offered = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    return tuple(name for name, capability in _CAPABILITIES.items() if name == "f32" or capability in offered)


def compile_network(
    core: Any, network: Any, device: str, settings: Mapping[str, Any], canvas: tuple[int, int] | None = None
) -> Any:
    """Compile for canvases as they lie in memory, RGB bytes (n, height, width, 3), or for one image of the size of `canvas` alone.

    Raises ConfigurationError where it cannot.
    """
    try:
        fed = _with_preprocessing(network.clone())
        if canvas:
            fed.reshape([1, canvas[1], canvas[0], 3])
        return core.compile_model(fed, device, dict(settings))
    except RuntimeError as error:
        raise ConfigurationError(f"OpenVINO cannot compile the model for {device}: {_reason(error)}") from error


def precision_settings(wanted: str, offered: tuple[str, ...]) -> Mapping[str, Any]:
    """Settings for a precision; `auto` is f32, and `int8` leaves what is not quantised to bf16 where the device offers that."""
    name = "f32" if wanted == "auto" else wanted
    if name == "int8":
        name = "bf16" if "bf16" in offered else "f32"
    if name not in _TYPES:
        raise ConfigurationError(f"precision {wanted} is unknown; choose one of auto, {', '.join(_TYPES)}, int8")
    if name not in offered:
        raise ConfigurationError(f"the device does not compute in {name}, but in {', '.join(offered)}; choose auto")
    return {"INFERENCE_PRECISION_HINT": _TYPES[name]}


def round_biases(network: Any) -> None:
    """Round what is added to convolutions to bf16, in place.

    OpenVINO does that to a graph that is compiled for one size, and not to one for any size: so both find the same.
    """
    for node in network.get_ordered_ops():
        if node.get_type_name() == "Add" and node.input_value(0).get_node().get_type_name() == "Convolution":
            port = node.input(1)
            while (source := port.get_source_output().get_node()).get_type_name() in _PASSING:
                port = source.input(0)
            if source.get_type_name() == "Constant" and source.get_element_type().is_real():
                port.replace_source_output(ov.opset13.constant(_round_to_bf16(source.data)).output(0))


def thread_settings(device: str) -> Mapping[str, Any]:
    """On a CPU, no more threads than a container's quota has time for, which OpenVINO does not look at; else it knows best itself."""
    cores = usable_cores()
    bounded = device.startswith("CPU") and cores < len(os.sched_getaffinity(0))
    return {"INFERENCE_NUM_THREADS": cores} if bounded else {}


def _shape(shape: Any) -> tuple[int | None, ...]:
    return tuple(None if side.is_dynamic else int(side.get_length()) for side in shape)


def _read_metadata(network: Any) -> Mapping[str, str]:
    """OpenVINO's ONNX reader keeps `metadata_props` under `framework`, and an IR made of it keeps that."""
    if not network.has_rt_info(["framework"]):
        return {}
    return {str(key): str(value) for key, value in network.get_rt_info(["framework"]).value.items()}


def _with_preprocessing(network: Any) -> Any:
    """The graph turns bytes into planes of 0..1, off Python's lock."""
    steps = ov.preprocess.PrePostProcessor(network)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    steps.input().model().set_layout(ov.Layout("NCHW"))
    steps.output(0).tensor().set_element_type(ov.Type.f32)
    return steps.build()


def _round_to_bf16(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """To the nearest number of 8 significant bits, of two to the even one; in the type that it came in."""
    bits = values.astype(np.float32).view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(values.dtype)


def _is_discrete(core: Any, device: str) -> bool:
    return "discrete" in str(core.get_property(device, "DEVICE_TYPE")).lower()


def _reason(error: Exception) -> str:
    """The line for people: those before it say where in the library's source something was checked."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)

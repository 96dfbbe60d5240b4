"""OpenVINO IR: from ONNX, and with most of the network in 8-bit integers."""

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.base import Image
from detectors.boxes import Letterbox
from detectors.export_graph import Graph, decoding_part
from detectors.openvino_graph import is_quantised, read_network, read_signature
from detectors.openvino_library import no_telemetry, ov
from detectors.spec import ModelSpec, read_model
from detectors.yolo_onnx import Head, read_head
from schemas.errors import ConfigurationError

_CONVOLUTIONS = {"Convolution", "GroupConvolution"}
# What NNCF never quantises and does not know by name.
_NOT_OPERATIONS = {"Constant", "Result", "Parameter"}


def write_ir(source: Path, out: Path, *, half: bool = False) -> None:
    """Write `out` (`.xml`) and the `.bin` beside it; `half` keeps weights in float16. Labels, stride and size stay with the model.

    Raises ConfigurationError where `source` is not a model that the OpenVINO backend runs.
    """
    network, _ = _read(source)
    ov.save_model(network, out, compress_to_fp16=half)


def read_canvas(source: Path) -> Head:
    """How to feed the model: what images for calibration are letterboxed to. Raises as `write_ir` does."""
    return _read(source)[1]


def letterbox(image: Image, head: Head) -> NDArray[np.uint8]:
    """The canvas, (height, width, 3), that a backend would give to the network for this image."""
    return Letterbox.fit((image.width, image.height), head.canvas, head.stride).apply(image.pixels)


def write_int8(source: Path, out: Path, canvases: Sequence[NDArray[np.uint8]]) -> None:
    """Quantise after training and write IR: weights and activations in 8 bits, their ranges as seen on `canvases`.

    The decoding part stays in float. Raises ConfigurationError without the extra, or where `source` is not fit.
    """
    network, _ = _read(source)
    if is_quantised(network):
        raise ConfigurationError(f"{source} is quantised already: export the model that it was made of")
    nncf = _import_nncf()
    part = [
        name for name, node in decoding_part(_graph_of(network)).items() if node.get_type_name() not in _NOT_OPERATIONS
    ]
    # Its progress bars go to stdout, which is for results.
    with contextlib.redirect_stdout(sys.stderr):
        quantised = nncf.quantize(
            network,
            nncf.Dataset(canvases, _as_network_input),
            subset_size=len(canvases),
            # Symmetric weights, asymmetric activations: SiLU's outputs are mostly positive.
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=part, validate=False),
        )
    ov.save_model(quantised, out, compress_to_fp16=False)


def _as_network_input(canvas: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Planes of 0..1, as the compiled graph's own preprocessing makes them."""
    planes: NDArray[np.float32] = np.ascontiguousarray(canvas.transpose(2, 0, 1)[np.newaxis], np.float32) / np.float32(
        255
    )
    return planes


def _read(source: Path) -> tuple[Any, Head]:
    spec = ModelSpec(path=str(source))
    network = read_network(ov.Core(), read_model(spec))
    signature = read_signature(network)
    head = read_head(signature, source, spec)
    if "names" not in signature.metadata:
        # They lie in a file beside the source, which goes by the source's name.
        network.set_rt_info(str(dict(enumerate(head.labels))), ["framework", "names"])
    return network, head


def _graph_of(network: Any) -> Graph[Any]:
    def sources(node: Any) -> Iterable[Any]:
        return [port.get_source_output().get_node() for port in node.inputs()]

    def filters(node: Any) -> int | None:
        if node.get_type_name() not in _CONVOLUTIONS:
            return None
        return int(node.get_output_partial_shape(0)[1].get_length())

    return Graph(
        outputs=tuple(network.get_results()),
        sources=sources,
        name=lambda node: str(node.get_friendly_name()),
        filters=filters,
        reads_shape=lambda node: node.get_type_name() == "ShapeOf",
    )


def _import_nncf() -> Any:
    try:
        with no_telemetry():
            nncf = importlib.import_module("nncf")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"int8 needs {error.name}, which is not installed: pip install 'sightstream[export]'"
        ) from error
    nncf.set_log_level(logging.ERROR)
    return nncf

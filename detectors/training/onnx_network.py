"""A trained network as an ONNX file with the head that the engine reads: YOLOv8's layout, decoding included, every side free."""

import importlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from detectors.training.network import STRIDES, Network
from detectors.training.onnx_weights import fold_norms, store_halves
from schemas.errors import ConfigurationError

# The newest that OpenVINO 2026, ONNX Runtime 1.31 and TensorRT 10 all read without a word.
_OPSET = 17
# Two images, not square: what is free must not look fixed to the exporter.
_EXAMPLE = (2, 3, 96, 64)


def write_onnx(network: Network, out: Path, metadata: Mapping[str, str]) -> None:
    """Write `out`: input `images`, float32 (n, 3, height, width) of 0..1, to `output0`, float32 (n, 4 + classes, places).

    Sides are multiples of the network's stride. Weights are kept in float16 and cast where they are used, so that a backend computes in
    what it likes; normalisations are folded into them, but where several share one convolution. The same network gives the same bytes.
    Raises ConfigurationError without the extra.
    """
    onnx, slim = _import("onnx"), _import("onnxslim").slim
    # Tidied up, but without its own folding, which writes shared weights out once for each of their normalisations.
    model = slim(onnx.load_from_string(_trace(network)), skip_fusion_patterns=["FusionConvBN"])
    fold_norms(onnx, model.graph)
    store_halves(onnx, model.graph)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4 + network.classes
    model.producer_name, model.producer_version = "sightstream", ""
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    out.write_bytes(model.SerializeToString(deterministic=True))


def set_metadata(path: Path, entries: Mapping[str, str]) -> None:
    """Add to what a file says of itself, or change it."""
    onnx = _import("onnx")
    model = onnx.load(path)
    said = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {**said, **entries})
    path.write_bytes(model.SerializeToString(deterministic=True))


class _Decoded(nn.Module):
    """`Network.decode` in operators that need no shapes: an exporter writes those as graphs of their own, larger than the decoding."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        levels = zip(self.network(images), STRIDES, strict=True)
        return torch.cat([self._decode(level, stride) for level, stride in levels], dim=2)

    def _decode(self, level: Tensor, stride: int) -> Tensor:
        classes = self.network.classes
        ones = torch.ones_like(level[:, :1])
        centres = torch.cat((ones.cumsum(3), ones.cumsum(2)), dim=1) - 0.5
        distances = functional.softplus(level[:, classes:])
        near, far = centres - distances[:, :2], centres + distances[:, 2:]
        boxes = ((near + far) * (stride / 2), (far - near) * stride)
        return torch.cat((*boxes, level[:, :classes].sigmoid()), dim=1).flatten(2)


def _trace(network: Network) -> bytes:
    """The exporter's own file. Not that of `dynamo=True`: it takes ten times as long, and writes a softplus as four nodes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Decoded(network).eval(),
            (torch.zeros(_EXAMPLE),),
            buffer,
            dynamo=False,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=["output0"],
            dynamic_axes={"images": {0: "batch", 2: "height", 3: "width"}, "output0": {0: "batch", 2: "places"}},
            # In evaluation mode it would fold normalisations, into copies of shared weights too.
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    return buffer.getvalue()


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"packaging needs {error.name}, which is not installed: pip install 'sightstream[training]'"
        ) from error

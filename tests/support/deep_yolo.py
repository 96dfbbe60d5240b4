"""A network with something to quantise: a YOLOv8 head's output behind convolutions with random weights."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.models import LABELS

_CHANNELS = 16


def write_deep_yolo(path: Path, *, labelled: bool = True, seed: int = 0) -> Path:
    """Three convolutions and a resize on a dynamic input, then the head of `write_tiny_yolo`; boxes that mean nothing."""
    rng = np.random.default_rng(seed)
    rows = 4 + len(LABELS)
    weights = {
        "first": rng.normal(0, 0.7, (_CHANNELS, 3, 3, 3)),
        "second": rng.normal(0, 0.15, (_CHANNELS, _CHANNELS, 3, 3)),
        "last": rng.normal(0, 1.5, (rows, _CHANNELS, 1, 1)),
        "spread": np.array([320, 320, 120, 120, *[1] * len(LABELS)]).reshape(1, rows, 1),
        "scales": np.array([1, 1, 0.5, 0.5]),
    }
    nodes = [
        helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Conv", ["cells", "first"], ["a"], "stem", pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["a"], ["gate"]),
        helper.make_node("Mul", ["a", "gate"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], "body", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Resize", ["d", "", "scales"], ["e"], mode="nearest"),
        helper.make_node("Conv", ["e", "last"], ["f"], "head"),
        helper.make_node("Reshape", ["f", "shape"], ["flat"]),
        helper.make_node("Sigmoid", ["flat"], ["shares"]),
        helper.make_node("Mul", ["shares", "spread"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", rows, "anchors"])],
        [
            *(numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()),
            numpy_helper.from_array(np.array([0, rows, -1], np.int64), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if labelled:
        helper.set_model_props(model, {"names": str(dict(enumerate(LABELS))), "stride": "32", "imgsz": "[320, 256]"})
    onnx.save(model, path)
    return path

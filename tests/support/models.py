"""Models for tests: YOLOv8n where the shared data is, and a tiny network of the same interface anywhere."""

import fcntl
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from detectors.export_checkpoint import export_checkpoint
from detectors.openvino_library import ov
from tests.support.data import shared_dir

LABELS = ("person", "bicycle", "car", "dog")


def coco_checkpoint() -> Path | None:
    """The YOLOv8n checkpoint of the shared data, or None where there is none."""
    shared = shared_dir()
    path = shared / "models" / "yolov8n-coco.pt" if shared else None
    return path if path and path.is_file() else None


@pytest.fixture(scope="session")
def yolo_onnx(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX model with a YOLOv8 head and dynamic shapes: YOLOv8n of COCO if the shared data is there, else a tiny one.

    Made once per run, by whichever xdist worker comes first.
    """
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if hasattr(pytestconfig, "workerinput") else base) / "models"
    directory.mkdir(exist_ok=True)
    made = directory / "yolo.onnx"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            checkpoint = coco_checkpoint()
            fresh = (
                write_tiny_yolo(directory / "tiny.onnx")
                if checkpoint is None
                else export_checkpoint(checkpoint, directory)
            )
            fresh.replace(made)
    return made


def export(checkpoint: Path, directory: Path) -> Path:
    """Export a checkpoint to ONNX in `directory`, as `sightstream models export` does; this process stays free of torch."""
    return export_checkpoint(checkpoint, directory)


def write_tiny_yolo(
    path: Path, size: tuple[int, int] | None = None, *, labels: tuple[str, ...] | None = LABELS, batch: int = 1
) -> Path:
    """A network of two layers with a YOLOv8 head's output: one anchor for each 32 pixels square, boxes that mean nothing.

    `size`: (height, width) of a fixed input of a fixed `batch`, None for a dynamic one; `labels`: None leaves the metadata away.
    """
    rows = 4 + len(labels or LABELS)
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 4, (rows, 3, 1, 1)).astype(np.float32)
    spread = np.array([320, 320, 120, 120, *[1] * (rows - 4)], np.float32).reshape(1, rows, 1)
    nodes = [
        helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[32, 32], strides=[32, 32]),
        helper.make_node("Conv", ["cells", "weights"], ["mixed"]),
        helper.make_node("Reshape", ["mixed", "shape"], ["flat"]),
        helper.make_node("Sigmoid", ["flat"], ["shares"]),
        helper.make_node("Mul", ["shares", "spread"], ["output0"]),
    ]
    count, (height, width) = (batch, size) if size else ("batch", ("height", "width"))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [count, 3, height, width])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [count, rows, "anchors"])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(spread, "spread"),
            numpy_helper.from_array(np.array([0, rows, -1], np.int64), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if labels is not None:
        names = dict(enumerate(labels))
        helper.set_model_props(model, {"names": str(names), "stride": "32", "imgsz": "[320, 320]"})
    onnx.save(model, path)
    return path


def write_ir(model: Path) -> Path:
    """An ONNX model as OpenVINO IR, `.xml` with its `.bin`, beside it; weights stay in float32, and the metadata travels along."""
    path = model.with_suffix(".xml")
    ov.save_model(ov.Core().read_model(model), path, compress_to_fp16=False)
    return path


def quantise(model: Path) -> Path:
    """The tiny network with what goes into its convolution in 8 bits, as QDQ, in place of what `model` was."""
    proto = onnx.load(model)
    constants = {"scale": np.float32(1 / 255), "zero": np.uint8(0)}
    proto.graph.initializer.extend(numpy_helper.from_array(np.array(value), name) for name, value in constants.items())
    proto.graph.node[1].input[0] = "cells.float"
    proto.graph.node.insert(1, helper.make_node("QuantizeLinear", ["cells", *constants], ["cells.int8"]))
    proto.graph.node.insert(2, helper.make_node("DequantizeLinear", ["cells.int8", *constants], ["cells.float"]))
    onnx.save(proto, model)
    return model

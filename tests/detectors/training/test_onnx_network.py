"""A trained network as an ONNX file."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from detectors.export_onnx import widen_weights, write_half
from detectors.openvino_library import ov
from detectors.training.network import Network, NetworkPlan
from detectors.training.onnx_network import set_metadata, write_onnx

PLAN = NetworkPlan((8, 8, 16, 16, 16), (0, 1, 0, 1, 0), 16, 2)
METADATA = {"names": "{0: 'a', 1: 'b', 2: 'c'}", "stride": "32", "confidence": "0.4"}
SHAPES = ((1, 3, 64, 64), (2, 3, 160, 96), (3, 3, 32, 224))


@pytest.fixture(scope="module")
def network() -> Network:
    """Random weights, and normalisations that do something."""
    torch.manual_seed(0)
    made = Network(3, PLAN)
    made.eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    nn.init.zeros_(made.score_branch.output.bias)
    return made


@pytest.fixture(scope="module")
def file(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    write_onnx(network, path, METADATA)
    return path


def expect(network: Network, images: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        decoded: NDArray[np.float32] = network.decode(network(torch.from_numpy(images))).numpy()
    return decoded


def pictures(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).random(shape, np.float32)


def near(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
    """Boxes to a fiftieth of a pixel and scores to a thousandth: weights in float16 are rounded to eleven bits."""
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found[:, :4], wanted[:, :4], atol=0.02)
    np.testing.assert_allclose(found[:, 4:], wanted[:, 4:], atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_libraries_give_what_the_network_gives_for_any_batch_and_canvas(
    network: Network, file: Path, shape: tuple[int, ...]
) -> None:
    images = pictures(shape)
    wanted = expect(network, images)
    (found,) = ort.InferenceSession(file).run(["output0"], {"images": images})
    near(np.asarray(found), wanted)
    compiled = ov.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    near(compiled(images)[0], wanted)


def test_weights_are_kept_in_float16_once_and_fold_away_when_the_file_is_loaded(
    network: Network, file: Path, tmp_path: Path
) -> None:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    graph = onnx.load(file).graph
    stored = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16]
    assert sum(int(np.prod(tensor.dims)) for tensor in stored) <= parameters
    operators = Counter(node.op_type for node in graph.node)
    assert not operators.keys() & {"Identity", "Constant", "Where"}
    # Those of the head's shared convolutions: two branches of two, on three levels.
    assert operators["BatchNormalization"] == 12
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(file, options)
    left = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert not left & {"Cast", "BatchNormalization"}
    compiled = ov.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).get_runtime_model()
    kinds = {str(node.get_rt_info()["layerType"]) for node in compiled.get_ops()}
    assert not [kind for kind in kinds if "Convert" in kind or "Norm" in kind]


def test_the_same_network_gives_the_same_bytes(network: Network, file: Path, tmp_path: Path) -> None:
    write_onnx(network, tmp_path / "again.onnx", METADATA)
    assert (tmp_path / "again.onnx").read_bytes() == file.read_bytes()


def test_what_the_file_says_can_be_added_to(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.onnx"
    path.write_bytes(file.read_bytes())
    set_metadata(path, {"confidence": "0.7", "licence": "Apache-2.0"})
    said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert said == METADATA | {"confidence": "0.7", "licence": "Apache-2.0"}


def test_weights_widen_and_halve_for_backends_that_want_them_so(network: Network, file: Path, tmp_path: Path) -> None:
    images = pictures(SHAPES[1])
    wide = widen_weights(file.read_bytes())
    assert not [tensor for tensor in onnx.load_from_string(wide).graph.initializer if tensor.data_type == 10]
    near(np.asarray(ort.InferenceSession(wide).run(None, {"images": images})[0]), expect(network, images))
    assert widen_weights(wide) is wide
    write_half(file, tmp_path / "half.onnx")
    (found,) = ort.InferenceSession(tmp_path / "half.onnx").run(None, {"images": images})
    np.testing.assert_allclose(np.asarray(found), expect(network, images), atol=0.5)

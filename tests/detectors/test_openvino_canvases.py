"""Graphs of single canvases: made for what comes often, never for more than so many, and none finds anything else than the common one."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from detectors.base import Image
from detectors.openvino import OpenVinoDetector, load, precisions
from detectors.openvino_canvases import MOST, Canvas, Graphs, Lane
from detectors.openvino_graph import round_biases
from detectors.openvino_library import ov
from detectors.spec import ModelSpec
from schemas.records import DetectParameters
from tests.support.images import photograph
from tests.support.models import write_tiny_yolo

ANYTHING = DetectParameters(confidence=0.01)
WIDE, TALL, SQUARE = (64, 32), (32, 64), (64, 64)


@dataclass(eq=False)
class Graph:
    """Stands for a compiled graph; its requests say whose they are."""

    canvas: Canvas | None
    requests: list[object] = field(default_factory=list)

    def create_infer_request(self) -> object:
        self.requests.append(object())
        return self.requests[-1]


def graphs(often: int, most: int) -> Graphs:
    return Graphs(Graph, often, most)


def come(given: Graphs, canvas: Canvas, times: int) -> None:
    for _ in range(times):
        given.note(canvas)


def test_a_canvas_that_comes_often_gets_a_graph_of_its_own() -> None:
    given = graphs(often=3, most=2)
    come(given, WIDE, 2)
    come(given, TALL, 3)
    given._builder.shutdown()
    assert list(given.own) == [TALL]
    assert given.own[TALL].canvas == TALL


def test_there_are_no_more_of_them_than_so_many() -> None:
    given = graphs(often=1, most=2)
    for canvas in (WIDE, WIDE, TALL, SQUARE):
        come(given, canvas, 1)
    given._builder.shutdown()
    assert list(given.own) == [WIDE, TALL]


def test_where_compiling_fails_the_common_graph_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def compile_for(canvas: Canvas | None) -> Graph:
        if canvas:
            raise RuntimeError("no memory")
        return Graph(None)

    given = Graphs(compile_for, often=1, most=2)
    with caplog.at_level(logging.WARNING):
        come(given, WIDE, 1)
        given._builder.shutdown()
    assert not given.own
    assert "no graph of its own for the canvas 64x32: no memory" in caplog.text


def test_a_lane_takes_requests_in_turn_and_of_the_graph_that_fits() -> None:
    given = graphs(often=10, most=1)
    lane = Lane(given, 2)
    assert [lane.request(WIDE) for _ in range(3)] == [given.common.requests[at] for at in (1, 0, 1)]
    given.own[WIDE] = Graph(WIDE)
    taken = [lane.request(WIDE) for _ in range(4)]
    assert set(taken) == set(given.own[WIDE].requests)
    assert taken[:2] == taken[2:]
    assert lane.request(TALL) in given.common.requests
    given.close()


@pytest.fixture(params=["f32", "bf16"])
def detector(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenVinoDetector]:
    """The tiny network; in bf16, too, where the device has it."""
    spec = ModelSpec(path=str(write_tiny_yolo(tmp_path / "tiny.onnx")), precision=request.param)
    made = load(spec if request.param in precisions(spec) else ModelSpec(path=spec.path, precision="f32"))
    yield made
    made.close()


def test_a_graph_of_its_own_finds_the_same(detector: OpenVinoDetector) -> None:
    sizes = [(200, 120), (120, 200), (320, 320)] * 3
    images = [Image(np.asarray(photograph(seed, *size))) for seed, size in enumerate(sizes)]
    before = detector.detect(images, [ANYTHING] * len(images))
    for each in detector._graphs:
        for canvas in ((320, 192), (320, 320)):
            each._builder.submit(each._compile, canvas).result()
    after = detector.detect(images, [ANYTHING] * len(images))
    with detector._lane(len(images)) as one, detector._lane(len(images)) as other:
        assert {(320, 192), (320, 320)} <= one._rings.keys() | other._rings.keys()
    for name in ("offsets", "xyxy", "scores", "class_ids"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


def test_images_of_several_canvases_keep_their_order(detector: OpenVinoDetector) -> None:
    images = [Image(np.asarray(photograph(1, *size))) for size in ((320, 320), (60, 320), (320, 60), (320, 320))]
    together = detector.detect(images, [ANYTHING] * len(images))
    for row, image in enumerate(images):
        alone = detector.detect([image], [ANYTHING])
        part = slice(*together.offsets[row : row + 2].tolist())
        np.testing.assert_allclose(together.xyxy[part], alone.xyxy, atol=1e-3)


def test_only_what_gains_by_it_gets_other_graphs(tmp_path: Path, detector: OpenVinoDetector) -> None:
    most = {each._most for each in detector._graphs}
    assert most == {MOST if detector.model.precision == "bf16" else 0}
    fixed = write_tiny_yolo(tmp_path / "fixed.onnx", (64, 64))
    made = load(ModelSpec(path=str(fixed), precision=detector.model.precision))
    assert {each._most for each in made._graphs} == {0}
    made.close()


@pytest.mark.parametrize("stored", [np.float32, np.float16])
def test_biases_are_rounded_to_bf16_however_they_are_stored(stored: type[np.floating]) -> None:
    ops = ov.opset13
    bias = np.array([1.0, 1.00390625, 1.01171875, -3.14159265], stored).reshape(1, 4, 1, 1)
    images = ops.parameter([1, 3, 8, 8], np.float32)
    mixed = ops.convolution(images, np.ones((4, 3, 1, 1), np.float32), [1, 1], [0, 0], [0, 0], [1, 1])
    constant = ops.constant(bias) if stored is np.float32 else ops.convert(ops.constant(bias), np.float32)
    network = ov.Model([ops.add(mixed, constant)], [images])
    round_biases(network)
    found = next(
        node.data.ravel().astype(np.float32)
        for node in network.get_ordered_ops()
        if node.get_type_name() == "Constant" and node.data.size == 4
    )
    np.testing.assert_array_equal(found, np.array([1.0, 1.0, 1.015625, -3.140625], np.float32))

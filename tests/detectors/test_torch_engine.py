"""The engine of detectors on torch, with networks of a few weights: what holds whatever the network and the device."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from prometheus_client import REGISTRY

from detectors import torch_device
from detectors.base import Boxes, Image, ModelInfo
from detectors.boxes import Letterbox, Thresholds, read_yolo
from detectors.buckets import Buckets
from detectors.device_image import DeviceImage
from detectors.processor import processor_name
from detectors.spec import ModelSpec
from detectors.torch_canvas import Stage, place_on_device, place_on_host
from detectors.torch_device import Placement, choose_placement, compile_network, offered_precisions
from detectors.torch_engine import Shapes, TorchEngine
from detectors.torch_heads import DenseHead, DistributionHead, land
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters
from tests.support.images import photograph

CPU = Placement(torch.device("cpu"), torch.float32, "cpu")
CLASSES = 4
SPEC = ModelSpec(path="tiny.pt", confidence=0.3)


def picture(seed: int, width: int, height: int) -> Image:
    return Image(np.asarray(photograph(seed, width, height)))


def pictures() -> list[Image]:
    sizes = [(320, 200), (200, 320), (320, 200), (96, 96), (640, 400), (33, 31), (320, 200)]
    return [picture(seed, *size) for seed, size in enumerate(sizes)]


class TinyNetwork(torch.nn.Module):
    """Dense YOLO output: an anchor for each 32 pixels square, boxes that mean nothing. Remembers the batches that it was given."""

    def __init__(self, room: int = 1000) -> None:
        super().__init__()
        weights = np.random.default_rng(0).normal(0, 4, (4 + CLASSES, 3, 1, 1)).astype(np.float32)
        self.mix = torch.nn.Conv2d(3, 4 + CLASSES, 1, bias=False)
        self.mix.weight.data.copy_(torch.from_numpy(weights))
        self.shapes: list[tuple[int, ...]] = []
        self.room = room

    def forward(self, planes: Any) -> Any:
        if not torch.compiler.is_compiling():
            self.shapes.append(tuple(planes.shape))
        if len(planes) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        cells = self.mix(torch.nn.functional.avg_pool2d(planes, 32)).flatten(2).sigmoid()
        spread = torch.tensor([320.0] * 2 + [120.0] * 2 + [1.0] * CLASSES, dtype=planes.dtype)
        return cells * spread[:, None]


def engine(
    network: Callable[[Any], Any],
    *,
    buckets: Buckets | None = None,
    stride: int | None = 32,
    placement: Placement = CPU,
) -> TorchEngine:
    info = ModelInfo("tiny", "1", "sha256:0", tuple("abcd"))
    shapes = Shapes((320, 320), stride, buckets or Buckets.exact(16))
    return TorchEngine(SPEC, info, placement, network, DenseHead(), shapes)


def assert_same(left: Boxes, right: Boxes) -> None:
    assert_array_equal(left.offsets, right.offsets)
    assert_array_equal(left.class_ids, right.class_ids)
    assert_allclose(left.scores, right.scores, atol=1e-5)
    assert_allclose(left.xyxy, right.xyxy, atol=0.01)


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (97, 300), (64, 64), (1, 200), (320, 192), (5, 5)])
def test_the_device_letterboxes_as_the_host_does(size: tuple[int, int]) -> None:
    image = picture(1, *size)
    letterbox = Letterbox.fit(size, (320, 320), 32)
    on_host = place_on_host([image.pixels], [letterbox], 2)
    (tensor,) = Stage(torch.device("cpu")).upload([image.pixels])
    on_device = place_on_device([tensor], [letterbox], 2)
    assert on_device.is_contiguous(memory_format=torch.channels_last)
    assert_array_equal(on_host[0], letterbox.apply(image.pixels))
    difference = np.abs(on_device.permute(0, 2, 3, 1).numpy() - on_host)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.1
    assert_array_equal(on_host[1], 114)


def test_noise_is_letterboxed_alike_too() -> None:
    noise = np.random.default_rng(3).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    letterbox = Letterbox.fit((640, 480), (320, 320), 32)
    on_device = place_on_device([torch.from_numpy(noise)], [letterbox], 1)[0].permute(1, 2, 0).numpy()
    assert np.abs(on_device - letterbox.apply(noise)).max() <= 1


def test_a_dense_head_reads_what_the_reference_reads() -> None:
    rng = np.random.default_rng(5)
    raw = np.concatenate((rng.uniform(20, 300, (3, 4, 500)), rng.uniform(0, 0.6, (3, CLASSES, 500))), 1)
    raw = raw.astype(np.float32)
    letterbox = Letterbox.fit((640, 400), (320, 320), 32)
    wanted = [Thresholds(0.5, 0.7, 300), Thresholds(0.59, 0.3, 5), Thresholds(0.3, 0.5, 300, classes=(1, 3))]
    confidences = torch.tensor([thresholds.confidence for thresholds in wanted])
    candidates = DenseHead().read(torch.from_numpy(raw), confidences, (320, 224))
    for row, found in enumerate(land(candidates, wanted, [letterbox] * 3)):
        expected = read_yolo(raw[row], wanted[row], letterbox)
        assert len(expected.scores)
        assert_array_equal(found.class_ids, expected.class_ids)
        assert_allclose(found.scores, expected.scores)
        assert_allclose(found.xyxy, expected.xyxy, atol=1e-3)


def test_a_distribution_head_decodes_the_mean_distance_from_each_cell_s_centre() -> None:
    boxes, scores = torch.full((2, 4 * 16, 5), -100.0), torch.full((2, 3, 5), -9.0)
    scores[1, 2, 3] = 2.0  # the cell at row 1, column 1 of the level of stride 32
    for side, steps in enumerate([(1,), (2,), (3, 4), (0,)]):
        boxes[1, [side * 16 + step for step in steps], 3] = 7.0
    canvas = (64, 64)
    head = DistributionHead((32, 64), 16)
    (nothing, found) = land(
        head.read((boxes, scores), torch.tensor([0.5, 0.5]), canvas),
        [Thresholds(0.5, 0.7, 10)] * 2,
        [Letterbox(canvas, canvas, canvas)] * 2,
    )
    assert len(nothing.scores) == 0
    assert_allclose(found.xyxy, np.clip([[48 - 32, 48 - 64, 48 + 3.5 * 32, 48 + 0]], 0, 64), atol=1e-3)
    assert_allclose(found.scores, torch.sigmoid(torch.tensor(2.0)))
    assert found.class_ids.tolist() == [2]


def test_images_of_one_canvas_are_one_batch_and_come_back_in_order() -> None:
    network = TinyNetwork()
    detector = engine(network)
    images = pictures()
    parameters = [DetectParameters(confidence=0.1 + 0.1 * (row % 3)) for row in range(len(images))]
    together = detector.detect(images, parameters)
    assert sorted(network.shapes) == sorted([(4, 3, 224, 320), (1, 3, 320, 224), (2, 3, 320, 320)])
    alone = [detector.detect([image], [wanted]) for image, wanted in zip(images, parameters, strict=True)]
    assert_same(together, Boxes.concatenate(alone))
    assert together.offsets[-1] > 10


def test_buckets_pad_and_change_nothing() -> None:
    images = [picture(seed, 320, 320) for seed in range(7)]
    parameters = [DetectParameters()] * 7
    network = TinyNetwork()
    padded = engine(network, buckets=Buckets((1, 2, 4, 8)))
    assert_same(padded.detect(images, parameters), engine(TinyNetwork()).detect(images, parameters))
    assert network.shapes == [(8, 3, 320, 320)]
    assert padded.max_batch == 8


def test_without_a_stride_every_image_is_on_the_whole_canvas() -> None:
    network = TinyNetwork()
    engine(network, stride=None).detect(pictures(), [DetectParameters()] * 7)
    assert {shape[2:] for shape in network.shapes} == {(320, 320)}


def test_a_device_without_memory_halves_the_batch_and_remembers() -> None:
    network = TinyNetwork(room=3)
    placement = Placement(torch.device("cpu"), torch.float32, "a small device")
    detector = engine(network, buckets=Buckets(), placement=placement)
    labels = {"device": placement.name}
    images = [picture(seed, 320, 320) for seed in range(8)]
    boxes = detector.detect(images, [DetectParameters()] * 8)
    assert [shape[0] for shape in network.shapes] == [8, 4, 2, 2, 2, 2]
    assert detector.max_batch == 2
    assert REGISTRY.get_sample_value("sightstream_gpu_oom_total", labels) == 2
    assert_same(boxes, engine(TinyNetwork()).detect(images, [DetectParameters()] * 8))


def test_what_is_compiled_is_warmed_at_every_size() -> None:
    network = TinyNetwork()
    engine(network, buckets=Buckets((1, 2, 4)), stride=None).warm()
    assert [shape[0] for shape in network.shapes] == [1, 2, 4]
    network.shapes.clear()
    engine(network, buckets=Buckets((1, 2, 4))).warm()
    assert [shape[0] for shape in network.shapes] == [4, 1]


def test_a_compiled_network_finds_the_same() -> None:
    """Through the whole front end of the compiler; the code generator, which takes a minute, is the one part left out."""
    network = TinyNetwork()
    compiled = engine(compile_network(network, "aot_eager"), buckets=Buckets((1, 4)), stride=None)
    images = [picture(seed, 320, 240) for seed in range(5)]
    parameters = [DetectParameters()] * 5
    assert_same(compiled.detect(images, parameters), engine(network, stride=None).detect(images, parameters))


def test_images_that_were_decoded_on_a_device_are_as_others() -> None:
    images = pictures()
    on_device = [DeviceImage(torch.from_numpy(image.pixels.copy())) for image in images]
    parameters = [DetectParameters()] * len(images)
    detector = engine(TinyNetwork())
    assert_same(detector.detect(on_device, parameters), detector.detect(images, parameters))
    stage = Stage(torch.device("cpu"))
    sent = detector._send(stage, [images[0], on_device[1], images[2]])
    for tensor, image in zip(sent, images, strict=False):
        assert_array_equal(tensor.numpy(), image.pixels)


def test_a_measurement_on_a_processor_holds_for_that_one_and_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    able = {"avx2": True, "amx_bf16": True, "avx512_bf16": False, "l2_cache_size": 1, "cpu_name": "another"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert CPU.place == f"torch {torch.__version__} on {processor_name()} amx_bf16 avx2"
    assert offered_precisions(ModelSpec(path="tiny.pt", device="cpu")) == ("f32", "bf16")
    del able["amx_bf16"]
    assert offered_precisions(ModelSpec(path="tiny.pt", device="cpu")) == ("f32",)


def test_no_more_threads_than_the_cores_that_a_quota_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(torch_device, "usable_cores", lambda: 1)
    try:
        choose_placement(ModelSpec(path="tiny.pt", device="cpu"))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_bf16_finds_about_the_same() -> None:
    placement = choose_placement(ModelSpec(path="x.pt", device="cpu", precision="bf16"))
    assert placement.precision == "bf16"
    network = placement.adopt(TinyNetwork())
    images = [picture(seed, 320, 320) for seed in range(3)]
    coarse = engine(network, placement=placement).detect(images, [DetectParameters(iou=1.0)] * 3)
    fine = engine(TinyNetwork()).detect(images, [DetectParameters(iou=1.0)] * 3)
    assert abs(int(coarse.offsets[-1]) - int(fine.offsets[-1])) <= 0.1 * int(fine.offsets[-1])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ModelSpec(path="x.pt", device="cuda:7"), "no device cuda:7"),
        (ModelSpec(path="x.pt", device="toaster"), "no device toaster"),
        (ModelSpec(path="x.pt", device="cpu", precision="f8"), "not as f8"),
        (ModelSpec(path="x.pt", device="cpu", precision="f16"), "f16 is for GPUs"),
    ],
)
def test_what_is_not_there_is_said(spec: ModelSpec, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        choose_placement(spec)

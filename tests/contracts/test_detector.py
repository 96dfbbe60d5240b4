"""What every detector keeps, whatever runs behind it."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from detectors.base import Boxes, Detector, Image
from detectors.decode import decode
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from schemas.records import DetectParameters
from tests.support.data import shared_dir
from tests.support.images import POISON, corpus, photograph
from tests.support.models import coco_checkpoint, write_ir, write_tiny_yolo, yolo_onnx

__all__ = ["yolo_onnx"]

VARIED = (
    DetectParameters(),
    DetectParameters(confidence=0.5),
    DetectParameters(confidence=0.05, iou=0.3),
    DetectParameters(confidence=0.05, max_detections=2),
    DetectParameters(confidence=0.05, classes=(0, 2)),
    DetectParameters(classes=()),
)


def _onnx(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue("yolo_onnx")
    return path


def _ir(request: pytest.FixtureRequest) -> Path:
    directory: Path = request.getfixturevalue("tmp_path_factory").mktemp("ir")
    return write_ir(Path(shutil.copy(_onnx(request), directory)))


def _tiny(request: pytest.FixtureRequest) -> Path:
    directory: Path = request.getfixturevalue("tmp_path_factory").mktemp("tiny")
    return write_tiny_yolo(directory / "tiny.onnx")


def _checkpoint(request: pytest.FixtureRequest) -> Path:
    from tests.support.torch_models import write_tiny_torchvision  # here: it brings torch

    directory: Path = request.getfixturevalue("tmp_path_factory").mktemp("checkpoint")
    # Few candidates: of thousands with random scores some are so alike that rounding decides which comes first.
    return write_tiny_torchvision(directory / "ssdlite.pth", arguments={"topk_candidates": 10})


def _pretend_tensorrt(patch: pytest.MonkeyPatch) -> None:
    """There is no GPU here: a stand-in for its library; everything round that is the backend's own."""
    from tests.support.tensorrt import pretend  # here: it brings torch

    pretend(patch)
    patch.setattr("detectors.registry.choose_backend", lambda spec: spec.backend)


BACKENDS: dict[str, tuple[str, Callable[[pytest.FixtureRequest], str | Path | None]]] = {
    "fake": ("auto", lambda _: "fake"),
    "noop": ("auto", lambda _: "noop"),
    "openvino": ("openvino", _onnx),
    "openvino-ir": ("openvino", _ir),
    "onnxruntime": ("onnxruntime", _onnx),
    "tensorrt": ("tensorrt", _tiny),
    "ultralytics": ("ultralytics", lambda _: coco_checkpoint()),
    "torchvision": ("torchvision", _checkpoint),
}


@pytest.fixture(scope="module", params=list(BACKENDS))
def detector(request: pytest.FixtureRequest) -> Iterator[Detector]:
    backend, find = BACKENDS[request.param]
    path = find(request)
    if path is None:
        pytest.skip("no checkpoint: the shared data is not here")
    spec = ModelSpec(path=str(path), name="tested", version="7", backend=backend, precision="f32", image_size=320)
    with pytest.MonkeyPatch.context() as patch:
        if backend == "tensorrt":
            _pretend_tensorrt(patch)
        detector = open_detector(spec)
        yield detector
        detector.close()


@pytest.fixture(scope="module")
def images() -> list[Image]:
    """Photographs of several shapes; generated ones where the shared data is not there."""
    shared = shared_dir()
    if shared is None:
        return [Image(np.asarray(photograph(seed, 320 + 40 * seed, 240))) for seed in range(6)]
    paths = sorted((shared / "datasets" / "coco-val-80" / "images").glob("*.jpg"))[:6]
    return [Image(decode(path.read_bytes(), 10_000_000)) for path in paths]


def rows(boxes: Boxes, index: int) -> slice:
    return slice(int(boxes.offsets[index]), int(boxes.offsets[index + 1]))


def assert_same(left: Boxes, right: Boxes) -> None:
    np.testing.assert_array_equal(left.offsets, right.offsets)
    np.testing.assert_array_equal(left.class_ids, right.class_ids)
    np.testing.assert_allclose(left.scores, right.scores, atol=1e-4)
    np.testing.assert_allclose(left.xyxy, right.xyxy, atol=0.05)


def alone(detector: Detector, images: list[Image], parameters: list[DetectParameters]) -> Boxes:
    pairs = zip(images, parameters, strict=True)
    return Boxes.concatenate([detector.detect([image], [wanted]) for image, wanted in pairs])


def test_a_model_says_what_it_is(detector: Detector) -> None:
    model = detector.model
    assert (model.name, model.version) == ("tested", "7")
    assert model.digest.startswith("sha256:")
    assert len(model.digest) == len("sha256:") + 64
    assert model.labels
    assert all((model.backend, model.precision, model.device))
    assert detector.concurrency >= 1
    assert detector.max_batch >= 1


def test_boxes_have_the_promised_shapes_and_order(detector: Detector, images: list[Image]) -> None:
    boxes = detector.detect(images, [DetectParameters(confidence=0.05)] * len(images))
    total = int(boxes.offsets[-1])
    assert len(boxes) == len(images)
    assert boxes.offsets[0] == 0
    assert (boxes.xyxy.shape, boxes.scores.shape, boxes.class_ids.shape) == ((total, 4), (total,), (total,))
    arrays = (boxes.offsets, boxes.class_ids, boxes.xyxy, boxes.scores)
    assert [str(array.dtype) for array in arrays] == ["int32", "int32", "float32", "float32"]
    assert ((boxes.scores > 0.05) & (boxes.scores <= 1)).all()
    assert ((boxes.class_ids >= 0) & (boxes.class_ids < len(detector.model.labels))).all()
    for index, image in enumerate(images):
        of_image = rows(boxes, index)
        assert (np.diff(boxes.scores[of_image]) <= 0).all()
        xyxy = boxes.xyxy[of_image]
        assert (xyxy >= 0).all()
        assert (xyxy <= np.array([image.width, image.height] * 2)).all()
        assert (xyxy[:, :2] <= xyxy[:, 2:]).all()


def test_no_images_give_no_boxes(detector: Detector) -> None:
    boxes = detector.detect([], [])
    assert len(boxes) == 0
    assert boxes.xyxy.shape == (0, 4)


def test_an_image_s_boxes_do_not_depend_on_its_batch(detector: Detector, images: list[Image]) -> None:
    parameters = [DetectParameters()] * len(images)
    together = detector.detect(images, parameters)
    assert_same(together, alone(detector, images, parameters))
    backwards = detector.detect(images[::-1], parameters)
    assert np.diff(backwards.offsets).tolist() == np.diff(together.offsets).tolist()[::-1]


def test_each_request_of_a_batch_gets_what_it_asks_for(detector: Detector, images: list[Image]) -> None:
    parameters = list(VARIED)
    boxes = detector.detect(images, parameters)
    assert_same(boxes, alone(detector, images, parameters))
    for index, wanted in enumerate(parameters):
        of_image = rows(boxes, index)
        assert (boxes.scores[of_image] > (wanted.confidence or 0.25)).all()
        assert of_image.stop - of_image.start <= (wanted.max_detections or 300)
        if wanted.classes is not None:
            assert set(boxes.class_ids[of_image].tolist()) <= set(wanted.classes)


def test_calls_at_once_do_not_disturb_each_other(detector: Detector, images: list[Image]) -> None:
    batches = [(images[start:] + images[:start], list(VARIED)) for start in range(len(images))]
    with ThreadPoolExecutor(detector.concurrency + 1) as pool:
        together = list(pool.map(lambda batch: detector.detect(*batch), batches))
    for boxes, batch in zip(together, batches, strict=True):
        assert_same(boxes, detector.detect(*batch))


@pytest.fixture(scope="module")
def odd_images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """Whatever decodes to pixels, however odd: every such case of the pipeline's table of bad input, and extremes of shape."""
    cases = [case for case in corpus(tmp_path_factory.mktemp("corpus")) if case.reason is None]
    odd = {case.name: Image(decode(case.path.read_bytes(), 10_000_000)) for case in cases}
    assert {(case.width, case.height) for case in cases} == {(image.width, image.height) for image in odd.values()}
    for width, height in ((20_000, 1), (1, 20_000), (33, 31), (1280, 720)):
        odd[f"{width}x{height}"] = Image(np.asarray(photograph(0, width, height)))
    odd["reduced"] = Image(np.asarray(photograph(1, 480, 320)), frame=(3840, 2560))
    odd["reduced-unevenly"] = Image(np.asarray(photograph(2, 481, 321)), frame=(3841, 2565))
    odd["reduced-to-a-pixel"] = Image(np.zeros((1, 1, 3), np.uint8), frame=(8, 8))
    return odd


def test_odd_pixels_are_taken_and_hurt_no_neighbour(
    detector: Detector, images: list[Image], odd_images: dict[str, Image]
) -> None:
    low, neighbour = DetectParameters(confidence=0.01), images[0]
    expected = detector.detect([neighbour], [low])
    names = list(odd_images)
    for start in range(0, len(names), 8):
        batch = [odd_images[name] for name in names[start : start + 8]]
        boxes = detector.detect([neighbour, *batch], [low] * (len(batch) + 1))
        boxes.check(len(batch) + 1, len(detector.model.labels))
        assert_same(part(boxes, 0), expected)
        for index, image in enumerate(batch, 1):
            xyxy = boxes.xyxy[rows(boxes, index)]
            assert (xyxy >= 0).all()
            assert (xyxy <= np.array([image.width, image.height] * 2)).all(), names[start + index - 1]


def test_a_frame_shown_reduced_has_its_boxes_in_the_frame_s_pixels(detector: Detector, images: list[Image]) -> None:
    """Shown at half size, a picture has the boxes of the picture itself, but for what resampling does."""
    whole = images[0]
    half = np.ascontiguousarray(whole.pixels[::2, ::2])
    as_frame = Image(half, frame=(half.shape[1] * 2, half.shape[0] * 2))
    as_itself = detector.detect([Image(half)], [DetectParameters()])
    boxes = detector.detect([as_frame], [DetectParameters()])
    if detector.model.backend == "fake":  # finds boxes by pixels and frame, not by content
        return
    np.testing.assert_array_equal(boxes.class_ids, as_itself.class_ids)
    np.testing.assert_allclose(boxes.xyxy, as_itself.xyxy * 2, atol=1)


def test_an_image_that_makes_it_raise_leaves_it_whole(detector: Detector, images: list[Image]) -> None:
    """Pixels that no decoder makes: the call raises, and the next is as if it had not been."""
    if detector.model.backend == "noop":
        pytest.skip("looks at no image")
    broken = np.zeros((4, 4, 2), np.uint8)
    if detector.model.backend == "fake":
        broken = np.full((4, 4, 3), POISON, np.uint8)
    parameters = [DetectParameters()] * 3
    expected = detector.detect(images[:3], parameters)
    for _ in range(detector.concurrency + 1):
        with pytest.raises(Exception):  # noqa: B017 - a backend may raise what it likes
            detector.detect([*images[:2], Image(broken), images[2]], [DetectParameters()] * 4)
    assert_same(detector.detect(images[:3], parameters), expected)


def part(boxes: Boxes, index: int) -> Boxes:
    """The boxes of one image, as a batch of one."""
    mine = rows(boxes, index)
    offsets = np.array([0, mine.stop - mine.start], np.int32)
    return Boxes(offsets, boxes.xyxy[mine], boxes.scores[mine], boxes.class_ids[mine])

"""What every detector keeps, whatever runs behind it."""

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
from tests.support.images import photograph
from tests.support.models import coco_checkpoint, yolo_onnx

__all__ = ["yolo_onnx"]

VARIED = (
    DetectParameters(),
    DetectParameters(confidence=0.5),
    DetectParameters(confidence=0.05, iou=0.3),
    DetectParameters(confidence=0.05, max_detections=2),
    DetectParameters(confidence=0.05, classes=(0, 2)),
    DetectParameters(classes=()),
)


@pytest.fixture(scope="module", params=["fake", "noop", "openvino", "ultralytics"])
def detector(request: pytest.FixtureRequest) -> Iterator[Detector]:
    paths: dict[str, Callable[[], str | Path | None]] = {
        "fake": lambda: "fake",
        "noop": lambda: "noop",
        "openvino": lambda: request.getfixturevalue("yolo_onnx"),
        "ultralytics": coco_checkpoint,
    }
    path = paths[request.param]()
    if path is None:
        pytest.skip("no checkpoint: the shared data is not here")
    detector = open_detector(ModelSpec(path=str(path), name="tested", version="7", image_size=320))
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


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2000, 1), (1, 2000), (33, 31), (1280, 720)])
def test_images_of_any_shape_are_taken(detector: Detector, width: int, height: int) -> None:
    image = Image(np.asarray(photograph(0, width, height)))
    assert len(detector.detect([image], [DetectParameters(confidence=0.01)])) == 1

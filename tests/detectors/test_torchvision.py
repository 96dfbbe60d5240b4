"""torchvision's models from our own checkpoints, with random weights: nothing is downloaded."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from detectors.base import Boxes, Image
from detectors.boxes import Found, suppress
from detectors.device_image import DeviceImage
from detectors.spec import ModelSpec
from detectors.torchvision import load
from detectors.torchvision_engine import TorchvisionEngine
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters
from tests.support.images import photograph
from tests.support.torch_models import write_tiny_torchvision

LABELS = ("person", "car", "dog")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torchvision")


@pytest.fixture(scope="module")
def ssdlite(directory: Path) -> Iterator[TorchvisionEngine]:
    path = write_tiny_torchvision(directory / "ssdlite.pth", LABELS)
    detector = load(ModelSpec(path=str(path), version="3", confidence=0.3, device="cpu"))
    yield detector
    detector.close()


@pytest.fixture(scope="module")
def faster(directory: Path) -> Iterator[TorchvisionEngine]:
    # Few proposals, so that the test is quick; a checkpoint's arguments are the builder's.
    arguments = {"rpn_post_nms_top_n_test": 20, "rpn_pre_nms_top_n_test": 40, "min_size": 128, "max_size": 160}
    path = write_tiny_torchvision(directory / "faster.pth", LABELS, "fasterrcnn_mobilenet_v3_large_320_fpn", arguments)
    detector = load(ModelSpec(path=str(path), confidence=0.2, device="cpu"))
    yield detector
    detector.close()


def pictures() -> list[Image]:
    return [
        Image(np.asarray(photograph(seed, *size)))
        for seed, size in enumerate([(200, 120), (120, 200), (97, 33), (64, 64)])
    ]


def of_image(boxes: Boxes, row: int) -> Found:
    part = slice(int(boxes.offsets[row]), int(boxes.offsets[row + 1]))
    return Found(boxes.xyxy[part], boxes.scores[part], boxes.class_ids[part])


def assert_same(left: Boxes, right: Boxes) -> None:
    assert_array_equal(left.offsets, right.offsets)
    assert_array_equal(left.class_ids, right.class_ids)
    assert_allclose(left.scores, right.scores, atol=1e-4)
    assert_allclose(left.xyxy, right.xyxy, atol=0.05)


def test_a_model_says_what_it_is(ssdlite: TorchvisionEngine, faster: TorchvisionEngine) -> None:
    assert (ssdlite.model.name, ssdlite.model.version) == ("ssdlite", "3")
    assert ssdlite.model.labels == LABELS
    assert ssdlite.model.backend.startswith("torchvision ")
    assert ssdlite.model.canvas is None
    assert faster.model.canvas == (160, 160)


def test_the_boxes_are_torchvision_s_own(ssdlite: TorchvisionEngine) -> None:
    """With the model's own thresholds, its own postprocessing finds the same, background and numbering of classes apart."""
    network = ssdlite._network
    image = pictures()[0]
    boxes = ssdlite.detect([image], [DetectParameters(confidence=0.4, iou=0.55, max_detections=20)])
    network.score_thresh, network.nms_thresh, network.detections_per_img = 0.4, 0.55, 20
    try:
        with torch.inference_mode():
            (own,) = network([torch.from_numpy(image.pixels.copy()).permute(2, 0, 1).float() / 255])
    finally:
        network.nms_thresh, network.detections_per_img = 2.0, 30_000
    assert 0 < len(own["scores"]) <= 20
    assert_allclose(boxes.scores, own["scores"], atol=1e-5)
    assert_array_equal(boxes.class_ids, own["labels"].numpy() - 1)
    assert_allclose(boxes.xyxy, own["boxes"], atol=0.01)


@pytest.mark.parametrize("name", ["ssdlite", "faster"])
def test_requests_of_one_batch_get_what_each_asks_for(name: str, request: pytest.FixtureRequest) -> None:
    detector: TorchvisionEngine = request.getfixturevalue(name)
    images = pictures()
    parameters = [
        DetectParameters(),
        DetectParameters(confidence=0.25, iou=0.3, max_detections=7),
        DetectParameters(confidence=0.26, classes=(1,)),
        DetectParameters(confidence=0.9),
    ]
    together = detector.detect(images, parameters)
    alone = [detector.detect([image], [wanted]) for image, wanted in zip(images, parameters, strict=True)]
    assert_same(together, Boxes.concatenate(alone))
    together.check(4, len(LABELS))
    limited, classed = of_image(together, 1), of_image(together, 2)
    assert 0 < len(limited.scores) <= 7
    assert len(suppress(limited, 0.3, 100)) == len(limited.scores), "nothing that is left overlaps more than asked for"
    assert set(classed.class_ids.tolist()) <= {1}
    assert (of_image(together, 3).scores > 0.9).all()


def test_an_image_that_was_decoded_reduced_has_boxes_in_its_frame(ssdlite: TorchvisionEngine) -> None:
    pixels = pictures()[0].pixels
    plain, reduced = Image(pixels), Image(pixels, frame=(pixels.shape[1] * 4, pixels.shape[0] * 4))
    boxes = ssdlite.detect([plain, reduced], [DetectParameters()] * 2)
    small, large = of_image(boxes, 0), of_image(boxes, 1)
    assert len(small.scores)
    assert_allclose(large.xyxy, small.xyxy * 4, atol=0.01)


def test_an_image_on_the_device_is_as_any_other(faster: TorchvisionEngine) -> None:
    images = pictures()[:2]
    on_device = [DeviceImage(torch.from_numpy(image.pixels.copy())) for image in images]
    parameters = [DetectParameters()] * 2
    assert_same(faster.detect(on_device, parameters), faster.detect(images, parameters))


@pytest.mark.parametrize("size", [(2000, 1), (1, 2000), (1, 1)])
def test_a_line_of_pixels_is_an_image(faster: TorchvisionEngine, size: tuple[int, int]) -> None:
    image = Image(np.asarray(photograph(0, *size)))
    assert len(faster.detect([image], [DetectParameters()])) == 1


def test_a_device_without_memory_halves_the_batch(faster: TorchvisionEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sizes = faster._network, []

    def network(planes: list[Any]) -> Any:
        sizes.append(len(planes))
        if len(planes) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(planes)

    network.transform = whole.transform  # type: ignore[attr-defined]
    images, parameters = pictures()[:1] * 4, [DetectParameters()] * 4
    expected = faster.detect(images, parameters)
    monkeypatch.setattr(faster, "_network", network)
    assert_same(faster.detect(images, parameters), expected)
    assert sizes == [4, 2, 2]
    assert faster.max_batch == 2


def test_bf16_finds_about_the_same(directory: Path, ssdlite: TorchvisionEngine) -> None:
    coarse = load(ModelSpec(path=str(directory / "ssdlite.pth"), precision="bf16", device="cpu"))
    assert coarse.model.precision == "bf16"
    parameters = [DetectParameters(confidence=0.2, max_detections=50)] * 2
    fine, rough = (detector.detect(pictures()[:2], parameters) for detector in (ssdlite, coarse))
    assert abs(int(fine.offsets[-1]) - int(rough.offsets[-1])) <= 0.2 * int(fine.offsets[-1])
    assert rough.xyxy.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "maskrcnn_resnet50_fpn"}, "no architecture 'maskrcnn_resnet50_fpn'; known are"),
        ({"architecture": "os.system"}, "no architecture"),
        ({"arguments": {"weights": "DEFAULT"}}, "does not take these arguments"),
        ({"labels": []}, "no labels"),
        ({"labels": list("ab")}, "not those of its architecture"),
        ({"state_dict": {}}, "not those of its architecture"),
        ({"state_dict": None}, "not a checkpoint of a detector: state_dict"),
    ],
)
def test_a_checkpoint_that_is_none_is_refused(
    directory: Path, ssdlite: TorchvisionEngine, change: dict[str, Any], message: str
) -> None:
    content = torch.load(directory / "ssdlite.pth", weights_only=True)
    path = directory / "changed.pth"
    torch.save(content | change, path)
    with pytest.raises(ConfigurationError, match=message) as refused:
        load(ModelSpec(path=str(path)))
    assert "\n" not in str(refused.value)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    path, witness = tmp_path / "evil.pth", tmp_path / "witness"
    torch.save({"architecture": Evil(str(witness))}, path)
    with pytest.raises(ConfigurationError, match="loads safely"):
        load(ModelSpec(path=str(path)))
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ConfigurationError, match=r"loads safely$"):
        load(ModelSpec(path=str(path)))
    assert not witness.exists()


def test_without_the_extra_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str, package: str | None = None) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    path = tmp_path / "model.pth"
    path.write_bytes(b"anything")
    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(ConfigurationError, match=r"pip install 'sightstream\[torch\]'"):
        load(ModelSpec(path=str(path)))


class Evil:
    """An object whose unpickling writes a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self._path, "w")

"""Several devices as one detector, with devices that a test lets finish when it wants."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from detectors.base import Boxes, Image, ModelInfo
from detectors.fleet import Fleet, join_devices
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters
from tests.support.images import photograph
from tests.support.models import write_tiny_yolo

DEADLINE_S = 30
INFO = ModelInfo("m", "1", "sha256:0", ("a",), backend="b", precision="f32", device="gpu 0")


class Device:
    """Finds nothing, and only once it is let go."""

    def __init__(self, name: str, *, concurrency: int = 1, max_batch: int = 8) -> None:
        self.model = replace(INFO, device=name)
        self.concurrency = concurrency
        self.max_batch = max_batch
        self.began = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.calls = 0
        self.closed = False

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        self.calls += 1
        self.began.release()
        assert self.go.acquire(timeout=DEADLINE_S)
        if not images:
            raise ValueError("no images")
        return Boxes.concatenate([])

    def close(self) -> None:
        self.closed = True


def one() -> tuple[list[Image], list[DetectParameters]]:
    return [Image(np.zeros((4, 4, 3), np.uint8))], [DetectParameters()]


def test_a_fleet_is_its_devices_together() -> None:
    devices = [Device("gpu 0", concurrency=2, max_batch=32), Device("gpu 1", max_batch=4), Device("gpu 0")]
    fleet = join_devices(devices)
    assert (fleet.concurrency, fleet.max_batch) == (4, 4)
    assert fleet.model == replace(INFO, device="2 x gpu 0, gpu 1")
    devices[0].max_batch = 2
    assert fleet.max_batch == 2, "a device may learn that it has less memory"
    fleet.close()
    assert all(device.closed for device in devices)


def test_a_call_takes_the_first_device_that_is_free() -> None:
    slow, quick = devices = [Device("slow"), Device("quick")]
    fleet = Fleet(devices)
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(fleet.detect, *one()) for _ in range(2)]
        for device in devices:
            assert device.began.acquire(timeout=DEADLINE_S), "each device has a call"
        for done in range(2, 5):
            quick.go.release()
            calls.append(pool.submit(fleet.detect, *one()))
            assert quick.began.acquire(timeout=DEADLINE_S)
            assert (slow.calls, quick.calls) == (1, done)
        slow.go.release()
        quick.go.release()
        for call in calls:
            call.result(DEADLINE_S)


def test_all_devices_have_a_call_before_any_has_a_second() -> None:
    devices = [Device("gpu 0", concurrency=2), Device("gpu 1", concurrency=2)]
    fleet = Fleet(devices)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(fleet.detect, *one()) for _ in range(2)]
        for device in devices:
            assert device.began.acquire(timeout=DEADLINE_S)
            device.go.release()
        for call in calls:
            call.result(DEADLINE_S)


def test_a_device_that_raised_takes_the_next_call() -> None:
    device = Device("gpu 0")
    fleet = Fleet([device])
    device.go.release(2)
    with pytest.raises(ValueError, match="no images"):
        fleet.detect([], [])
    assert len(fleet.detect(*one())) == 0


@pytest.mark.parametrize(
    "change", [{"digest": "sha256:1"}, {"precision": "f16"}, {"backend": "other"}, {"labels": ("b",)}]
)
def test_devices_that_run_it_differently_are_no_fleet(change: dict[str, str]) -> None:
    odd = Device("gpu 1")
    odd.model = replace(odd.model, **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=f"do not run the model alike .*{next(iter(change))}"):
        join_devices([Device("gpu 0"), odd])


def test_two_devices_of_a_model_find_what_one_finds(tmp_path: Path) -> None:
    path = str(write_tiny_yolo(tmp_path / "tiny.onnx"))
    images = [Image(np.asarray(photograph(seed, 320, 200))) for seed in range(4)]
    parameters = [DetectParameters(confidence=0.3)] * 4
    alone, fleet = (
        open_detector(ModelSpec(path=path, device=device, precision="f32", image_size=128))
        for device in ("CPU", "cpu,cpu")
    )
    assert fleet.model.device == f"2 x {alone.model.device}"
    assert fleet.concurrency == 2 * alone.concurrency
    with ThreadPoolExecutor(fleet.concurrency) as pool:
        results = list(pool.map(lambda _: fleet.detect(images, parameters), range(8)))
    expected = alone.detect(images, parameters)
    for boxes in results:
        assert_array_equal(boxes.offsets, expected.offsets)
        assert_array_equal(boxes.xyxy, expected.xyxy)
    fleet.close()
    alone.close()

"""The latency curve: measured once, kept, believed only as far as it can be read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from detectors.base import Boxes, Image, ModelInfo
from detectors.curve import LatencyCurve, LearnedCurve, PacedDetector, measure, recall_or_measure
from schemas.records import DetectParameters


class TickingDetector:
    """Takes 10 ms a call and 5 ms an image, on a clock of its own."""

    concurrency = 1
    max_batch = 12

    def __init__(self) -> None:
        self.model = ModelInfo("ticking", "1", "sha256:0", ("cat",), canvas=(64, 32))
        self.clock = 0.0
        self.calls: list[int] = []

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        assert {(image.width, image.height) for image in images} == {(64, 32)}
        self.clock += 0.010 + 0.005 * len(images)
        self.calls.append(len(images))
        return Boxes.concatenate([])

    def close(self) -> None:
        pass

    def now(self) -> float:
        return self.clock


@pytest.fixture
def detector() -> TickingDetector:
    return TickingDetector()


def test_a_curve_is_measured_up_to_the_largest_batch(detector: TickingDetector) -> None:
    curve = measure(detector, budget_s=60, now=detector.now)
    assert [size for size, _ in curve.points] == [1, 2, 4, 8, 12]
    assert [ms for _, ms in curve.points] == pytest.approx([15, 20, 30, 50, 70])


def test_measuring_ends_within_its_budget_and_the_rest_is_extrapolated(detector: TickingDetector) -> None:
    curve = measure(detector, budget_s=0.25, now=detector.now)
    assert detector.clock <= 0.25
    size, ms = curve.points[-1]
    assert size < 12
    assert curve.ms(10 * size) == pytest.approx(10 * ms)


def test_one_call_is_measured_however_small_the_budget(detector: TickingDetector) -> None:
    ((size, ms),) = measure(detector, budget_s=0, now=detector.now).points
    assert size == 1
    assert ms == pytest.approx(15)


def test_between_points_the_time_is_linear() -> None:
    curve = LatencyCurve(((2, 10.0), (4, 20.0)))
    assert [curve.ms(images) for images in (0, 1, 2, 3, 4, 8)] == [0, 5, 10, 15, 20, 40]


@pytest.mark.parametrize(("limit", "largest"), [(0.0, 1), (10.0, 2), (14.9, 2), (15.0, 3), (1000.0, 7)])
def test_the_largest_call_within_a_limit(limit: float, largest: int) -> None:
    assert LatencyCurve(((2, 10.0), (4, 20.0))).largest_within(limit, most=7) == largest


def test_a_learnt_curve_follows_slower_calls_and_is_not_thrown_by_one() -> None:
    curve = LearnedCurve(LatencyCurve(((1, 10.0), (4, 40.0))))
    curve.observe(1, 10_000.0)
    assert curve.now.ms(1) < 40
    for _ in range(200):
        curve.observe(2, 60.0)
    assert curve.now.ms(4) == pytest.approx(120, rel=0.01)


def test_a_curve_is_measured_once_for_a_model_on_a_machine(detector: TickingDetector, tmp_path: Path) -> None:
    first = recall_or_measure(detector, tmp_path / "engine")
    calls = len(detector.calls)
    assert calls > 0
    assert recall_or_measure(detector, tmp_path / "engine") == first
    assert len(detector.calls) == calls
    detector.model = ModelInfo("ticking", "1", "sha256:1", ("cat",), canvas=(64, 32))
    recall_or_measure(detector, tmp_path / "engine")
    assert len(detector.calls) > calls, "another model has another curve"


@pytest.mark.parametrize(
    "text", ["", "{}", '{"points": []}', '{"points": [[4, 1.0], [1, 2.0]]}', '{"points": [[0, 1]]}']
)
def test_a_file_that_is_no_curve_is_written_anew(detector: TickingDetector, tmp_path: Path, text: str) -> None:
    first = recall_or_measure(detector, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text(text, "utf-8")
    calls = len(detector.calls)
    second = recall_or_measure(detector, tmp_path)
    assert len(detector.calls) > calls
    assert [size for size, _ in second.points] == [size for size, _ in first.points]
    assert path.read_text("utf-8") != text


def test_a_folder_that_cannot_be_written_costs_only_the_next_start(detector: TickingDetector, tmp_path: Path) -> None:
    (tmp_path / "engine").write_text("a file where the folder should be", "utf-8")
    assert recall_or_measure(detector, tmp_path / "engine").points


def test_a_call_that_raises_teaches_nothing(detector: TickingDetector) -> None:
    paced = PacedDetector(detector, LatencyCurve(((1, 15.0),)), detector.now)
    image = Image(np.zeros((32, 64, 3), np.uint8))
    paced.detect([image], [DetectParameters()])
    assert paced.curve.now.ms(1) == pytest.approx(15.0)
    with pytest.raises(AssertionError):
        paced.detect([Image(np.zeros((1, 1, 3), np.uint8))], [DetectParameters()])
    assert paced.curve.now.ms(1) == pytest.approx(15.0)

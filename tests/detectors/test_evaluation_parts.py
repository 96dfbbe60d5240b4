"""Slices, confusion, thresholds and gates of an evaluation, on boxes small enough to work them out by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.base import Boxes, Image
from detectors.boxes import Found, join
from detectors.evaluation import Evaluation, evaluate
from detectors.evaluation_attributes import Appearance, measure_pixels, measure_shapes
from detectors.evaluation_gates import check_gates, check_regression, compare, parse_gate
from detectors.evaluation_matching import Matches, match
from detectors.evaluation_report import make_report
from detectors.evaluation_slices import average_precision
from detectors.evaluation_threshold import confidence_for_f1, confidence_for_precision
from detectors.evaluation_truth import ClassMap, GroundTruth, read_truth
from detectors.fake import FakeDetector
from detectors.spec import ModelSpec
from schemas.errors import ConfigurationError

Row = tuple[int, float, tuple[float, float, float, float]]
CLASSES = ClassMap((1, 2))
WRONG = (300.0, 300.0, 340.0, 340.0)


def truth_of(
    path: Path, objects: Sequence[tuple[int, tuple[float, ...]]], outlines: dict[int, list[float]]
) -> GroundTruth:
    """One image with these objects, (category, (left, top, right, bottom)), numbered from 1."""
    annotations = [
        {
            "image_id": 1,
            "category_id": category_id,
            "bbox": [left, top, right - left, bottom - top],
            "segmentation": [outlines[number]] if number in outlines else [],
        }
        for number, (category_id, (left, top, right, bottom)) in enumerate(objects, 1)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": annotations,
    }
    path.write_text(json.dumps(content))
    return read_truth(path)


@pytest.fixture
def truth(tmp_path: Path) -> GroundTruth:
    """Two small cats, a large one, and a medium dog; the dog is tilted, the first cat upright."""
    objects = [
        (1, (0.0, 0.0, 20.0, 20.0)),
        (1, (40.0, 0.0, 60.0, 30.0)),
        (1, (100.0, 100.0, 250.0, 250.0)),
        (2, (0.0, 100.0, 60.0, 160.0)),
    ]
    outlines = {1: [0.0, 0, 20, 0, 20, 20, 0, 20], 4: [30.0, 100, 60, 130, 30, 160, 0, 130]}
    return truth_of(tmp_path / "truth.json", objects, outlines)


def boxes(*rows: Row) -> Boxes:
    return join(
        [
            Found(
                np.array([place for _, _, place in rows], np.float32).reshape(-1, 4),
                np.array([score for _, score, _ in rows], np.float32),
                np.array([class_id for class_id, _, _ in rows], np.int32),
            )
        ]
    )


def figures(truth: GroundTruth, *rows: Row, at: float | None = None) -> Evaluation:
    return evaluate(truth, [1], boxes(*rows), CLASSES, at)


def matches(scores: list[float], correct: list[int], objects: int) -> Matches:
    return Matches(np.array(scores, np.float64), np.array(correct, np.bool_), objects)


def test_shapes_are_size_shorter_side_and_the_tilt_of_the_outline(truth: GroundTruth) -> None:
    values = measure_shapes(truth)
    assert values[1] == pytest.approx({"size": 20, "side": 20, "tilt": 0})
    assert values[2] == pytest.approx({"size": 600**0.5, "side": 20})
    assert values[4]["tilt"] == pytest.approx(45)


def test_slices_part_the_objects_and_leave_out_what_lacks_the_attribute(truth: GroundTruth) -> None:
    found = figures(truth, (0, 0.9, (0, 0, 20, 20)), (0, 0.8, (100, 100, 250, 250)), (1, 0.7, (0, 100, 60, 160)))
    told: dict[tuple[str, str], Any] = {
        (one.slicing, one.name): (one.objects, one.map50, one.recall) for one in found.slices
    }
    assert told == {
        ("size", "small"): (2, pytest.approx(51 / 101), 0.5),
        ("size", "medium"): (1, pytest.approx(1), 1),
        ("size", "large"): (1, pytest.approx(1), 1),
        ("side", "under32"): (2, pytest.approx(51 / 101), 0.5),
        ("side", "32to96"): (1, pytest.approx(1), 1),
        ("side", "over96"): (1, pytest.approx(1), 1),
        ("tilt", "level"): (1, pytest.approx(1), 1),
        ("tilt", "diagonal"): (1, pytest.approx(1), 1),
    }
    small = next(one for one in found.slices if one.name == "small")
    assert list(small.classes) == ["cat"]


def test_a_false_detection_weighs_in_a_slice_as_it_does_among_all_objects(truth: GroundTruth) -> None:
    """One of three cats is large: the wrong box, best of all, makes of its one hit 3 of 4, not 1 of 2."""
    found = figures(truth, (0, 0.95, WRONG), (0, 0.9, (100, 100, 250, 250)))
    large = next(one for one in found.slices if one.name == "large")
    assert large.map50 == pytest.approx(3 / 4)


def test_the_slice_of_all_objects_has_coco_s_average_precision(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    corners = np.concatenate((places := chance.uniform(0, 900, (40, 2)), places + chance.uniform(8, 60, (40, 2))), 1)
    truth = truth_of(tmp_path / "many.json", [(1, tuple(map(float, row))) for row in corners], {})
    moved = corners[:30] + chance.normal(0, 2, (30, 4))
    found = boxes(*((0, float(score), tuple(row)) for score, row in zip(chance.random(30), moved, strict=True)))
    matching = match(truth, [1], found, CLASSES)
    cats = matching.categories[1]
    ours = average_precision(cats.objects > 0, cats.objects == 0, 40)
    assert 0.1 < ours.mean() < 0.9
    np.testing.assert_allclose(ours, matching.precision[:, :, 0].mean(axis=1), atol=1e-12)


def test_confusion_counts_hits_mistakes_misses_and_inventions(truth: GroundTruth) -> None:
    found = figures(
        truth,
        (0, 0.9, (0, 0, 20, 20)),  # a cat, right
        (1, 0.8, (100, 100, 250, 250)),  # a cat taken for a dog
        (1, 0.7, WRONG),
        (1, 0.2, (0, 100, 60, 160)),  # right, but below the confidence
        at=0.5,
    ).confusion
    assert found.labels == ("cat", "dog", "background")
    assert found.counts.tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 0]]
    assert found.confidence == 0.5


def test_the_confusion_s_diagonal_is_what_precision_and_recall_count(truth: GroundTruth) -> None:
    # Two boxes on one cat: the second is wrong, and no other class's object is left for it.
    found = figures(truth, (0, 0.9, (0, 0, 20, 20)), (0, 0.8, (0, 0, 20, 19)), at=0.5)
    counts = found.confusion.counts
    assert counts.diagonal().sum() / counts[:, :-1].sum() == found.precision == 0.5
    assert counts.diagonal().sum() / counts[:-1].sum() == found.recall == 0.25


def test_the_threshold_is_the_lowest_score_of_the_precision_that_is_wanted() -> None:
    found = confidence_for_precision(matches([0.5, 0.9, 0.7, 0.6, 0.2], [1, 1, 0, 1, 0], 4), 0.75)
    assert found is not None
    assert (found.confidence, found.precision, found.recall) == (0.5, 0.75, 0.75)
    assert confidence_for_precision(matches([0.9, 0.8], [0, 1], 1), 0.6) is None
    assert confidence_for_precision(matches([], [], 3), 0.5) is None


def test_detections_of_one_score_come_all_or_not_at_all() -> None:
    same = matches([0.8, 0.8, 0.8, 0.9], [1, 1, 0, 1], 3)
    found = confidence_for_precision(same, 0.9)
    assert found is not None
    assert found.confidence == 0.9
    assert confidence_for_f1(same) == 0.8


def test_an_edge_s_blur_is_measured_whatever_its_contrast_and_scale() -> None:
    bars = np.zeros((128, 128), np.uint8)
    bars[:, ::32], bars[32:64, 32:96] = 255, 255
    bars = np.repeat(np.repeat(bars[::8, ::8], 8, 0), 8, 1)
    for sigma in (1.5, 2.5):
        soft = cv2.GaussianBlur(bars, (0, 0), sigma)
        for dark, contrast in ((0, 1.0), (100, 0.3)):
            assert measure_pixels(colour(dark + soft * contrast))["blur"] == pytest.approx(sigma, rel=0.25)
    assert measure_pixels(colour(bars))["blur"] < 1
    assert measure_pixels(colour(np.full((20, 20), 51)))["brightness"] == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("shape", [(1, 1), (2, 40), (20, 20)])
def test_where_there_is_no_edge_there_is_no_blur(shape: tuple[int, int]) -> None:
    assert list(measure_pixels(colour(np.full(shape, 200)))) == ["brightness"]


def colour(grey: NDArray[Any]) -> NDArray[np.uint8]:
    return np.repeat(grey.astype(np.uint8)[:, :, np.newaxis], 3, axis=2)


def test_appearance_is_of_the_object_s_own_pixels_though_the_picture_is_reduced(tmp_path: Path) -> None:
    objects = [(1, (0.0, 0.0, 100.0, 100.0)), (1, (100.0, 0.0, 200.0, 100.0)), (1, (300.0, 0.0, 1e30, 10.0))]
    appearance = Appearance(truth_of(tmp_path / "truth.json", objects, {}))
    pixels = np.zeros((50, 100, 3), np.uint8)
    pixels[:, 50:] = 255
    appearance.look(1, Image(pixels, frame=(200, 100)))
    assert {number: known["brightness"] for number, known in appearance.values.items()} == {1: 0, 2: 1}


def report(evaluation: Evaluation, truth: GroundTruth) -> dict[str, Any]:
    model = FakeDetector(ModelSpec(path="fake")).model
    return json.loads(json.dumps(make_report(model, truth, evaluation, {}, [])))  # type: ignore[no-any-return]


def test_gates_are_about_all_classes_one_class_or_a_slice(truth: GroundTruth) -> None:
    made = report(figures(truth, (0, 0.9, (0, 0, 20, 20))), truth)
    texts = (
        "map50=0.1",
        "map50=0.9",
        "recall.cat=0.3",
        "map50.dog=0.1",
        "recall@size=small=0.6",
        "map50.cat@size=small=0.4",
    )
    failed = check_gates(made, [parse_gate(text, ("cat", "dog")) for text in texts])
    assert failed == [
        "map50 is 0.1683, wanted at least 0.9",
        "map50.dog is 0.0000, wanted at least 0.1",
        "recall@size=small is 0.5000, wanted at least 0.6",
    ]


def test_a_gate_on_what_is_not_in_the_images_fails(truth: GroundTruth) -> None:
    made = report(figures(truth), truth)
    (failed,) = check_gates(made, [parse_gate("map50@blur=sharp=0", ())])
    assert failed == "map50@blur=sharp has no figure: the images have no such object, or the model no such class"


@pytest.mark.parametrize(
    "text", ["f1.cat=0.5", "precision@size=small=0.5", "map50@weather=rain=0.5", "map50=", "map50=nan"]
)
def test_what_no_report_says_is_no_gate(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_gate(text, ("cat",))


def test_figures_that_fell_are_named_by_class(truth: GroundTruth) -> None:
    cat: Row = (0, 0.9, (0, 0, 20, 20))
    before = report(figures(truth, cat, (1, 0.7, (0, 100, 60, 160))), truth)
    differences = compare(report(figures(truth, cat), truth), before)
    assert [line.split(" from ")[0] for line in check_regression(differences, 0.3)] == [
        "map50_95 of all classes fell",
        "map50 of all classes fell",
        "map50_95 of dog fell",
        "map50 of dog fell",
    ]
    assert check_regression(differences, 1) == []
    assert check_regression(compare(before, before), 0) == []

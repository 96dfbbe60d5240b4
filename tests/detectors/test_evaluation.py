"""The figures of `sightstream evaluate`, on ground truth small enough to work them out by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectors.base import Boxes
from detectors.boxes import Found, join
from detectors.evaluation import Evaluation, evaluate
from detectors.evaluation_picture import draw_pictures
from detectors.evaluation_run import predict
from detectors.evaluation_truth import ClassMap, GroundTruth, find_images, match_classes, read_truth
from detectors.policy import ImagePolicy
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters
from tests.support.images import encode, photograph

# Two images: two cats and a crowd of dogs in the first, a dog in the second.
IMAGES = [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}]
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 5, "name": "Dog"}]
ANNOTATIONS = [
    {"id": 0, "image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0},
    {"id": 1, "image_id": 7, "category_id": 3, "bbox": [50, 10, 20, 20]},
    {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 40, 60, 20], "iscrowd": 1, "area": 1200},
    {"id": 3, "image_id": 9, "category_id": 5, "bbox": [10, 10, 40, 40]},
]
CLASSES = ClassMap((3, 5))


@pytest.fixture
def truth(tmp_path: Path) -> GroundTruth:
    return written(tmp_path / "truth.json")


def written(path: Path, **changes: Any) -> GroundTruth:
    path.write_text(json.dumps({"images": IMAGES, "categories": CATEGORIES, "annotations": ANNOTATIONS, **changes}))
    return read_truth(path)


def boxes(*images: list[tuple[int, float, tuple[float, float, float, float]]]) -> Boxes:
    """Of each image its (class, score, (left, top, right, bottom))."""
    return join(
        [
            Found(
                np.array([place for _, _, place in rows], np.float32).reshape(-1, 4),
                np.array([score for _, score, _ in rows], np.float32),
                np.array([class_id for class_id, _, _ in rows], np.int32),
            )
            for rows in images
        ]
    )


PERFECT = boxes(
    [(0, 0.9, (10, 10, 30, 30)), (0, 0.8, (50, 10, 70, 30))],
    [(1, 0.7, (10, 10, 50, 50))],
)  # fmt: skip


def figures(truth: GroundTruth, found: Boxes, confidence: float | None = None) -> Evaluation:
    return evaluate(truth, [7, 9], found, CLASSES, confidence)


def test_boxes_that_are_the_truth_have_full_marks(truth: GroundTruth) -> None:
    found = figures(truth, PERFECT)
    assert (found.map50_95, found.map50) == pytest.approx((1, 1))
    assert (found.precision, found.recall, found.f1) == (1, 1, 1)
    assert (found.images, found.objects, found.detections) == (2, 3, 3)
    assert found.confidence == pytest.approx(0.7)
    assert [(score.label, score.objects) for score in found.classes] == [("cat", 2), ("Dog", 1)]
    assert [score.map50 for score in found.classes] == pytest.approx([1, 1])


def test_nothing_detected_is_nothing_right(truth: GroundTruth) -> None:
    found = figures(truth, boxes([], []))
    assert (found.map50_95, found.map50, found.precision, found.recall, found.f1) == (0, 0, 0, 0, 0)
    assert found.calibration.error is None
    assert [score.precision for score in found.classes] == [None, None]


def test_a_box_of_half_the_overlap_counts_at_half_and_not_above(truth: GroundTruth) -> None:
    # The dog's box, 40 x 40, as 40 x 24 of it: IoU 0.6, which three of the ten thresholds 0.5, 0.55 ... 0.95 let pass.
    found = figures(truth, boxes([], [(1, 0.9, (10, 10, 50, 34))]))
    cat, dog = found.classes
    assert cat.map50_95 == 0
    assert dog.map50 == pytest.approx(1)
    assert dog.map50_95 == pytest.approx(0.3)


def test_precision_and_recall_are_those_at_the_best_f1_or_where_asked(truth: GroundTruth) -> None:
    wrong = (200.0, 200.0, 220.0, 220.0)
    found = boxes([(0, 0.9, (10, 10, 30, 30)), (0, 0.6, (50, 10, 70, 30)), (0, 0.5, wrong)], [(1, 0.3, wrong)])
    best = figures(truth, found)
    assert (best.confidence, best.precision, best.recall) == pytest.approx((0.6, 1, 2 / 3))
    low = figures(truth, found, 0.25)
    assert (low.confidence, low.precision, low.recall) == pytest.approx((0.25, 0.5, 2 / 3))
    assert figures(truth, found, 0.95).recall == 0


def test_what_lies_in_a_crowd_counts_neither_way(truth: GroundTruth) -> None:
    first = [(0, 0.9, (10.0, 10.0, 30.0, 30.0)), (0, 0.8, (50.0, 10.0, 70.0, 30.0)), (1, 0.95, (0.0, 40.0, 20.0, 60.0))]
    found = figures(truth, boxes(first, [(1, 0.7, (10, 10, 50, 50))]))
    assert (found.objects, found.detections, found.precision) == (3, 3, 1)


def test_calibration_is_the_distance_of_scores_from_what_is_right(truth: GroundTruth) -> None:
    wrong = (200.0, 200.0, 220.0, 220.0)
    # Bin 0.8..0.9: two boxes, one right. Bin 0.3..0.4: one, wrong. Below the floor: not looked at.
    found = figures(
        truth, boxes([(0, 0.85, (10, 10, 30, 30)), (0, 0.81, wrong)], [(1, 0.3, wrong), (1, 0.2, wrong)])
    ).calibration
    assert found.floor == 0.25
    assert [(count, share) for count, _, share in found.bins] == [(1, 0), (2, 0.5)]
    assert found.error == pytest.approx((0.3 + 2 * abs(0.83 - 0.5)) / 3)


def test_only_the_images_asked_for_count(truth: GroundTruth) -> None:
    found = evaluate(truth, [9], boxes([(1, 0.7, (10, 10, 50, 50))]), CLASSES)
    assert (found.images, found.objects, found.map50) == pytest.approx((1, 1, 1))
    assert found.classes[0].map50 is None


def test_no_images_at_all_have_no_marks(truth: GroundTruth) -> None:
    found = evaluate(truth, [], boxes(), CLASSES)
    assert (found.images, found.objects, found.detections, found.map50) == (0, 0, 0, 0)


def test_classes_are_categories_of_the_same_name() -> None:
    categories = {3: "cat", 5: "Dog", 8: "horse"}
    found = match_classes(("dog", "unicorn", "CAT"), categories)
    assert found.category_ids == (5, None, 3)
    assert ["unicorn" in found.warnings[0], "horse" in found.warnings[1]] == [True, True]
    assert match_classes(("cat", "dog"), {3: "cat", 5: "dog"}).warnings == ()


def test_without_a_common_name_the_order_decides_and_that_is_said() -> None:
    found = match_classes(("Katze", "Hund"), {5: "dog", 3: "cat"})
    assert found.category_ids == (3, 5)
    assert "n-th" in found.warnings[0]


def test_other_names_and_another_number_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="share no name"):
        match_classes(("Katze",), {5: "dog", 3: "cat"})


def test_boxes_of_a_class_without_a_category_are_left_out(truth: GroundTruth) -> None:
    found = evaluate(truth, [7, 9], PERFECT, ClassMap((3, None)))
    assert [score.label for score in found.classes] == ["cat"]
    assert found.map50 == pytest.approx(1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "COCO's format"),
        ("{}", "'images' is missing"),
        ('{"images": [{"id": 1}]}', "'file_name' is missing"),
        (
            '{"images": [], "categories": [], "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, NaN, 1]}]}',
            "a box is",
        ),
    ],
)
def test_what_is_no_ground_truth_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "truth.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        read_truth(path)
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_truth(tmp_path / "none.json")


def test_a_detector_sees_every_image_and_the_unreadable_are_named(tmp_path: Path) -> None:
    files = {number: tmp_path / f"{number}.png" for number in range(70)}
    for number, path in files.items():
        path.write_bytes(b"no image" if number in {0, 33, 69} else encode(photograph(number, 32, 24), "PNG"))
    files[70] = tmp_path / "missing.png"
    watched: list[int] = []
    detector = open_detector(ModelSpec(path="fake"))
    found = predict(detector, files, ImagePolicy(), DetectParameters(), watched.append)
    assert found.image_ids == tuple(sorted(set(range(70)) - {0, 33, 69}))
    assert len(found.boxes) == 67
    assert sum(watched) == 71
    assert {path.name: reason for path, reason in found.missing.items()} == {
        "0.png": "image_type_unsupported",
        "33.png": "image_type_unsupported",
        "69.png": "image_type_unsupported",
        "missing.png": "image_not_found",
    }


@pytest.mark.parametrize("count", [2, 12])
def test_an_evaluation_becomes_pictures(tmp_path: Path, count: int) -> None:
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, count + 1)]
    annotations = [
        {"image_id": 7, "category_id": number, "bbox": [number * 10, 0, 8, 8]} for number in range(1, count + 1)
    ]
    truth = written(tmp_path / "many.json", categories=categories, annotations=annotations)
    found = boxes([(n, 0.9 - n / 20, ((n + 1) * 10.0, 0.0, (n + 1) * 10.0 + 8, 8.0)) for n in range(count)])
    draw_pictures(evaluate(truth, [7], found, ClassMap(tuple(range(1, count + 1)))), "tested", tmp_path / "drawn")
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert [path.name for path in drawn] == ["calibration.png", "confusion.png", "curves.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_nothing_detected_becomes_pictures_too(truth: GroundTruth, tmp_path: Path) -> None:
    draw_pictures(figures(truth, boxes([], [])), "tested", tmp_path)


def test_pictures_that_cannot_be_written_are_refused(truth: GroundTruth, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot write the picture"):
        draw_pictures(figures(truth, PERFECT), "tested", tmp_path / "file")


def test_images_lie_where_is_said_or_beside_the_annotations_or_in_a_folder_there(tmp_path: Path) -> None:
    truth = written(tmp_path / "truth.json")
    (tmp_path / "b.png").touch()
    beside = find_images(truth, tmp_path / "truth.json")
    assert beside == {7: tmp_path / "images" / "a.png", 9: tmp_path / "b.png"}
    assert find_images(truth, tmp_path / "truth.json", tmp_path / "x") == {
        7: tmp_path / "x/a.png",
        9: tmp_path / "x/b.png",
    }

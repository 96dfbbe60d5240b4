"""A diff as a whole: counts, intervals, the worst images, gates, the file of objects."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from schemas.errors import ConfigurationError
from schemas.records import Detection, DetectionResult
from sinks.diff_core import Change
from sinks.diff_gate import DiffGate, broken
from sinks.diff_objects import ObjectsFile
from sinks.diff_policy import DiffPolicy
from sinks.diff_report import Accuracy, DiffJob, DiffReport, make_report
from tests.support.diffs import CAR, CAT, DOG, found, side


def _results(boxes: dict[str, list[Detection]], version: str) -> list[DetectionResult]:
    return [found(image, these, version) for image, these in boxes.items()]


def _report(one: dict[str, list[Detection]], two: dict[str, list[Detection]], job: DiffJob | None = None) -> DiffReport:
    return make_report(side("yolov8n@1", _results(one, "1")), side("yolov8n@2", _results(two, "2")), job or DiffJob())


BEFORE = {"a": [DOG, CAR], "b": [DOG], "c": [CAR], "d": [], "only-1": [DOG]}
AFTER = {"a": [CAT, CAR], "b": [replace(DOG, score=0.5)], "c": [], "d": [CAT], "only-2": [DOG], "only-3": [DOG]}


def test_counts_by_class_and_overall() -> None:
    report = _report(BEFORE, AFTER)
    assert (report.images, report.only_first, report.only_second) == (4, 1, 2)
    assert report.unpaired == pytest.approx(3 / 7)
    assert {change: count for change, count in report.total.counts.items() if count} == {
        Change.SAME: 1,
        Change.RESCORED: 1,
        Change.RECLASSIFIED: 1,
        Change.ADDED: 1,
        Change.LOST: 1,
    }
    assert report.total.disagreement.share == pytest.approx(3 / 5)
    assert sorted(report.classes) == ["car", "cat", "dog"]
    assert report.classes["dog"].counts[Change.RECLASSIFIED] == 1
    assert report.classes["cat"].counts[Change.ADDED] == 1
    assert report.confusions == (("dog", "cat", 1),)
    for summary in (report.total, *report.classes.values()):
        assert sum(summary.counts.values()) == summary.objects
        assert sum(interval.share for interval in summary.shares.values()) == pytest.approx(1)


def test_the_worst_images_come_first() -> None:
    report = _report(BEFORE, AFTER, DiffJob(worst=3))
    assert [pair.image_id for pair in report.worst] == ["a", "d", "c"]
    assert not _report(BEFORE, BEFORE).worst


def test_the_same_sides_give_the_same_figures_whatever_the_order() -> None:
    once = _report(BEFORE, AFTER)
    again = _report(dict(reversed(BEFORE.items())), dict(reversed(AFTER.items())))
    assert json.dumps(once.figures()) == json.dumps(again.figures())
    other = _report(BEFORE, AFTER, DiffJob(seed=1))
    assert other.total.counts == once.total.counts


def test_intervals_hold_the_share_and_narrow_with_more_images() -> None:
    def lost(images: int) -> DiffReport:
        before = {f"{number:04}": [DOG, CAR] for number in range(images)}
        return _report(before, {image: boxes[: int(image) % 4 > 0] for image, boxes in before.items()})

    few, many = (lost(images).total.shares[Change.LOST] for images in (40, 400))
    assert few.share == many.share == pytest.approx(5 / 8)
    assert few.low < few.share < few.high
    assert few.low < many.low < many.share < many.high < few.high
    # Of n images, a quarter loses both objects: standard error of the share sqrt(3/16 / n) / 2.
    assert many.high - many.low == pytest.approx(2 * 1.96 * (3 / 16 / 400) ** 0.5 / 2, rel=0.15)


def test_what_was_never_seen_may_still_happen() -> None:
    same = _report({str(n): [DOG] for n in range(80)}, {str(n): [DOG] for n in range(80)}).total
    assert same.shares[Change.LOST].share == same.shares[Change.LOST].low == 0
    assert same.shares[Change.LOST].high == pytest.approx(1 - 0.025 ** (1 / 80))
    assert same.shares[Change.SAME].low == pytest.approx(0.025 ** (1 / 80))
    assert same.shares[Change.SAME].high == 1


def test_images_without_an_object_are_a_diff_too() -> None:
    nothing = _report({"a": []}, {"a": []}).total
    assert nothing.objects == 0
    assert nothing.disagreement.share == 0


def test_an_empty_diff_is_no_good_one() -> None:
    with pytest.raises(ConfigurationError, match="no results of yolov8n@2"):
        _report({"a": [DOG]}, {})
    with pytest.raises(ConfigurationError, match="no image in common"):
        _report({"a": [DOG]}, {"b": [DOG]})


def test_pictures_of_another_size_are_not_compared() -> None:
    one = side("yolov8n@1", [found("a", [DOG]), found("b", [DOG])])
    two = side("yolov8n@2", [found("a", [DOG], "2"), found("b", [DOG], "2", image_width=1)])
    report = make_report(one, two, DiffJob())
    assert (report.images, report.reframed, report.unpaired) == (1, 1, 0.5)


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("lost>1%", True),
        ("lost>0.2", False),
        ("lost>=20%", True),
        ("same<0.5", True),
        ("disagreement > 61 %", False),
        ("reclassified.dog>49%", True),
        ("lost.cell phone>0", False),
        ("unpaired>40%", True),
        ("map50_drop>0.1", True),
        ("map50_95_drop>10%", False),
    ],
)
def test_gates(text: str, fails: bool) -> None:
    accuracy = iter([Accuracy(4, 0.9, 0.6), Accuracy(4, 0.7, 0.55)])
    report = _report(BEFORE, AFTER, DiffJob(score=lambda _: next(accuracy)))
    lines = broken([DiffGate.parse(text)], report)
    assert bool(lines) is fails
    assert all(text in line for line in lines)


@pytest.mark.parametrize(
    "text", ["lost", "lost>", "lost>2", "lost>101%", "gone>1%", "lost=1%", "unpaired.dog>1%", "lost.>1%", "lost>1e3"]
)
def test_what_is_no_gate_is_said(text: str) -> None:
    with pytest.raises(ConfigurationError):
        DiffGate.parse(text)


def test_every_object_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "objects.parquet"
    with ObjectsFile(path) as objects:
        report = _report(BEFORE, AFTER, DiffJob(watch=objects.add))
    rows = pq.read_table(path).to_pylist()
    assert len(rows) == report.total.objects
    assert [row["change"] for row in rows] == ["reclassified", "same", "rescored", "lost", "added"]
    assert (rows[0]["label_a"], rows[0]["label_b"], rows[0]["iou"]) == ("dog", "cat", 1.0)
    assert (rows[3]["label_b"], rows[3]["box_b"], rows[3]["box_a"]) == (None, None, [300, 200, 400, 300])
    assert (rows[4]["result_a"], rows[4]["result_b"], rows[4]["score_a"]) == ("d-1-0", "d-2-0", None)


def test_a_file_of_objects_is_whole_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ObjectsFile(tmp_path / "objects.parquet") as objects:
        _report(BEFORE, AFTER, DiffJob(watch=objects.add))
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigurationError, match="cannot write"):
        ObjectsFile(tmp_path / "nowhere" / "objects.parquet")


def test_the_policy_is_the_core_s() -> None:
    strict = _report({"a": [DOG]}, {"a": [replace(DOG, score=0.8)]}, DiffJob(policy=DiffPolicy(same_score=0.01)))
    assert strict.total.counts[Change.RESCORED] == 1
    assert np.isclose(strict.worst[0].badness, 0.075)

"""What counts as the same boxes, rule by rule; then real backends on drawn images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from detectors.base import Boxes, Image, ModelInfo
from detectors.boxes import Found, join
from detectors.golden import draw_golden_images
from detectors.image_files import find_images, load_files
from detectors.parity import Asked, Comparison, Tolerance, compare
from detectors.parity_run import check_parity, find_subjects, tolerance_for
from detectors.policy import ImagePolicy
from detectors.spec import ModelSpec
from schemas.errors import ConfigurationError
from tests.support.images import encode, photograph
from tests.support.models import write_tiny_yolo

Box = tuple[int, float, tuple[float, float, float, float]]
ASKED = Asked(confidence=0.25, iou=0.7, limit=5)
TOLERANCE = Tolerance(iou=0.95, score=0.01)
CAT: Box = (0, 0.9, (100, 100, 200, 200))


def boxes(*rows: Box) -> Boxes:
    """Of one image its (class, score, (left, top, right, bottom)), best first."""
    rows = tuple(sorted(rows, key=lambda row: -row[1]))
    return join([
        Found(
            np.array([place for _, _, place in rows], np.float32).reshape(-1, 4),
            np.array([score for _, score, _ in rows], np.float32),
            np.array([class_id for class_id, _, _ in rows], np.int32),
        )
    ])  # fmt: skip


def compared(reference: Boxes, other: Boxes, tolerance: Tolerance = TOLERANCE) -> Comparison:
    return compare("other", ["image"], (reference, other), ASKED, tolerance)


def kinds(comparison: Comparison) -> list[str]:
    return [defect.kind for defect in comparison.defects]


def test_the_same_boxes_hold() -> None:
    found = compared(boxes(CAT, (1, 0.5, (0, 0, 9, 9))), boxes(CAT, (1, 0.5, (0, 0, 9, 9))))
    assert (found.holds, found.compared, found.excused, found.worst_iou, found.worst_score_drift) == (True, 2, 0, 1, 0)


def test_nothing_to_compare_does_not_hold() -> None:
    assert not compared(boxes(), boxes()).holds
    nearly = compared(boxes((0, 0.255, (1, 1, 9, 9))), boxes())
    assert (nearly.holds, nearly.compared, nearly.excused) == (False, 0, 1)


def test_a_box_that_moved_is_named_with_its_image_and_drift() -> None:
    found = compared(boxes(CAT), boxes((0, 0.9, (100, 100, 200, 190))))
    (defect,) = found.defects
    assert (defect.image, defect.kind, defect.class_id, defect.xyxy) == ("image", "drifted", 0, (100, 100, 200, 200))
    assert defect.iou == found.worst_iou == pytest.approx(91 / 101)
    assert not found.holds


def test_a_score_that_drifted_is_a_defect() -> None:
    found = compared(boxes(CAT), boxes((0, 0.88, CAT[2])))
    assert kinds(found) == ["drifted"]
    assert found.worst_score_drift == pytest.approx(0.02)
    assert compared(boxes(CAT), boxes((0, 0.895, CAT[2]))).holds


def test_what_one_side_alone_has_is_missing_or_extra() -> None:
    assert kinds(compared(boxes(CAT), boxes())) == ["missing"]
    assert kinds(compared(boxes(), boxes(CAT))) == ["extra"]
    assert compared(boxes(CAT), boxes()).compared == 1


def test_another_class_is_another_box() -> None:
    assert kinds(compared(boxes(CAT), boxes((1, 0.7, CAT[2])))) == ["missing", "extra"]


@pytest.mark.parametrize(("score", "excused"), [(0.259, True), (0.27, False)])
def test_a_box_near_the_confidence_may_be_there_or_not(score: float, excused: bool) -> None:
    found = compared(boxes(CAT, (1, score, (0, 0, 9, 9))), boxes(CAT))
    assert (found.holds, found.excused) == (excused, int(excused))


def test_where_a_side_is_full_its_least_score_is_what_a_box_needed() -> None:
    full = [(2, 0.8, (20.0 * n, 0.0, 20.0 * n + 9, 9.0)) for n in range(ASKED.limit)]
    assert compared(boxes(*full[:-1], (2, 0.805, (300, 0, 309, 9))), boxes(*full)).excused == 2
    assert kinds(compared(boxes(*full[:-1], (2, 0.9, (300, 0, 309, 9))), boxes(*full))) == ["missing"]


def test_a_box_that_suppression_nearly_took_may_be_there_or_not() -> None:
    # 80 of 100 pixels wide in common: IoU 0.67, where suppression is at 0.7.
    neighbour: Box = (0, 0.6, (120, 100, 220, 200))
    assert compared(boxes(CAT, neighbour), boxes(CAT)).holds
    far: Box = (0, 0.6, (160, 100, 260, 200))
    assert kinds(compared(boxes(CAT, far), boxes(CAT))) == ["missing"]
    better: Box = (0, 0.95, (120, 100, 220, 200))
    assert kinds(compared(boxes(CAT, better), boxes(CAT))) == ["missing"]


def test_one_anchor_may_say_either_of_two_classes_that_score_alike() -> None:
    found = compared(boxes(CAT, (2, 0.500, (0, 0, 50, 50))), boxes(CAT, (3, 0.505, (0, 0, 50, 50))))
    assert (found.holds, found.excused) == (True, 2)


def test_a_share_of_the_boxes_may_be_beyond_where_there_are_enough_to_speak_of_one() -> None:
    row = [(0, 0.9 - n / 100, (20.0 * n, 0.0, 20.0 * n + 9, 9.0)) for n in range(20)]
    left, right = boxes(*row), boxes(*row[:-1], (0, 0.4, row[-1][2]))
    assert not compared(left, right).holds
    assert not compared(left, right, Tolerance(0.95, 0.01, 0.04)).holds
    assert compared(left, right, Tolerance(0.95, 0.01, 0.05)).holds
    assert not compared(boxes(*row[1:]), boxes(*row[1:]), Tolerance(0.95, 0.01, 0.05)).holds


def test_boxes_without_area_compare_too() -> None:
    assert compared(boxes((0, 0.9, (0, 0, 0, 1))), boxes((0, 0.9, (0, 0, 0, 1)))).holds


def test_boxes_that_overlap_each_other_find_their_own_partner() -> None:
    crowd = [(0, 0.9 - n / 100, (100.0 + 15 * n, 100.0, 160.0 + 15 * n, 200.0)) for n in range(5)]
    found = compared(boxes(*crowd), boxes(*((c, s - 0.005, b) for c, s, b in crowd)))
    assert (found.holds, found.compared, found.worst_iou) == (True, 5, 1)


box_rows = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.floats(0.28125, 1, width=32),
        st.tuples(*[st.floats(0, 60, width=32)] * 2, *[st.floats(60, 100, width=32)] * 2),
    ),
    max_size=6,
)


@given(box_rows, box_rows)
def test_every_box_is_in_a_pair_or_a_defect_or_excused(left: list[Box], right: list[Box]) -> None:
    found = compared(boxes(*left), boxes(*right))
    alone = sum(kind != "drifted" for kind in kinds(found))
    assert len(left) + len(right) == 2 * (found.compared - alone) + alone + found.excused
    itself = compared(boxes(*left), boxes(*left))
    assert (itself.compared, itself.excused, itself.defects) == (len(left), 0, ())


def test_golden_images_are_the_same_each_time_and_of_many_shapes() -> None:
    first, second = draw_golden_images(), draw_golden_images()
    assert {(image.width, image.height) for image in first.values()} >= {(1, 1), (640, 480), (3, 2000)}
    assert all(np.array_equal(first[name].pixels, second[name].pixels) for name in first)
    assert all(image.pixels.flags.c_contiguous and image.pixels.dtype == np.uint8 for image in first.values())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_yolo(tmp_path_factory.mktemp("parity") / "tiny.onnx")


@pytest.fixture(scope="module")
def pictures() -> dict[str, Image]:
    return {f"{size}": Image(np.asarray(photograph(size, size, 64 + size))) for size in (1, 33, 96, 160, 200)}


def spec(path: Path, **given: str) -> ModelSpec:
    return ModelSpec(path=str(path), precision="f32", **given)  # type: ignore[arg-type]


def test_every_backend_that_is_here_finds_the_same_alone_and_together(tiny: Path, pictures: dict[str, Image]) -> None:
    subjects = find_subjects(spec(tiny))
    assert [subject.backend for subject in subjects][:2] == ["openvino", "onnxruntime"]
    found = list(check_parity(subjects, pictures, batch=3))
    assert [comparison.holds for comparison in found] == [True] * (2 * len(subjects) - 1)
    assert min(comparison.compared for comparison in found) >= len(pictures)
    assert "onnxruntime" in found[1].subject
    assert "batch 3 against 1" in found[2].subject


@pytest.mark.parametrize(
    ("name", "precisions", "score"),
    [
        ("yolo.onnx", ("f32", "f32"), 0.005),
        ("yolo.onnx", ("f32", "bf16"), 0.05),
        ("yolo.onnx", ("f32", "novel"), 0.05),
        ("yolo.fp16.onnx", ("f32", "f32"), 0.02),
        ("yolo.int8.xml", ("bf16", "f32"), 0.1),
        ("yolo.xml", ("int8", "f32"), 0.1),
    ],
)
def test_the_least_precise_sets_the_tolerance(name: str, precisions: tuple[str, ...], score: float) -> None:
    models = [ModelInfo("yolo", "", "", (), precision=precision) for precision in precisions]
    assert tolerance_for(ModelSpec(path=name), *models).score == score


def test_backends_that_do_not_drive_the_device_are_no_subjects(tiny: Path) -> None:
    assert "onnxruntime" not in {subject.backend for subject in find_subjects(spec(tiny, device="gpu"))}
    assert "openvino" not in {subject.backend for subject in find_subjects(spec(tiny, device="cuda:0"))}


def test_what_does_not_open_is_left_out_and_said_and_the_rest_compared(
    tiny: Path, pictures: dict[str, Image], tmp_path: Path
) -> None:
    said: list[str] = []
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    specs = [replace(spec(tiny), backend="onnxruntime", precision=name) for name in ("bf16", "f32")]
    found = check_parity([*specs, spec(bad)], pictures, leave_out=lambda subject, _: said.append(subject))
    assert next(found).holds
    with pytest.raises(ConfigurationError, match=r"bad\.onnx"):
        next(found)
    assert said == ["tiny.onnx on onnxruntime, bf16", "bad.onnx on auto, f32"]


def test_a_named_backend_is_the_only_one(tiny: Path) -> None:
    assert [subject.backend for subject in find_subjects(spec(tiny, backend="onnxruntime"))] == ["onnxruntime"]


def test_a_model_with_another_weight_is_found_out(tiny: Path, pictures: dict[str, Image], tmp_path: Path) -> None:
    model = onnx.load(tiny)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "weights")
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(1.1), "weights"))
    onnx.save(model, tmp_path / "other.onnx")
    specs = [spec(tiny, backend="openvino"), spec(tmp_path / "other.onnx", backend="openvino")]
    found = {comparison.subject: comparison for comparison in check_parity(specs, pictures, batch=3)}
    wrong = [subject for subject, comparison in found.items() if not comparison.holds]
    assert len(wrong) == 1
    assert wrong[0].startswith("other.onnx on openvino")
    assert {defect.image for defect in found[wrong[0]].defects} <= set(pictures)


def test_models_of_other_classes_are_not_compared(tiny: Path, pictures: dict[str, Image], tmp_path: Path) -> None:
    other = write_tiny_yolo(tmp_path / "other.onnx", labels=("a", "b", "c", "d"))
    with pytest.raises(ConfigurationError, match="other classes"):
        list(check_parity([spec(tiny), spec(other)], pictures))


def test_images_of_a_directory_are_found_spread_and_loaded(tmp_path: Path) -> None:
    for number in range(10):
        content = b"no image" if number == 5 else encode(photograph(number, 32, 24), "PNG")
        (tmp_path / f"{number}.png").write_bytes(content)
    (tmp_path / "notes.txt").touch()
    assert [path.stem for path in find_images(tmp_path, 5)] == ["0", "2", "4", "6", "8"]
    loaded = load_files(find_images(tmp_path, 100), ImagePolicy(), lambda _, image: image.width)
    assert list(loaded.kept.values()) == [32] * 9
    assert {path.stem: reason for path, reason in loaded.missing.items()} == {"5": "image_type_unsupported"}


def test_a_directory_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no images"):
        find_images(tmp_path, 5)

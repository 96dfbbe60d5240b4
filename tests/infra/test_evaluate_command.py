"""`sightstream evaluate`, as it is called: tables, files, exit codes."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from detectors.base import Image
from detectors.decode import decode
from detectors.fake import LABELS as FAKE_LABELS
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from detectors.training.dataset import Label, Picture, write_dataset
from infra.cli import group
from schemas.records import DetectParameters
from tests.support.images import encode, photograph
from tests.support.models import LABELS


@pytest.fixture
def data(tmp_path: Path, pictures: Path) -> tuple[str, str]:
    """Ground truth of the pictures."""
    path = tmp_path / "truth.json"
    write_truth(path, [f"{number}.png" for number in range(3)])
    return str(path), str(pictures)


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """A data set, in a split's folder, of what the fake detector finds: on it, it is perfect."""
    folder = tmp_path / "set" / "test"
    (folder / "images").mkdir(parents=True)
    detector, pictures = open_detector(ModelSpec(path="fake")), list[Picture]()
    for number in range(4):
        file = folder / "images" / f"{number}.png"
        file.write_bytes(encode(photograph(number, 160, 128), "PNG"))
        found = detector.detect([Image(decode(file.read_bytes(), 10**6))], [DetectParameters(confidence=0.1)])
        labels = []
        for box, class_id in zip(found.xyxy.tolist(), found.class_ids.tolist(), strict=True):
            left, top, right, bottom = box
            outline = ((left, top), (right, top), (right, bottom), (left, bottom))
            labels.append(Label((left, top, right, bottom), class_id, outline))
        pictures.append(Picture(file, 160, 128, tuple(labels)))
    write_dataset(folder, FAKE_LABELS, pictures)
    return folder


def write_truth(path: Path, names: list[str], labels: tuple[str, ...] = LABELS) -> None:
    truth = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "categories": [{"id": 10 + number, "name": label} for number, label in enumerate(labels)],
        "annotations": [
            {"image_id": number, "category_id": 10 + number % 4, "bbox": [10, 10, 90, 90]}
            for number in range(len(names))
        ],
    }
    path.write_text(json.dumps(truth))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(group, list(map(str, arguments)))


def test_evaluate_prints_a_table_and_writes_json_and_pictures(
    tiny: Path, data: tuple[str, str], tmp_path: Path
) -> None:
    figures, drawn = tmp_path / "figures.json", tmp_path / "drawn"
    result = run("evaluate", "--model", tiny, "--data", *data, "--json", figures, "--pictures", drawn, "--at", 0.5)
    assert result.exit_code == 0, result.output
    assert "all classes" in result.stdout
    assert result.stdout.startswith("tiny on openvino")
    assert "calibration error" in result.stdout
    said = json.loads(figures.read_text())
    assert (said["images"], said["objects"], said["confidence"], said["missing"]) == (3, 3, 0.5, {})
    assert said["model"]["digest"].startswith("sha256:")
    assert [entry["label"] for entry in said["classes"]] == list(LABELS)
    assert len(said["classes"][0]["curve"]) == 101
    assert all(
        (drawn / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in ("curves", "calibration", "confusion")
    )


def test_evaluate_counts_and_names_images_that_are_not_there(tiny: Path, data: tuple[str, str], pictures: Path) -> None:
    (pictures / "1.png").unlink()
    arguments = ("evaluate", "--model", tiny, "--precision", "f32", "--data", *data)
    result = run(*arguments)
    assert result.exit_code == 1
    assert f"not read: {pictures / '1.png'} (image_not_found)" in result.stderr
    assert "2 images" in result.stdout
    assert run(*arguments, "--allow-missing").exit_code == 0


def test_evaluate_warns_where_classes_go_by_order_and_refuses_where_they_cannot(
    tiny: Path, data: tuple[str, str], tmp_path: Path
) -> None:
    write_truth(tmp_path / "truth.json", ["0.png"], ("w", "x", "y", "z"))
    result = run("evaluate", "--model", tiny, "--precision", "f32", "--data", *data)
    assert result.exit_code == 0, result.output
    assert "warning: no class has the name of a category" in result.stderr
    write_truth(tmp_path / "truth.json", ["0.png"], ("w", "x", "y"))
    refused = run("evaluate", "--model", tiny, "--precision", "f32", "--data", *data)
    assert refused.exit_code == 2
    assert "share no name" in refused.stderr


@pytest.mark.parametrize("option", ["--json", "--pictures"])
def test_evaluate_refuses_a_place_that_is_not_there_before_it_begins(
    tiny: Path, data: tuple[str, str], tmp_path: Path, option: str
) -> None:
    result = run("evaluate", "--model", tiny, "--data", *data, option, tmp_path / "missing" / "file.png")
    assert result.exit_code == 2
    assert f"there is no directory {tmp_path / 'missing'}" in result.stderr


def test_evaluate_refuses_places_that_are_not_there_before_it_opens_the_model(
    data: tuple[str, str], tmp_path: Path
) -> None:
    arguments = ("evaluate", "--model", tmp_path / "missing.onnx", "--data")
    nowhere = run(*arguments, data[0], tmp_path / "nowhere")
    assert (nowhere.exit_code, nowhere.stderr) == (2, f"sightstream: there is no directory {tmp_path / 'nowhere'}\n")


@pytest.mark.parametrize(("module", "options"), [("pycocotools", []), ("matplotlib", ["--pictures", "drawn"])])
def test_evaluate_names_the_extra_that_is_missing(
    tiny: Path, data: tuple[str, str], monkeypatch: pytest.MonkeyPatch, module: str, options: list[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    result = run("evaluate", "--model", tiny, "--data", *data, *options)
    assert result.exit_code == 2
    assert "pip install 'sightstream[evaluate]'" in result.stderr


def test_evaluate_refuses_a_file_that_is_no_ground_truth(tiny: Path, pictures: Path) -> None:
    result = run("evaluate", "--model", tiny, "--data", tiny, pictures)
    assert result.exit_code == 2
    assert "not in COCO's format" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_evaluate_takes_a_data_set_s_folder_and_tells_of_slices_and_confusion(known: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    result = run("evaluate", "--model", "fake", "--data", known, "--json", figures, "--threshold-for", "precision=0.99")
    assert result.exit_code == 0, result.output
    said = json.loads(figures.read_text())
    assert said["map50"] == pytest.approx(1)
    kinds = {(entry["slicing"], entry["name"]): entry["map50"] for entry in said["slices"]}
    assert {slicing for slicing, _ in kinds} == {"size", "side", "tilt", "blur", "brightness"}
    assert kinds["tilt", "level"] == pytest.approx(1)
    assert said["confusion"]["labels"] == [*FAKE_LABELS, "background"]
    assert sum(map(sum, said["confusion"]["counts"])) == said["objects"]
    assert said["threshold"]["recall"] == 1
    assert said["failures"] == []
    assert "precision 0.99 is reached from confidence" in result.stdout
    assert "brightness" in result.stdout


def test_evaluate_looks_for_a_split_where_a_folder_is_none(known: Path) -> None:
    result = run("evaluate", "--model", "fake", "--data", known.parent)
    assert result.exit_code == 2
    assert f"there is one in {known}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_evaluate_refuses_an_empty_data_set(tmp_path: Path) -> None:
    write_dataset(tmp_path, FAKE_LABELS, [])
    result = run("evaluate", "--model", "fake", "--data", tmp_path)
    assert (result.exit_code, "there are no images" in result.stderr) == (2, True)


def test_gates_that_fail_are_named_with_exit_code_3(known: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ("evaluate", "--model", "fake", "--data", known)
    good = run(*arguments, "--min", "map50=0.99", "--min", "recall.car=1", "--min", "map50@tilt=level=0.9")
    assert good.exit_code == 0, good.output
    # Boxes below 0.7 are not asked for, so that most objects are missed.
    bad = run(*arguments, "--confidence", 0.7, "--min", "recall=0.9", "--min", "map50=0.01", "--json", figures)
    assert bad.exit_code == 3
    assert bad.stderr.count("failed: ") == 1
    assert "failed: recall is 0." in bad.stderr
    assert "wanted at least 0.9" in json.loads(figures.read_text())["failures"][0]


def test_a_baseline_is_compared_with_and_bounds_how_far_figures_fall(known: Path, tmp_path: Path) -> None:
    before, arguments = tmp_path / "before.json", ("evaluate", "--model", "fake", "--data", known)
    assert run(*arguments, "--json", before).exit_code == 0
    same = run(*arguments, "--baseline", before, "--max-regression", 0)
    assert same.exit_code == 0, same.output
    assert "(+0.0000)" in same.stdout
    worse = run(*arguments, "--confidence", 0.7, "--baseline", before, "--max-regression", 0.01)
    assert worse.exit_code == 3
    assert "failed: map50 of all classes fell from 1.0000 to 0." in worse.stderr
    assert run(*arguments, "--confidence", 0.7, "--baseline", before).exit_code == 0


def test_a_baseline_on_other_annotations_or_none_at_all_is_refused(
    known: Path, data: tuple[str, str], tmp_path: Path
) -> None:
    before = tmp_path / "before.json"
    assert run("evaluate", "--model", "fake", "--data", known, "--json", before).exit_code == 0
    other = run("evaluate", "--model", "fake", "--data", *data, "--baseline", before)
    assert (other.exit_code, "other annotations" in other.stderr) == (2, True)
    none = run("evaluate", "--model", "fake", "--data", *data, "--baseline", data[0])
    assert (none.exit_code, "is no report" in none.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min", "map50"], "is not METRIC"),
        (["--min", "map51=0.5"], "there is no metric 'map51'"),
        (["--min", "map50.whale=0.5"], "there is no class 'whale'"),
        (["--min", "map50=1.5"], "no number from 0 to 1"),
        (["--min", "map50@size=huge=0.5"], "there is no slice 'huge'"),
        (["--max-regression", "0.1"], "needs a --baseline"),
        (["--threshold-for", "luck=0.5"], "'luck' is not precision"),
        (["--threshold-for", "precision=much"], "'much' is not a valid float"),
        (["--baseline", "nowhere.json"], "cannot read the baseline"),
    ],
)
def test_what_no_report_could_answer_is_refused_before_the_model_is_opened(
    data: tuple[str, str], tmp_path: Path, options: list[str], message: str
) -> None:
    result = run("evaluate", "--model", tmp_path / "missing.onnx", "--data", *data, *options)
    assert result.exit_code == 2
    assert message in result.stderr

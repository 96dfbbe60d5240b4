"""`sightstream data`, as it is called: tables, files, exit codes."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from detectors.training.dataset import Label, read_dataset
from infra.cli import group
from tests.support.data import may_skip, shared_dir
from tests.support.datasets import BOX, draw_dataset, save
from tests.support.images import photograph


def run(*arguments: object) -> Result:
    return CliRunner().invoke(group, ["--set", "images.decoders=1", "data", *map(str, arguments)])


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """Twelve pictures with labels of two classes in YOLO's format."""
    folder = tmp_path / "yolo"
    folder.mkdir()
    (folder / "classes.txt").write_text("cat\ndog\n")
    for number in range(12):
        save(folder / f"{number}.jpg", photograph(number))
        (folder / f"{number}.txt").write_text(f"{number % 2} 0.5 0.5 0.4 0.4\n")
    return folder


def test_from_foreign_labels_to_an_augmented_set_with_splits(yolo: Path, tmp_path: Path) -> None:
    imported = run("import", yolo, tmp_path / "all", "--map", "dog=hound")
    assert imported.exit_code == 0, imported.output
    assert imported.stdout.splitlines() == [
        "                 all",
        "pictures          12",
        "without objects    0",
        "cat                6",
        "hound              6",
    ]
    divided = run("split", tmp_path / "all", tmp_path / "parts", "--shares", "0.5", "0.5", "0", "--place", "hardlink")
    assert divided.exit_code == 0, divided.output
    assert divided.stdout.splitlines()[:2] == ["                 train  val", "pictures             6    6"]
    augmented = run("augment", tmp_path / "parts", tmp_path / "more", "--copies", "2", "--degrees", "3")
    assert augmented.exit_code == 0, augmented.output
    assert augmented.stdout.splitlines()[1] == "pictures            18    6"
    checked = run("check", tmp_path / "more", "--json", tmp_path / "report.json", "--near", "0")
    assert checked.exit_code == 0, checked.output
    assert checked.stdout.splitlines()[-1].startswith("errors: 0, ")
    assert json.loads((tmp_path / "report.json").read_text())["pictures"] == {"train": 18, "val": 6}


def test_defects_are_lines_on_stderr_and_nothing_is_written(yolo: Path, tmp_path: Path) -> None:
    (yolo / "3.txt").write_text("0 0.5 0.5 0.4\n9 0.5 0.5 0.4 0.4\n1 0.9 0.5 0.4 0.4")
    (yolo / "4.jpg").write_bytes(b"")
    refused = run("import", yolo, tmp_path / "out")
    assert refused.exit_code == 2
    assert refused.stderr.splitlines() == [
        f"{yolo / '3.txt'}, line 1: 4 columns: a box has 5, a turned box 9, a polygon 7 or more, an odd number",
        f"{yolo / '3.txt'}, line 2: the label 'class 9' is unknown: the classes are cat, dog",
        f"{yolo / '3.txt'}, line 3: the box reaches 9.6 px beyond the frame of 96x64",
        f"{yolo / '4.jpg'}: {yolo / '4.jpg'}: the picture cannot be read: the file is empty",
        "sightstream: 4 defects, and nothing is written; --repair leaves out what is wrong",
    ]
    assert not (tmp_path / "out").exists()
    repaired = run("import", yolo, tmp_path / "out", "--repair")
    assert repaired.exit_code == 0, repaired.output
    assert len(repaired.stderr.splitlines()) == 4
    pictures = {picture.file.name: picture for picture in read_dataset(tmp_path / "out").pictures}
    assert len(pictures) == 11
    assert [label.box for label in pictures["3.jpg"].labels] == [pytest.approx((67.2, 19.2, 96, 44.8))]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--names", "cat,cat"], "sightstream: --names cat,cat: it names a class twice"),
        (["--drop", "bird"], "sightstream: --drop bird: there is no such class in the source; there are cat, dog"),
        (["--format", "coco"], "there are no labels in COCO's format"),
        (["--format", "voc"], "there are no labels in Pascal VOC's format"),
        (["--drop", "cat", "--only", "cat"], "--drop and --only both name cat"),
        (["--map", "cat"], "'cat' is not NAME=VALUE"),
    ],
)
def test_options_that_make_no_sense(yolo: Path, tmp_path: Path, options: list[str], says: str) -> None:
    result = run("import", yolo, tmp_path / "out", *options)
    assert result.exit_code == 2
    assert says in result.stderr


def test_names_may_come_from_a_file(yolo: Path, tmp_path: Path) -> None:
    (tmp_path / "names").write_text("one\ntwo\nthree\n")
    assert run("import", yolo, tmp_path / "out", "--names", tmp_path / "names").exit_code == 0
    assert read_dataset(tmp_path / "out").names == ("one", "two", "three")
    given = ["--names", "one,two", "--map", "two=zwei", "--drop", "one"]
    assert run("import", yolo, tmp_path / "renamed", *given).exit_code == 0
    assert read_dataset(tmp_path / "renamed").names == ("zwei",)


def test_a_check_that_finds_errors_exits_with_1_and_names_them(tmp_path: Path) -> None:
    tiny = Label((1, 1, 3, 3), 1)
    draw_dataset(tmp_path / "in", {"a.jpg": [Label(BOX, 0), Label((90, 5, 120, 30), 1), tiny], "b.jpg": []})
    (tmp_path / "in" / "images" / "b.jpg").write_bytes(b"no picture")
    result = run("check", tmp_path / "in", "--json", tmp_path / "report.json")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "errors: 2, warnings: 1"
    beyond, broken, small = result.stderr.splitlines()
    assert beyond.startswith("error: box_beyond_frame: ")
    assert beyond.endswith("a.jpg: dog at 90.0 5.0 120.0 30.0: reaches 24.0 px beyond 96x64")
    assert "b.jpg: image_type_unsupported: " in broken
    assert small.startswith("warning: tiny_box: ")
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["errors"], report["warnings"]) == (2, 1)
    assert [finding["kind"] for finding in report["findings"]] == ["box_beyond_frame", "tiny_box", "broken_picture"]


def test_a_report_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "in", {"a.jpg": [Label(BOX, 0)]})
    result = run("check", tmp_path / "in", "--json", tmp_path / "nowhere" / "report.json")
    assert result.exit_code == 2
    assert f"there is no directory {tmp_path / 'nowhere'}" in result.stderr


def test_warnings_are_errors_where_that_is_asked_for(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "in", {"a.jpg": [Label((1, 1, 3, 3), 0), Label(BOX, 1)]})
    assert run("check", tmp_path / "in").exit_code == 0
    assert run("check", tmp_path / "in", "--strict").exit_code == 1
    assert run("check", tmp_path / "in", "--strict", "--tiny", "1").exit_code == 0


@pytest.mark.parametrize("command", ["check", "split", "augment"])
def test_a_set_that_is_none_is_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "in").mkdir()
    out = [] if command == "check" else [tmp_path / "out"]
    missing = run(command, tmp_path / "in", *out)
    (tmp_path / "in" / "annotations.json").write_text('{"images": [')
    broken = run(command, tmp_path / "in", *out)
    (tmp_path / "in" / "annotations.json").write_text('{"images": [], "categories": [], "annotations": []}')
    empty = run(command, tmp_path / "in", *out)
    for result, says in ((missing, "cannot read"), (broken, "not in COCO's format"), (empty, "holds no picture")):
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("sightstream: ")
        assert says in result.stderr
        assert result.stderr.count("\n") == 1


def test_photographs_of_coco_come_in_as_they_are(tmp_path: Path) -> None:
    shared = shared_dir()
    if shared is None:
        assert may_skip()
        pytest.skip("no photographs here")
    source = shared / "datasets" / "coco-val-80"
    result = run(
        "import",
        source,
        tmp_path / "out",
        "--place",
        "symlink",
        "--only",
        "person",
        "--only",
        "cup",
        "--map",
        "cup=mug",
    )
    assert result.exit_code == 0, result.output
    ours, theirs = read_dataset(tmp_path / "out"), read_dataset(source)
    assert ours.names == ("person", "mug")
    wanted = {theirs.names.index("person"): 0, theirs.names.index("cup"): 1}
    for one, other in zip(ours.pictures, theirs.pictures, strict=True):
        assert (one.file.name, one.width, one.height) == (other.file.name, other.width, other.height)
        kept = [label for label in other.labels if label.class_id in wanted]
        assert [label.class_id for label in one.labels] == [wanted[label.class_id] for label in kept]
        assert [label.box for label in one.labels] == [pytest.approx(label.box, abs=1.1) for label in kept]
        assert [label.crowd for label in one.labels] == [label.crowd for label in kept]

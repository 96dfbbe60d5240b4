"""Labels of COCO, Pascal VOC and YOLO as they lie on disk, good ones and bad ones."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from detectors.training.dataset import Dataset, Label
from detectors.training.importers import read_labels
from detectors.training.importing import Import, ImportPolicy, plan_import, write_import
from schemas.errors import ConfigurationError
from tests.support.images import encode, exif, photograph

BOX = (10.0, 20.0, 50.0, 60.0)


def put_picture(file: Path, seed: int = 0, orientation: int = 1) -> Path:
    """A JPEG of 96x64 pixels; its frame is upright."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encode(photograph(seed), "JPEG", exif=exif(orientation)))
    return file


def plan(source: Path, kind: str | None = None, **policy: Any) -> Import:
    names = policy.get("names", ())
    return plan_import(read_labels(source, kind, names), ImportPolicy(**policy))


def write(source: Path, out: Path, kind: str | None = None, **policy: Any) -> dict[str, Dataset]:
    planned = plan(source, kind, **policy)
    assert [str(defect) for defect in planned.defects] == []
    return write_import(planned, out, "copy")


def labels_of(splits: Mapping[str, Dataset], split: str = "") -> dict[str, tuple[Label, ...]]:
    return {picture.file.name: picture.labels for picture in splits[split].pictures}


def defects_of(planned: Import) -> list[str]:
    return [str(defect) for defect in planned.defects]


def put_coco(file: Path, annotations: Sequence[Mapping[str, Any]], **image: Any) -> Path:
    """A file about `a.jpg`, with categories whose ids have gaps and are not in order."""
    put_picture(file.parent / "a.jpg")
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 96, "height": 64, **image}],
        "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 20, 40, 40], **a} for a in annotations
        ],
    }
    file.write_text(json.dumps(content))
    return file


def voc(objects: str, size: str = "<size><width>96</width><height>64</height><depth>3</depth></size>") -> str:
    return f"<annotation>\n<filename>a.jpg</filename>\n{size}\n{objects}</annotation>"


def voc_object(name: str, corners: Sequence[float] = (11, 21, 50, 60), more: str = "") -> str:
    sides = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object><name>{name}</name>{more}<bndbox>{sides}</bndbox></object>\n"


def put_yolo(folder: Path, lines: str, names: str = "cat\ndog\n") -> Path:
    put_picture(folder / "a.jpg")
    (folder / "a.txt").write_text(lines)
    (folder / "classes.txt").write_text(names)
    return folder


class TestCoco:
    def test_ids_with_gaps_crowds_and_polygons(self, tmp_path: Path) -> None:
        square = [10, 20, 10, 60, 50, 60, 50, 20]  # anticlockwise
        put_coco(
            tmp_path / "labels.json",
            [
                {},
                {"category_id": 3, "segmentation": [square]},
                {"iscrowd": 1, "segmentation": {"counts": [1, 2], "size": [64, 96]}},
                {"segmentation": [square, square]},
                {"bbox": None, "segmentation": [square]},
            ],
        )
        splits = write(tmp_path / "labels.json", tmp_path / "out")
        assert splits[""].names == ("cat", "dog")
        clockwise = ((10.0, 20.0), (50.0, 20.0), (50.0, 60.0), (10.0, 60.0))
        assert labels_of(splits)["a.jpg"] == (
            Label(BOX, 1),
            Label(BOX, 0, clockwise),
            Label(BOX, 1, crowd=True),
            Label(BOX, 1),
            Label(BOX, 1, clockwise),
        )

    def test_its_own_layout_with_splits(self, tmp_path: Path) -> None:
        for seed, split in enumerate(("train2017", "val2017")):
            put_picture(tmp_path / split / f"{split}.jpg", seed)
            (tmp_path / "annotations").mkdir(exist_ok=True)
            content = {
                "images": [{"id": 1, "file_name": f"{split}.jpg"}],
                "categories": [{"id": 5, "name": "cat"}],
                "annotations": [{"image_id": 1, "category_id": 5, "bbox": [1, 2, 3, 4]}],
            }
            (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
            (tmp_path / "annotations" / f"captions_{split}.json").write_text("{}")
        splits = write(tmp_path, tmp_path / "out")
        assert {split: list(labels_of(splits, split)) for split in splits} == {
            "train": ["train2017.jpg"],
            "val": ["val2017.jpg"],
        }

    def test_a_folder_for_each_split_one_of_them_called_valid(self, tmp_path: Path) -> None:
        for split in ("train", "valid", "test"):
            (tmp_path / "in" / split).mkdir(parents=True)
            put_coco(tmp_path / "in" / split / "_annotations.coco.json", [{}])
        assert list(write(tmp_path / "in", tmp_path / "out")) == ["train", "val", "test"]

    @pytest.mark.parametrize(
        ("annotation", "says"),
        [
            ({"category_id": 4}, "annotations[0]: the label 'category 4' is unknown: the classes are cat, dog"),
            ({"image_id": 8}, "annotations[0]: there is no image with the id 8"),
            ({"bbox": [1, 2, 3]}, "annotations[0]: bbox is not four numbers: [1, 2, 3]"),
            ({"bbox": [1, 2, 0, 5]}, "annotations[0]: the box is empty: 0 x 5"),
            ({"bbox": [1, 2, -4, 5]}, "annotations[0]: the box is empty: -4 x 5"),
            ({"bbox": [1, 2, float("nan"), 5]}, "annotations[0]: the box is not of finite numbers"),
            ({"bbox": [90, 2, 20, 5]}, "annotations[0]: the box reaches 14.0 px beyond the frame of 96x64"),
            ({"category_id": [1]}, "annotations[0]: image_id or category_id is neither a number nor a string"),
        ],
    )
    def test_defects_are_named_with_their_entry(self, tmp_path: Path, annotation: dict[str, Any], says: str) -> None:
        file = put_coco(tmp_path / "labels.json", [annotation])
        assert defects_of(plan(file)) == [f"{file}: {says}"]

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "line 1: not JSON"),
            (b'{"images": [],\n "annotations": [}', "line 2: not JSON"),
            (b"\xff\xfe{\x80", "is not UTF-8 text|not JSON"),
            (b"[1, 2]", "not in COCO's format: it is no object"),
            (b'{"images": {}}', "not in COCO's format: it has no list 'categories'"),
            (b"[" * 100_000, "nested too deep"),
            (b'{"images": [], "categories": [], "annotations": []}', "there is no picture in the source"),
        ],
    )
    def test_what_is_none_is_one_error(self, tmp_path: Path, content: bytes, says: str) -> None:
        (tmp_path / "labels.json").write_bytes(content)
        with pytest.raises(ConfigurationError, match=says):
            plan(tmp_path / "labels.json")

    def test_sizes_are_those_of_the_upright_picture(self, tmp_path: Path) -> None:
        file = put_coco(tmp_path / "labels.json", [{}])
        put_picture(tmp_path / "a.jpg", orientation=6)
        [defect] = defects_of(plan(file))
        assert defect.startswith(
            f"{file}: images[0]: labels are of a picture of 96x64, but {tmp_path / 'a.jpg'} has 64x96"
        )
        assert "turned by its EXIF orientation" in defect
        put_coco(tmp_path / "labels.json", [{}], width=64, height=96)
        put_picture(tmp_path / "a.jpg", orientation=6)
        [picture] = write(file, tmp_path / "out")[""].pictures
        assert (picture.width, picture.height) == (64, 96)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (None, "there is no such picture"),
            (b"", "the file is empty"),
            (b"GIF89a", "neither JPEG nor PNG nor WebP"),
            (b"\xff\xd8\xff\xe0 nonsense", "its header is broken"),
        ],
    )
    def test_pictures_that_cannot_be_read_are_defects(self, tmp_path: Path, content: bytes | None, says: str) -> None:
        file = put_coco(tmp_path / "labels.json", [{}])
        if content is None:
            (tmp_path / "a.jpg").unlink()
        else:
            (tmp_path / "a.jpg").write_bytes(content)
        [defect] = defects_of(plan(file))
        assert says in defect

    def test_a_set_of_ours_comes_in_as_it_lies(self, tmp_path: Path) -> None:
        put_coco(tmp_path / "annotations.json", [{}], file_name="images/deep/a.jpg")
        put_picture(tmp_path / "images" / "deep" / "a.jpg")
        [picture] = write(tmp_path, tmp_path / "out")[""].pictures
        assert picture.file == tmp_path / "out" / "images" / "deep" / "a.jpg"

    def test_no_picture_is_written_out_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        file = put_coco(tmp_path / "in" / "labels.json", [{}], file_name="../../b.jpg")
        put_picture(tmp_path / "b.jpg")
        put_picture(tmp_path.parent / "b.jpg")
        [picture] = write(file, tmp_path / "deep" / "er" / "out")[""].pictures
        assert picture.file == tmp_path / "deep" / "er" / "out" / "images" / "b.jpg"


class TestVoc:
    def test_corners_count_from_one_and_difficult_objects_are_crowds(self, tmp_path: Path) -> None:
        put_picture(tmp_path / "JPEGImages" / "a.jpg")
        (tmp_path / "Annotations").mkdir()
        objects = voc_object("dog") + voc_object("cat", (1, 1, 96, 64), "<difficult>1</difficult>")
        (tmp_path / "Annotations" / "a.xml").write_text(voc(objects))
        splits = write(tmp_path, tmp_path / "out")
        assert splits[""].names == ("cat", "dog")
        assert labels_of(splits)["a.jpg"] == (Label(BOX, 1), Label((0.0, 0.0, 96.0, 64.0), 0, crowd=True))

    def test_the_lists_of_its_kit_are_splits(self, tmp_path: Path) -> None:
        lists = tmp_path / "in" / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        for seed, (name, split) in enumerate({"a": "train", "b": "val", "c": "none"}.items()):
            put_picture(tmp_path / "in" / "JPEGImages" / f"{name}.jpg", seed)
            (tmp_path / "in" / "Annotations").mkdir(exist_ok=True)
            text = voc(voc_object("dog")).replace("a.jpg", f"{name}.jpg")
            (tmp_path / "in" / "Annotations" / f"{name}.xml").write_text(text)
            (lists / f"{split}.txt").write_text(f"{name}\n")
        splits = write(tmp_path / "in", tmp_path / "out")
        assert {split: list(labels_of(splits, split)) for split in splits} == {"train": ["a.jpg"], "val": ["b.jpg"]}

    def test_subfolders_stay_and_those_of_splits_become_splits(self, tmp_path: Path) -> None:
        for number, place in enumerate(("train/day", "train/night", "valid")):
            put_picture(tmp_path / "in" / place / "a.jpg", number)
            (tmp_path / "in" / place / "a.xml").write_text(voc(voc_object("dog")))
        splits = write(tmp_path / "in", tmp_path / "out")
        names = {split: [str(p.file.relative_to(tmp_path / "out")) for p in splits[split].pictures] for split in splits}
        assert names == {
            "train": ["train/images/day/a.jpg", "train/images/night/a.jpg"],
            "val": ["val/images/a.jpg"],
        }

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            (voc(voc_object("dog", (11, 21, 150, 60))), ", line 4: the box reaches 54.0 px beyond the frame of 96x64"),
            (voc("<object><name>dog</name></object>"), ", line 4: the object 'dog' has no bndbox of four numbers"),
            (voc("\n" + voc_object("")), ", line 5: the object has no name"),
            (voc("<object>"), ": line 4: not XML: mismatched tag"),
            ("", ": line 1: not XML: no element found"),
            ("<html/>", ", line 1: <html> is not <annotation>"),
            ("<?xml version='1.0' encoding='klingon'?>\n<annotation/>", ": line 1: not XML: "),
            (voc("", "<size><width>wide</width></size>"), ", line 1: its size is not two numbers"),
            (
                voc("", "<size><width>50</width><height>50</height></size>"),
                ", line 1: labels are of a picture of 50x50",
            ),
            ("<annotation>" * 200, ": line 1: elements are nested too deep"),
        ],
    )
    def test_defects_are_named_with_their_line(self, tmp_path: Path, text: str, says: str) -> None:
        put_picture(tmp_path / "a.jpg")
        (tmp_path / "a.xml").write_text(text)
        [defect] = defects_of(plan(tmp_path))
        assert defect.startswith(f"{tmp_path / 'a.xml'}{says}")

    def test_a_bomb_of_entities_is_refused(self, tmp_path: Path) -> None:
        entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
        bomb = f'<?xml version="1.0"?>\n<!DOCTYPE x [<!ENTITY e0 "ha">{entities}]>\n<annotation>&e9;</annotation>'
        put_picture(tmp_path / "a.jpg")
        (tmp_path / "a.xml").write_text(bomb)
        assert defects_of(plan(tmp_path)) == [f"{tmp_path / 'a.xml'}: line 2: document type declarations are refused"]

    def test_other_encodings_that_are_declared_are_read(self, tmp_path: Path) -> None:
        put_picture(tmp_path / "a.jpg")
        text = "<?xml version='1.0' encoding='iso-8859-1'?>\n" + voc(voc_object("Hündin"))
        (tmp_path / "a.xml").write_bytes(text.encode("iso-8859-1"))
        assert plan(tmp_path).names == ("Hündin",)


class TestYolo:
    def test_boxes_turned_boxes_and_polygons(self, tmp_path: Path) -> None:
        lines = "1 0.5 0.5 0.5 0.5\n\n0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n0 0.25 0.25 0.25 0.75 0.75 0.75\n"
        splits = write(put_yolo(tmp_path / "in", lines), tmp_path / "out")
        box = (24.0, 16.0, 72.0, 48.0)
        square = ((24.0, 16.0), (72.0, 16.0), (72.0, 48.0), (24.0, 48.0))
        triangle = ((24.0, 16.0), (72.0, 48.0), (24.0, 48.0))
        assert labels_of(splits)["a.jpg"] == (Label(box, 1), Label(box, 0, square), Label(box, 0, triangle))

    def test_a_description_names_classes_and_splits(self, tmp_path: Path) -> None:
        for seed, split in enumerate(("train", "val")):
            put_picture(tmp_path / "in" / "images" / split / f"{split}.jpg", seed)
            (tmp_path / "in" / "labels" / split).mkdir(parents=True)
        (tmp_path / "in" / "labels" / "train" / "train.txt").write_text("2 .5 .5 .2 .2")
        (tmp_path / "in" / "data.yaml").write_text(
            "path: /elsewhere/data\ntrain: images/train\nval: [../images/val]\nnames: {0: cat, 2: dog}\n"
        )
        splits = write(tmp_path / "in" / "data.yaml", tmp_path / "out")
        assert splits["train"].names == ("cat", "class 1", "dog")
        assert [label.class_id for label in labels_of(splits, "train")["train.jpg"]] == [2]
        assert labels_of(splits, "val") == {"val.jpg": ()}

    def test_a_list_of_files_is_a_split(self, tmp_path: Path) -> None:
        put_yolo(tmp_path / "in", "0 .5 .5 .2 .2")
        put_picture(tmp_path / "in" / "b.jpg", 1)
        (tmp_path / "in" / "train.txt").write_text("./b.jpg\n")
        (tmp_path / "in" / "val.txt").write_text("./a.jpg\n")
        (tmp_path / "in" / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [cat]\n")
        splits = write(tmp_path / "in", tmp_path / "out")
        assert {split: list(labels_of(splits, split)) for split in splits} == {"train": ["b.jpg"], "val": ["a.jpg"]}

    def test_folders_of_splits_without_a_description(self, tmp_path: Path) -> None:
        for number, split in enumerate(("train", "valid")):
            put_picture(tmp_path / "in" / split / "images" / "a.jpg", number)
            (tmp_path / "in" / split / "labels").mkdir()
            (tmp_path / "in" / split / "labels" / "a.txt").write_text("0 .5 .5 .2 .2")
        splits = write(tmp_path / "in", tmp_path / "out", "yolo", names=("cat",))
        assert list(splits) == ["train", "val"]
        assert splits["val"].pictures[0].file == tmp_path / "out" / "val" / "images" / "a.jpg"

    @pytest.mark.parametrize(
        ("lines", "says"),
        [
            ("0 .5 .5 .2 .2\n7 .5 .5 .2 .2", ", line 2: the label 'class 7' is unknown: the classes are cat, dog"),
            ("0 .5 .5 .2", ", line 1: 4 columns"),
            ("0 .5 .5 .2 .2 .9", ", line 1: 6 columns"),
            ("cat .5 .5 .2 .2", ", line 1: not numbers: 'cat .5 .5 .2 .2'"),
            ("-1 .5 .5 .2 .2", ", line 1: -1 is not the number of a class"),
            ("0.5 .5 .5 .2 .2", ", line 1: 0.5 is not the number of a class"),
            ("0 .5 .5 .2 0", ", line 1: the box is empty"),
            ("0 48 32 20 20", ", line 1: the box reaches 5472.0 px beyond the frame"),
            ("0 .5 nan .2 .2", ", line 1: the box is not of finite numbers"),
            ("inf .5 .5 .2 .2", ", line 1: inf is not the number of a class"),
        ],
    )
    def test_defects_are_named_with_their_line(self, tmp_path: Path, lines: str, says: str) -> None:
        [defect] = defects_of(plan(put_yolo(tmp_path, lines)))
        assert defect.startswith(f"{tmp_path / 'a.txt'}{says}")

    def test_labels_that_are_no_utf_8_and_labels_without_a_picture(self, tmp_path: Path) -> None:
        put_yolo(tmp_path, "")
        (tmp_path / "a.txt").write_bytes("0 ½".encode("latin-1"))
        (tmp_path / "b.txt").write_text("0 .5 .5 .2 .2")
        assert defects_of(plan(tmp_path)) == [
            f"{tmp_path / 'a.txt'}: not UTF-8 text",
            f"{tmp_path / 'b.txt'}: there is no picture of that name",
        ]

    def test_windows_writes_a_byte_order_mark(self, tmp_path: Path) -> None:
        put_yolo(tmp_path, "")
        (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf0 .5 .5 .2 .2\r\n")
        assert plan(tmp_path).defects == ()

    @pytest.mark.parametrize(
        ("yaml", "says"),
        [
            ("names: [cat\ntrain: x", "line 2: not YAML"),
            ("- 1", "holds no names"),
            ("names: [cat]\ntrain: nowhere", "train: there is no nowhere"),
            ("names: {-1: cat}", "not numbered from 0"),
            ("names: !!python/object/apply:os.system [ls]", "not YAML"),
        ],
    )
    def test_a_description_that_is_none_is_one_error(self, tmp_path: Path, yaml: str, says: str) -> None:
        put_yolo(tmp_path, "0 .5 .5 .2 .2")
        (tmp_path / "data.yaml").write_text(yaml)
        with pytest.raises(ConfigurationError, match=says):
            plan(tmp_path)

    def test_without_names_of_classes_or_any_labels_there_is_nothing_to_import(self, tmp_path: Path) -> None:
        put_yolo(tmp_path, "0 .5 .5 .2 .2")
        (tmp_path / "classes.txt").unlink()
        with pytest.raises(ConfigurationError, match="say --names"):
            plan(tmp_path)
        (tmp_path / "a.txt").unlink()
        with pytest.raises(ConfigurationError, match="none of the pictures"):
            plan(tmp_path, "yolo", names=("cat",))


class TestClasses:
    def test_they_are_renamed_merged_and_left_out(self, tmp_path: Path) -> None:
        folder = put_yolo(tmp_path, "0 .5 .5 .2 .2\n1 .5 .5 .2 .2\n2 .5 .5 .2 .2", "cat\ndog\ncar\n")
        planned = plan(folder, renames={"cat": "animal", "dog": "animal"}, drop=frozenset({"car"}))
        assert planned.names == ("animal",)
        assert [label.class_id for picture, _ in planned.splits[""] for label in picture.labels] == [0, 0]
        assert plan(folder, only=frozenset({"car"})).names == ("car",)

    def test_those_that_are_given_set_the_order_and_others_are_unknown(self, tmp_path: Path) -> None:
        file = put_coco(tmp_path / "labels.json", [{}, {"category_id": 3}])
        planned = plan(file, names=("bird", "dog"))
        assert defects_of(planned) == [f"{file}: annotations[1]: the label 'cat' is unknown: the classes are bird, dog"]
        assert [label.class_id for picture, _ in planned.splits[""] for label in picture.labels] == [1]
        assert plan(file, names=("bird", "dog"), drop_unknown=True).defects == ()

    def test_one_that_there_is_not_is_an_error(self, tmp_path: Path) -> None:
        file = put_coco(tmp_path / "labels.json", [{}])
        with pytest.raises(ConfigurationError, match=r"--drop dgo: .* did you mean 'dog'"):
            plan(file, drop=frozenset({"dgo"}))
        with pytest.raises(ConfigurationError, match=r"--map bird: .* there are cat, dog"):
            plan(file, renames={"bird": "x"})


def test_a_source_that_looks_like_nothing_known(tmp_path: Path) -> None:
    put_picture(tmp_path / "a.jpg")
    with pytest.raises(ConfigurationError, match="coco, voc, yolo: say --format"):
        plan(tmp_path)

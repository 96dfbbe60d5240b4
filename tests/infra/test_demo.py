"""`sightstream demo` and `sightstream up`: the whole pipeline in one process, on the embedded broker."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest
from click.testing import CliRunner
from PIL import Image

from detectors.base import Image as DetectorImage
from detectors.fake import LABELS, FakeDetector
from detectors.spec import ModelSpec
from detectors.training.dataset import Label, Picture, read_dataset, write_dataset
from infra.cli import group
from infra.commands.demo import PHOTOS, PICTURES
from schemas.records import DetectParameters
from tests.support.deliveries import eventually
from tests.support.images import photograph

LIMIT_S = 120


def _environment(directory: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SIGHTSTREAM_")}
    return kept | {"SIGHTSTREAM_STATE_DIR": str(directory), "PYTHONPATH": str(Path(__file__).parents[2])}


def _sightstream(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.cli", *arguments]
    environment = _environment(directory)
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=directory, env=environment, timeout=LIMIT_S
    )


def test_the_demo_without_images_in_its_directory_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(group, ["demo", "--model", "fake", "--images", str(tmp_path)])
    assert result.exit_code == 2
    assert "there are no images in" in result.stderr


def test_the_photographs_that_come_with_it_are_images_with_a_known_licence() -> None:
    names = {file.name for file in PHOTOS.glob("*.jpg")}
    told = (PHOTOS / "README.txt").read_text(encoding="utf-8")
    assert names == set(re.findall(r"^(\w+\.jpg) ", told, re.MULTILINE))
    for name in names:
        with Image.open(PHOTOS / name) as photo:
            assert min(photo.size) >= 300


def test_the_pictures_that_come_with_it_have_truth_and_a_known_licence() -> None:
    truth = read_dataset(PICTURES)
    names = {file.name for file in (PICTURES / "images").iterdir()}
    told = (PICTURES / "README.txt").read_text(encoding="utf-8")
    assert names == {picture.file.name for picture in truth.pictures}
    assert names == set(re.findall(r"^([\w-]+\.jpg)(?: |$)", told, re.MULTILINE))
    assert len(names) >= 12
    assert truth.names == ("qr", "datamatrix", "barcode", "marker")
    assert {label.class_id for picture in truth.pictures for label in picture.labels} == {0, 1, 2, 3}
    for picture in truth.pictures:
        with Image.open(picture.file) as opened:
            assert opened.size == (picture.width, picture.height)
            assert "exif" not in opened.info
        for label in picture.labels:
            left, top, right, bottom = label.box
            assert 0 <= left < right <= picture.width
            assert 0 <= top < bottom <= picture.height
    assert sum(file.stat().st_size for file in PICTURES.rglob("*")) < 3_000_000


def test_the_demo_without_anything_takes_the_shipped_detector_and_its_pictures(tmp_path: Path) -> None:
    done = _sightstream(tmp_path, "demo", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^images +14: 14 with results, 0 dead letters$", done.stdout, re.MULTILINE)
    assert re.search(r"^throughput +[\d.]+ images/s with codes$", done.stdout, re.MULTILINE)
    told = re.search(r"^pictures +(.+) \(14 with boxes drawn in, and contact-sheet\.jpg\)$", done.stdout, re.MULTILINE)
    assert told is not None
    assert len(list(Path(told[1]).glob("*.jpg"))) == 15
    with Image.open(Path(told[1]) / "contact-sheet.jpg") as sheet:
        assert sheet.size == (4 * 480, 4 * 480)


def _labelled(folder: Path, shift: float) -> Path:
    """Photographs with what the fake detector finds first, whole pictures, as truth; in one of them off by `shift` of its width."""
    (folder / "images").mkdir(parents=True)
    detector = FakeDetector(ModelSpec(path="fake"))
    pictures = []
    for number in range(3):
        file = folder / "images" / f"{number}.png"
        photograph(number, 160, 120).save(file)
        found = detector.detect([DetectorImage(np.asarray(photograph(number, 160, 120)))], [DetectParameters()])
        left = shift * 160 if number == 0 else 0.0
        label = Label((left, 0.0, 160.0, 120.0), int(found.class_ids[0]))
        pictures.append(Picture(file, 160, 120, (label,)))
    write_dataset(folder, LABELS, pictures)
    return folder


def test_pictures_with_truth_are_scored_by_what_the_lake_holds(tmp_path: Path) -> None:
    folder = _labelled(tmp_path / "set", 0.75)
    done = _sightstream(tmp_path, "demo", "--model", "fake", "--images", str(folder))
    assert done.returncode == 0, done.stderr
    told = re.search(r"^mAP50 +([\d.]+) on 3 objects in 3 pictures$", done.stdout, re.MULTILINE)
    assert told is not None, done.stdout
    assert 0 < float(told[1]) < 1
    assert re.search(r"^images +3: 3 with results", done.stdout, re.MULTILINE)


def test_the_demo_ends_by_itself_with_a_summary(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(PHOTOS, photos)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photograph")
    done = _sightstream(tmp_path, "demo", "--model", "fake", "--images", str(photos), "--rounds", "2")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^images +14: 12 with results, 2 dead letters$", done.stdout, re.MULTILINE)
    assert re.search(r"^  image_corrupt +2$", done.stdout, re.MULTILINE)
    assert re.search(r"^throughput +[\d.]+ images/s", done.stdout, re.MULTILINE)
    assert re.search(r"^latency +p50 \d+ ms, p95 \d+ ms", done.stdout, re.MULTILINE)
    told = re.search(r"^Parquet +(.+) \((\d+) rows\)$", done.stdout, re.MULTILINE)
    assert told is not None
    assert int(told[2]) == 12
    rows = ds.dataset(told[1], format="parquet", partitioning="hive").to_table(columns=["image_id", "uri"])
    assert len(set(rows.column("image_id").to_pylist())) == 12
    assert "detecting" in done.stderr
    assert "mAP50" not in done.stdout
    assert re.search(r"^pictures +.+ \(6 with boxes drawn in", done.stdout, re.MULTILINE)
    assert re.search(r"^on an embedded broker.*: in memory, about 5 MB a partition", done.stdout, re.MULTILINE)


@contextmanager
def _up(directory: Path) -> Iterator[tuple["subprocess.Popen[str]", str, str]]:
    """A running `up`; gives its process, bootstrap and URL."""
    command = [sys.executable, "-m", "infra.cli", "up", "--model", "fake", "--images", str(PHOTOS), "--port", "0"]
    with (
        (directory / "up.log").open("w") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=directory, env=_environment(directory)
        ) as process,
    ):
        try:
            assert process.stdout is not None
            told = re.match(r"Kafka at (\S+), HTTP at (\S+), Parquet in ", process.stdout.readline())
            assert told is not None, (directory / "up.log").read_text()
            yield process, told[1], told[2]
        finally:
            process.kill()


def _status(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(json.load(answer)["status"])
    except OSError as error:
        return str(error)


def test_up_serves_everything_and_sigterm_drains_it(tmp_path: Path) -> None:
    with _up(tmp_path) as (process, bootstrap, url):
        eventually(lambda: _status(f"{url}/readyz") == "ready", "up is ready", LIMIT_S)
        assert _status(f"{url}/healthz") == "ok"
        published = _sightstream(tmp_path, "--set", f"kafka.bootstrap={bootstrap}", "publish", "--wait", str(PHOTOS))
        assert published.returncode == 0, published.stderr
        assert "6 results" in published.stdout
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
            assert (
                'sightstream_consumed_records_total{group="sightstream",topic="images.online"} 6.0'
                in answer.read().decode()
            )
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0, (tmp_path / "up.log").read_text()
    (folder,) = (tmp_path / "up").iterdir()
    assert ds.dataset(folder / "lake", format="parquet", partitioning="hive").count_rows() == 6


@pytest.mark.parametrize("command", ["worker", "up"])
def test_without_the_models_file_nothing_starts(tmp_path: Path, command: str) -> None:
    done = _sightstream(tmp_path, command, "--model", "none.onnx")
    assert done.returncode == 2
    assert "cannot read the model none.onnx" in done.stderr

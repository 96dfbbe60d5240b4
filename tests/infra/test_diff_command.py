"""`sightstream diff` on Parquet files: tables, files, ground truth, exit codes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from infra.cli import group
from infra.commands.diff import command
from infra.settings import Settings
from schemas.records import DetectionResult
from sinks.base import Partition, ResultRun
from sinks.parquet_files import to_batch
from tests.support.diffs import CAR, CAT, DOG, batch, found


def _fill(lake: Path, results: Sequence[DetectionResult]) -> None:
    rows = np.arange(len(results), dtype=np.int64)
    run = ResultRun(Partition("detections", 0), 0, len(results), batch(results), rows, rows)
    (lake / "date=2026-01-01").mkdir(parents=True)
    pq.write_table(pa.Table.from_batches([to_batch(run)]), lake / "date=2026-01-01" / "x.parquet")


@pytest.fixture
def diff(tmp_path: Path) -> Callable[..., Result]:
    """Runs the command on two versions' results of two pictures, in a lake."""
    photos, lake = tmp_path / "photos", tmp_path / "lake"
    photos.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (640, 480), "grey").save(photos / f"{name}.png")
    uris = {name: (photos / f"{name}.png").as_uri() for name in ("a", "b")}
    _fill(
        lake,
        [
            found("a", [DOG, CAR], "1", uri=uris["a"]),
            found("b", [DOG], "1", uri=uris["b"]),
            found("a", [DOG], "2", uri=uris["a"]),
            found("b", [replace(CAT, score=0.6)], "2", uri=uris["b"]),
        ],
    )
    settings = Settings().overriding({"images.roots": str(photos)})

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(command, ["yolov8n@1", "yolov8n@2", "--lake", str(lake), *arguments], obj=settings)

    return run


def test_a_table_says_what_changed(diff: Callable[..., Result]) -> None:
    done = diff()
    assert done.exit_code == 0, done.output
    assert "2 images compared (0 only in A, 0 only in B, 0 of another size)" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("all classes"))
    assert row.split() == ["all", "classes", "3", "1", "0", "0", "1", "0", "1", "66.67%"]
    assert "dog as cat" in done.stdout


def test_files_are_written_and_the_same_each_time(diff: Callable[..., Result], tmp_path: Path) -> None:
    files: dict[str, list[bytes]] = {"html": [], "json": []}
    for at in ("1", "2"):
        page, figures, objects = (tmp_path / f"{at}.{kind}" for kind in ("html", "json", "parquet"))
        done = diff("--html", str(page), "--json", str(figures), "--objects", str(objects))
        assert done.exit_code == 0, done.output
        files["html"].append(page.read_bytes())
        files["json"].append(figures.read_bytes())
        assert pq.read_table(objects).num_rows == 3
    assert files["html"][0] == files["html"][1]
    assert files["html"][0].count(b"data:image/jpeg") == 2, "both pictures are in the page"
    assert files["json"][0] == files["json"][1]
    assert json.loads(files["json"][0])["total"]["lost"]["count"] == 1


@pytest.mark.parametrize(
    ("gates", "code"), [(["lost>50%"], 0), (["lost>1%"], 1), (["lost>50%", "disagreement>=0.5"], 1)]
)
def test_a_gate_decides_the_exit_code(diff: Callable[..., Result], gates: Sequence[str], code: int) -> None:
    assert diff(*(part for gate in gates for part in ("--fail-on", gate))).exit_code == code


def test_a_picture_that_is_gone_costs_nothing_else(diff: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "photos" / "a.png").unlink()
    Image.new("RGB", (64, 48), "grey").save(tmp_path / "photos" / "b.png")
    assert diff("--html", str(tmp_path / "x.html")).exit_code == 0
    page = (tmp_path / "x.html").read_text("utf-8")
    assert "image_not_found" in page
    assert "it is not the one any more in which the boxes were found" in page


def test_ground_truth_scores_both(diff: Callable[..., Result], tmp_path: Path) -> None:
    boxes = [(1, "a", DOG, 1), (2, "a", CAR, 2), (3, "b", DOG, 1)]
    ids = {"a": 7, "b": 9}
    truth = {
        "images": [{"id": number, "file_name": f"{name}.png"} for name, number in ids.items()],
        "categories": [{"id": 1, "name": "Dog"}, {"id": 2, "name": "car"}],
        "annotations": [
            {
                "id": number,
                "image_id": ids[name],
                "category_id": category,
                "bbox": [box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1],
            }
            for number, name, box, category in boxes
        ],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    figures = tmp_path / "figures.json"
    done = diff("--truth", str(path), "--json", str(figures), "--fail-on", "map50_drop>10%")
    assert done.exit_code == 1, done.output
    one, two = json.loads(figures.read_text())["accuracy"]
    assert one == pytest.approx({"images": 2, "map50": 1.0, "map50_95": 1.0})
    # Of two dogs one is found: precision 1 up to recall 0.5. The car is not.
    assert two["map50"] == pytest.approx(51 / 101 / 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["yolov8n@1", "yolov8n@9"], "there are no results of yolov8n@9"),
        (["yolov8n@1", "rollout:x"], "is not rollout:ID:stable"),
        (["yolov8n@1", "yolov8n@2", "--fail-on", "map50_drop>1%"], "needs --truth"),
        (["yolov8n@1", "yolov8n@2", "--fail-on", "lost~1%"], "is not NAME[.CLASS]>SHARE"),
        (["yolov8n@1", "yolov8n@2", "--topic", "x"], "exclude each other"),
        (["yolov8n@1", "yolov8n@2", "--html", "nowhere/x.html"], "there is no directory"),
    ],
)
def test_what_cannot_be_is_said(
    diff: Callable[..., Result], tmp_path: Path, arguments: Sequence[str], said: str
) -> None:
    done = CliRunner().invoke(group, ["diff", *arguments, "--lake", str(tmp_path / "lake")])
    assert done.exit_code == 2
    assert said in done.output

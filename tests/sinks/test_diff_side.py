"""Which results are a side of a diff, and that it does not matter how they came."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from schemas.records import DetectionResult
from sinks.base import Partition, ResultRun
from sinks.diff_lake import read_lake
from sinks.diff_select import Scope, Selector
from sinks.diff_side import Side, SideReader
from sinks.parquet_files import to_batch
from tests.support.diffs import CAR, CAT, DOG, batch, found, side


def _read(found_in: Side) -> dict[str, list[str]]:
    return {image: found_in.seen(row).labels.tolist() for (_, image), row in found_in.rows.items()}


def test_a_side_is_a_version_or_a_replay() -> None:
    results = [
        found("a", [DOG], "1"),
        found("b", [], "1"),
        found("a", [CAT, CAR], "2", replay_id="r-7"),
        found("c", [CAR], "2", model_name="other"),
    ]
    assert _read(side("yolov8n@1", results)) == {"a": ["dog"], "b": []}
    assert _read(side("yolov8n@2", results)) == {"a": ["cat", "car"]}
    assert _read(side("r-7", results)) == _read(side("replay:r-7", results)) == {"a": ["cat", "car"]}
    assert side("yolov8n@1", results).versions == ("yolov8n@1 sha256:1",)
    assert not side("yolov8n@3", results).rows


def test_a_name_may_hold_an_at_sign() -> None:
    assert Selector.parse("team@yolo@3").values == (("model_name", "team@yolo"), ("model_version", "3"))


@pytest.mark.parametrize("text", ["", "@1", "yolov8n@", "rollout:x", "rollout::stable", "rollout:x:shadow", "replay:"])
def test_what_is_no_side_is_said(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Selector.parse(text)


def test_shadows_of_a_rollout_belong_to_the_version_that_made_them() -> None:
    results = [
        found("a", [DOG], "1", rollout="r", arm="stable"),
        found("a", [CAT], "2", rollout="r", arm="shadow"),
        found("b", [CAR], "2", rollout="r", arm="candidate"),
        found("b", [DOG], "1", rollout="r", arm="shadow"),
        found("c", [DOG], "1", rollout="other", arm="stable"),
    ]
    assert _read(side("rollout:r:stable", results)) == {"a": ["dog"], "b": ["dog"]}
    assert _read(side("rollout:r:candidate", results)) == {"a": ["cat"], "b": ["car"]}


@pytest.mark.parametrize(("arm", "other"), [("stable", "candidate"), ("candidate", "stable")])
def test_an_arm_that_no_user_saw_is_known_by_its_shadows(arm: str, other: str) -> None:
    results = [found("a", [DOG], "1", rollout="r", arm=arm), found("a", [CAT], "2", rollout="r", arm="shadow")]
    assert _read(side(f"rollout:r:{arm}", results)) == {"a": ["dog"]}
    assert _read(side(f"rollout:r:{other}", results)) == {"a": ["cat"]}


def test_the_newest_result_of_an_image_counts() -> None:
    results = [found("a", [CAT], later_s=5), found("a", [DOG], later_s=9), found("a", [CAR], later_s=1)]
    newest = side("yolov8n@1", [*results, results[0]])
    assert _read(newest) == {"a": ["dog"]}
    assert newest.superseded == 2


def test_a_scope_restricts_both_sides() -> None:
    first = found("a", [DOG])
    results = [first, found("b", [DOG], later_s=10), found("c", [DOG], tenant="acme")]
    since = Scope(since=first.completed_at + timedelta(seconds=10))
    until = Scope(until=first.completed_at + timedelta(seconds=10))
    assert list(side("yolov8n@1", results, since).rows) == [("default", "b")]
    assert list(side("yolov8n@1", results, until).rows) == [("acme", "c"), ("default", "a")]
    assert list(side("yolov8n@1", results, Scope(tenant="acme")).rows) == [("acme", "c")]


_RESULTS = [
    found(image, [DOG, CAR][:boxes], later_s=later)
    for image, boxes, later in [("a", 1, 0), ("b", 0, 1), ("a", 2, 3), ("c", 2, 2)]
]


@given(order=st.permutations(_RESULTS * 2), cuts=st.lists(st.integers(0, 8), max_size=3).map(sorted))
def test_order_runs_and_repetition_do_not_matter(order: list[DetectionResult], cuts: list[int]) -> None:
    reader = SideReader(Selector.parse("yolov8n@1"), Scope())
    for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True):
        reader.add(batch(order[start:end]))
    whole = reader.finish()
    assert _read(whole) == {"a": ["dog", "car"], "b": [], "c": ["dog", "car"]}
    assert whole.superseded == 1
    assert whole.ids == ["a-1-3", "b-1-1", "c-1-2"]


def _as_file(results: list[DetectionResult]) -> pa.RecordBatch:
    rows = np.arange(len(results), dtype=np.int64)
    return to_batch(ResultRun(Partition("detections", 0), 0, len(results), batch(results), rows, rows))


@pytest.mark.parametrize(
    "columns", [lambda names: names, lambda names: [n for n in names if n not in {"replay_id", "rollout", "arm"}]]
)
def test_parquet_files_are_read_also_those_of_an_older_release(
    tmp_path: Path, columns: Callable[[list[str]], list[str]]
) -> None:
    table = pa.Table.from_batches([_as_file([found("a", [DOG]), found("b", [])])])
    for place in ("date=2026-01-01", "_tmp", ".hidden"):
        (tmp_path / place).mkdir()
        pq.write_table(table.select(columns(table.schema.names)), tmp_path / place / "x.parquet")
    reader = SideReader(Selector.parse("yolov8n@1"), Scope())
    batches = list(read_lake(tmp_path))
    for one in batches:
        reader.add(one)
    assert _read(reader.finish()) == {"a": ["dog"], "b": []}
    assert sum(one.num_rows for one in batches) == 2


def test_a_folder_without_results_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no Parquet file"):
        list(read_lake(tmp_path))
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(ConfigurationError, match="holds no results"):
        list(read_lake(tmp_path))
    (tmp_path / "x.parquet").write_bytes(b"torn")
    with pytest.raises(ConfigurationError, match="cannot read"):
        list(read_lake(tmp_path))

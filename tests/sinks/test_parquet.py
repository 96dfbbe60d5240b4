"""The Parquet sink on a disk of its own: files, claims, duplicates, refusals, and what a reader sees."""

import errno
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from infra.commands.parquet import command
from schemas.errors import BusyError
from schemas.records import new_image_id
from sinks.base import Extent, Partition, Progress, RefusedError
from sinks.disk import Disk
from sinks.parquet import ParquetPolicy, ParquetSink, sweep
from sinks.parquet_verify import verify
from tests.support.disks import FailingDisk
from tests.support.results import DAY, NOON, lake_rows, run_of, tip

PLACE = Partition("detections", 0)
ALL = Extent("T", 0, 1_000_000)


@dataclass
class Clock:
    s: float = 0.0

    def __call__(self) -> float:
        return self.s


def ids(count: int) -> list[str]:
    return [new_image_id() for _ in range(count)]


def opened(lake: Path, disk: Disk | None = None, **policy: float) -> ParquetSink:
    sink = ParquetSink(ParquetPolicy(directory=lake, **policy), disk)  # type: ignore[arg-type]  # numbers, as named
    sink.open(PLACE, ALL)
    return sink


def test_a_day_is_a_directory_and_names_say_what_is_inside(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write(run_of(PLACE, 5, ids(4), at_ms=[NOON, NOON, NOON + DAY, -1]))
    assert sink.flush().safe == {PLACE: 9}
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("date=*/*")) == [
        "date=2026-01-01/detections+0+00000000000000000005-00000000000000000006.parquet",
        "date=2026-01-02/detections+0+00000000000000000007-00000000000000000007.parquet",
        "date=__HIVE_DEFAULT_PARTITION__/detections+0+00000000000000000008-00000000000000000008.parquet",
    ]
    assert not verify(tmp_path).violations


def test_age_closes_a_file(tmp_path: Path) -> None:
    clock = Clock()
    sink = ParquetSink(ParquetPolicy(directory=tmp_path, max_age_s=30.0), now=clock)
    sink.open(PLACE, ALL)
    sink.write(run_of(PLACE, 0, ids(3)))
    clock.s = 29.0
    assert sink.tick() == Progress()
    clock.s = 30.0
    assert sink.tick().safe == {PLACE: 3}


def test_a_result_that_comes_again_is_dropped_also_by_a_successor(tmp_path: Path) -> None:
    some = [*ids(5), "not hex", "", ""]
    sink = opened(tmp_path)
    sink.write(run_of(PLACE, 0, some))
    sink.flush()
    successor = opened(tmp_path)
    successor.write(run_of(PLACE, 8, [*some, *some[:2]]))
    assert successor.flush().safe == {PLACE: 18}
    assert len(lake_rows(tmp_path)) == 10  # the two without an id are four rows
    [chain] = verify(tmp_path).chains
    assert (chain.rows, chain.duplicates) == (10, 8)


def test_a_successor_reads_back_until_its_window_is_full_however_small_the_files(tmp_path: Path) -> None:
    some = ids(6)
    sink = opened(tmp_path)
    for offset, one in enumerate(some):
        sink.write(run_of(PLACE, offset, [one]))
        sink.flush()
    successor = opened(tmp_path, audited_entries=2, id_window=5)
    successor.write(run_of(PLACE, 6, some[1:]))
    assert successor.flush().safe == {PLACE: 11}
    assert len(lake_rows(tmp_path)) == 6
    bounded = opened(tmp_path, audited_entries=2, remembered_entries=4)  # the newest entry has no file
    bounded.write(run_of(PLACE, 11, some))
    bounded.flush()
    assert len(lake_rows(tmp_path)) == 9


def test_an_old_file_that_was_taken_away_ends_the_memory_and_stops_nobody(tmp_path: Path) -> None:
    some = ids(4)
    sink = opened(tmp_path)
    for offset, one in enumerate(some):
        sink.write(run_of(PLACE, offset, [one]))
        sink.flush()
    next(tmp_path.glob("date=*/*00001.parquet")).unlink()
    with pytest.raises(RefusedError):
        opened(tmp_path)
    successor = opened(tmp_path, audited_entries=2)
    successor.write(run_of(PLACE, 4, some[2:]))
    assert successor.flush().safe == {PLACE: 6}
    assert len(list(tmp_path.glob("date=*/*"))) == 3


def test_duplicates_alone_move_the_chain_without_a_file(tmp_path: Path) -> None:
    some = ids(5)
    sink = opened(tmp_path)
    sink.write(run_of(PLACE, 0, some))
    sink.flush()
    sink.write(run_of(PLACE, 5, some, gap_after=3))
    assert sink.flush().safe == {PLACE: 13}
    assert tip(tmp_path, PLACE) == 13
    assert [chain.files for chain in verify(tmp_path).chains] == [1]
    assert opened(tmp_path).flush().safe == {PLACE: 13}


def test_of_many_racing_writers_one_wins_each_claim(tmp_path: Path) -> None:
    some, barrier = ids(20), threading.Barrier(4)
    outcomes: list[Progress] = []

    def race(rows: int) -> None:
        sink = opened(tmp_path)
        sink.write(run_of(PLACE, 0, some[:rows]))
        barrier.wait()
        outcomes.append(sink.flush())

    threads = [threading.Thread(target=race, args=(rows,)) for rows in (5, 10, 15, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bool(outcome.superseded) for outcome in outcomes) == [False, True, True, True]
    assert not list((tmp_path / "_tmp").iterdir())
    assert not verify(tmp_path).violations
    assert len(lake_rows(tmp_path)) == tip(tmp_path, PLACE)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("after", range(9))
def test_a_disk_that_fails_anywhere_is_waited_for(tmp_path: Path, error: int, after: int) -> None:
    disk = FailingDisk()
    sink = opened(tmp_path, disk)
    sink.write(run_of(PLACE, 0, ids(5)))
    disk.refuse(error, after)
    try:
        sink.flush()
    except BusyError:
        assert not verify(tmp_path).violations
        disk.allow()
        sink.tick()
    assert sink.flush().safe == {PLACE: 5}
    assert len(lake_rows(tmp_path)) == 5
    assert not verify(tmp_path).violations


def test_refusals(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write(run_of(PLACE, 0, ids(5)))
    sink.flush()
    with pytest.raises(RefusedError, match="created anew"):
        sink.open(PLACE, Extent("another", 0, 10))
    with pytest.raises(RefusedError, match="cut short"):
        sink.open(PLACE, Extent("T", 0, 4))
    [path] = tmp_path.glob("date=*/*.parquet")
    path.unlink()
    with pytest.raises(RefusedError, match="neither"):
        sink.open(PLACE, ALL)


def test_a_lost_stretch_is_in_the_claim(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write(run_of(PLACE, 0, ids(5)))
    sink.flush()
    assert sink.open(PLACE, Extent("T", 8, 20)) == 8
    sink.write(run_of(PLACE, 8, ids(5)))
    sink.flush()
    assert verify(tmp_path).violations == [
        "detections [0], claim 5: offsets 5 to 7 were deleted from the topic before they were read"
    ]


def test_the_sweeper_takes_what_is_old_and_unclaimed(tmp_path: Path) -> None:
    opened(tmp_path)
    old, young = tmp_path / "_tmp" / "old.parquet.tmp", tmp_path / "_tmp" / "young.parquet.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    assert sweep(tmp_path, Disk(), older_than=1_000_000.0) == 1
    assert young.exists()
    assert not old.exists()


def _tear(lake: Path) -> None:
    next(lake.glob("date=*/*")).write_bytes(b"PAR1")


def _forget(lake: Path) -> None:
    min((lake / "_log" / "detections" / "0").glob("0*")).unlink()


def _add(lake: Path) -> None:
    path = next(lake.glob("date=*/*"))
    path.with_name("more.parquet").write_bytes(path.read_bytes())


def _edit(lake: Path) -> None:
    path = min((lake / "_log" / "detections" / "0").glob("0*"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": "0"}))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [(_tear, "torn"), (_forget, "expected a start of 0"), (_add, "no claim names it"), (_edit, "sha256")],
)
def test_verify_names_the_damage(tmp_path: Path, damage: object, complaint: str) -> None:
    sink = opened(tmp_path, max_rows=5)
    sink.write(run_of(PLACE, 0, ids(5)))
    sink.write(run_of(PLACE, 5, ids(5)))
    assert CliRunner().invoke(command, ["verify", str(tmp_path)]).exit_code == 0
    damage(tmp_path)  # type: ignore[operator]
    outcome = CliRunner().invoke(command, ["verify", str(tmp_path)])
    assert outcome.exit_code == 1
    assert complaint in outcome.output


def test_a_result_twice_in_the_lake_is_named(tmp_path: Path) -> None:
    some = ids(3)
    sink = opened(tmp_path, id_window=0)
    for first in (0, 3):
        sink.write(run_of(PLACE, first, some))
        sink.flush()
    assert len(verify(tmp_path).violations) == 3


def test_duckdb_reads_the_lake(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write(run_of(PLACE, 0, ids(4), at_ms=[NOON, NOON, NOON, NOON + DAY]))
    sink.flush()
    found = duckdb.sql(f"""
        SELECT date, box.label, count(*) AS boxes, avg(box.score) AS score
        FROM (SELECT date, unnest(detections) AS box
              FROM read_parquet('{tmp_path}/date=*/*.parquet', hive_partitioning = true))
        GROUP BY ALL ORDER BY date
    """).fetchall()
    assert [(str(date), *rest) for date, *rest in found] == [
        ("2026-01-01", "person", 3, 0.5),
        ("2026-01-02", "person", 1, 0.5),
    ]

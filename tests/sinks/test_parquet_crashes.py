"""The Parquet protocol under crashes of the process and of the machine at any point: after each, nothing is lost, twice or torn."""

import errno
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from schemas import failpoints
from schemas.errors import BusyError
from sinks import parquet_writer
from sinks.base import Extent, Partition, ResultRun
from sinks.disk import busy
from sinks.parquet import FAILPOINTS, ParquetPolicy, ParquetSink
from sinks.parquet_verify import verify
from tests.support.disks import ForgetfulDisk
from tests.support.results import DAY, NOON, batch_of, lake_rows, run_of

PLACE = Partition("t.detections", 3)
IDS = [f"{number:032x}" for number in range(400)]
BATCH = batch_of(IDS)


class Crash(BaseException):
    """The process is gone: nothing of it runs any more."""


class CrashingDisk(ForgetfulDisk):
    """Crashes at the nth point reached, those between an operation and its sync included."""

    def __init__(self) -> None:
        super().__init__()
        self.left: int | None = None

    def between(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise Crash

    def remove(self, path: Path) -> None:
        self.between()
        super().remove(path)


class Writer:
    """A process with a sink, reading a log."""

    def __init__(self, lake: Path, disk: ForgetfulDisk, rows: int) -> None:
        self.sink = ParquetSink(ParquetPolicy(directory=lake, max_rows=rows, max_age_s=3600.0), disk)
        self.position: int | None = None
        self.safe = 0


class ParquetUnderCrashes(RuleBasedStateMachine):
    """Two writers that both believe to own one partition; any of them dies anywhere; now and then the machine loses its power."""

    @initialize()
    def begin(self) -> None:
        self.lake = Path(tempfile.mkdtemp())
        self.disk = CrashingDisk()
        self.log: list[tuple[str, int]] = []  # id and timestamp by offset
        self.next_id = 0
        self.at_ms = NOON
        self.promised = 0
        self.writers: list[Writer | None] = [None, None]
        self.patched = pytest.MonkeyPatch()
        self.patched.setattr(parquet_writer, "reach", lambda _: self.disk.between())

    def teardown(self) -> None:
        if hasattr(self, "lake"):
            self.patched.undo()
            shutil.rmtree(self.lake)

    @rule(count=st.integers(1, 6), again=st.booleans(), later=st.booleans())
    def publish(self, count: int, again: bool, later: bool) -> None:
        self.at_ms += DAY if later else 1
        for _ in range(count):
            if again and self.log:
                self.log.append((self.log[-1][0], self.at_ms))
            elif self.next_id < len(IDS):
                self.log.append((IDS[self.next_id], self.at_ms))
                self.next_id += 1

    @rule(which=st.integers(0, 1), rows=st.integers(1, 9), crash=st.none() | st.integers(0, 8))
    def read(self, which: int, rows: int, crash: int | None) -> None:
        """Open if need be, and take up to `rows` records."""
        self._do(which, crash, lambda writer: self._take(writer, rows))

    @rule(which=st.integers(0, 1), crash=st.none() | st.integers(0, 30))
    def flush(self, which: int, crash: int | None) -> None:
        self._do(which, crash, self._flush)

    @rule(which=st.integers(0, 1))
    def kill(self, which: int) -> None:
        self.writers[which] = None

    @rule()
    def lose_power(self) -> None:
        self.writers = [None, None]
        self.disk.lose_power()
        assert not verify(self.lake).violations

    @rule()
    def finish(self) -> None:
        """A last writer carries everything over, and the lake holds exactly the first of each id."""
        self.writers[0] = None
        self._do(0, None, self._take_all)
        if self.log:
            first: dict[str, int] = {}
            for offset, (one, _) in enumerate(self.log):
                first.setdefault(one, offset)
            expected = sorted((PLACE.topic, PLACE.index, offset, one) for one, offset in first.items())
            assert lake_rows(self.lake) == expected
            assert not verify(self.lake).violations

    def _do(self, which: int, crash: int | None, action: Callable[[Writer], None]) -> None:
        writer = self.writers[which] or Writer(self.lake, self.disk, rows=4 + which)
        self.writers[which], self.disk.left = writer, crash
        try:
            if writer.position is None:
                writer.position = writer.sink.open(PLACE, Extent("T", 0, len(self.log)))
                assert writer.position >= self.promised, "what was safe is wanted again"
            action(writer)
        except Crash:
            self.writers[which] = None
            assert not verify(self.lake).violations
        finally:
            self.disk.left = None

    def _take_all(self, writer: Writer) -> None:
        self._take(writer, len(self.log))
        self._flush(writer)

    def _take(self, writer: Writer, rows: int) -> None:
        assert writer.position is not None
        records = self.log[writer.position : writer.position + rows]
        if records:
            self._settle(writer, writer.sink.write(self._run(writer.position, records)))
            if writer.position is not None:
                writer.position += len(records)

    def _run(self, first: int, records: list[tuple[str, int]]) -> ResultRun:
        offsets = np.arange(first, first + len(records))
        rows = pa.Table.from_batches([BATCH]).take([int(one, 16) for one, _ in records]).combine_chunks()
        stamps = np.array([at for _, at in records], np.int64)
        return ResultRun(PLACE, first, first + len(records), rows.to_batches()[0], offsets, stamps)

    def _flush(self, writer: Writer) -> None:
        self._settle(writer, writer.sink.flush())

    def _settle(self, writer: Writer, progress: object) -> None:
        safe = getattr(progress, "safe", {})
        self.promised = max(self.promised, *safe.values(), 0)
        if getattr(progress, "superseded", None):
            writer.position = None


TestParquetUnderCrashes = ParquetUnderCrashes.TestCase
ParquetUnderCrashes.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.mark.parametrize("point", FAILPOINTS[:-2])
def test_every_failpoint_is_reached_and_its_successor_finishes(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reach(name: str) -> None:
        if name == point:
            raise Crash

    sink = ParquetSink(ParquetPolicy(directory=tmp_path))
    sink.open(PLACE, Extent("T", 0, 10))
    sink.write(run_of(PLACE, 0, IDS[:10]))
    monkeypatch.setattr(parquet_writer, "reach", reach)
    with pytest.raises(Crash):
        sink.flush()
    monkeypatch.setattr(parquet_writer, "reach", failpoints.reach)
    assert not verify(tmp_path).violations
    successor = ParquetSink(ParquetPolicy(directory=tmp_path))
    position = successor.open(PLACE, Extent("T", 0, 10))
    assert position == (10 if point in {"parquet.after_claim", "parquet.after_rename"} else 0)
    successor.write(run_of(PLACE, 0, IDS[:10]))
    assert successor.flush().safe == {PLACE: 10}
    assert [offset for _, _, offset, _ in lake_rows(tmp_path)] == [*range(10)]


def test_a_busy_storage_is_named_and_bugs_are_not_hidden() -> None:
    for code in (errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT, errno.EFBIG):
        assert isinstance(busy(OSError(code, "no"), 1.0), BusyError)
    with pytest.raises(IsADirectoryError):
        busy(IsADirectoryError(errno.EISDIR, "no"), 1.0)

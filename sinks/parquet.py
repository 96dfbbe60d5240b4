"""The Parquet sink: every result in exactly one row of exactly one file, whatever dies when.

What is promised, on a file system with atomic hard links and renames:

* Each offset of a partition is settled by exactly one claim, and each record that has a row has one: (topic, partition, offset) is unique,
  however many writers try, and after a crash of the process or the machine at any point (`sinks.claims`).
* A file is visible whole or not at all, and what a `Progress` calls safe is on disk.
* A result id occurs once among the last `ParquetPolicy.id_window` ids of a partition: the same result delivered again within that window
  is dropped and counted. Results of one image have one key, hence one partition, as long as its topic keeps its number of partitions.
  A successor knows what the newest `ParquetPolicy.remembered_entries` files hold of the window.
  Beyond the window, and for the empty id, nothing is promised; `sightstream parquet verify` looks at the whole lake.
"""

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import ConfigurationError
from sinks import parquet_metrics as metrics
from sinks.base import Extent, Partition, Progress, RefusedError, ResultRun
from sinks.claims import LOG, TMP, ClaimedError, ClaimLog
from sinks.disk import Disk, busy
from sinks.parquet_policy import ParquetPolicy
from sinks.parquet_writer import PartitionWriter

__all__ = ["FAILPOINTS", "ParquetPolicy", "ParquetSink"]

log = logging.getLogger(__name__)

# The last two are reached by the delivery that commits, under the name of its stage.
FAILPOINTS = (
    "parquet.before_tmp_write",
    "parquet.after_tmp_write",
    "parquet.after_fsync",
    "parquet.after_claim",
    "parquet.after_rename",
    "parquet.before_commit",
    "parquet.after_commit",
)


class ParquetSink:
    """A `Sink` that writes a directory of Parquet files, shared by any number of sinks."""

    def __init__(
        self, policy: ParquetPolicy, disk: Disk | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._policy = policy
        self._disk = disk or Disk()
        self._now = now
        self._writer_id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._writers: dict[Partition, PartitionWriter] = {}
        self._unreported = Progress()
        self._swept_at: float | None = None
        try:
            policy.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the directory of the Parquet files cannot be made: {error}") from error

    @property
    def buffered_rows(self) -> int:
        """Rows taken and not yet in a file."""
        return sum(writer.buffered_rows for writer in self._writers.values())

    def open(self, partition: Partition, extent: Extent) -> int:
        """Take a partition over; see `Sink.open`."""
        self.close(partition)
        writer = PartitionWriter(partition, self._policy, self._disk, self._writer_id, self._now)
        try:
            with self._waiting():
                position = writer.open(extent)
        except RefusedError:
            metrics.REFUSED.labels(partition.topic).inc()
            raise
        self._writers[partition] = writer
        return position

    def write(self, run: ResultRun) -> Progress:
        """Take a run; files that are full are written, the rest waits for `tick`."""
        writer = self._writers[run.partition]
        writer.take(run)
        self._settle([run.partition], force=False)
        while sum(w.buffered_bytes for w in self._writers.values()) > self._policy.max_buffered_bytes:
            self._settle([max(self._writers, key=lambda p: self._writers[p].buffered_bytes)], force=True)
        return self._report()

    def tick(self) -> Progress:
        """Write files that are old enough, and now and then sweep up after writers that died."""
        self._settle(list(self._writers), force=False)
        self._sweep()
        metrics.BUFFERED.set(sum(writer.buffered_bytes for writer in self._writers.values()))
        return self._report()

    def flush(self, partitions: frozenset[Partition] | None = None) -> Progress:
        """Write everything taken so far."""
        wanted = [p for p in self._writers if partitions is None or p in partitions]
        self._settle(wanted, force=True)
        still = {p: self._writers[p].safe for p in wanted if p in self._writers}
        return self._report().merged(Progress(still))

    def close(self, partition: Partition) -> None:
        """Drop what was taken and not yet written."""
        self._writers.pop(partition, None)
        left = {p: safe for p, safe in self._unreported.safe.items() if p != partition}
        self._unreported = Progress(left, self._unreported.superseded - {partition})

    def _settle(self, partitions: Iterable[Partition], *, force: bool) -> None:
        for partition in partitions:
            writer = self._writers[partition]
            before = writer.safe
            try:
                with self._waiting():
                    writer.settle(force=force)
            except (ClaimedError, RefusedError) as error:
                self._supersede(partition, error)
            finally:
                if writer.safe != before and partition in self._writers:
                    self._unreported = self._unreported.merged(Progress({partition: writer.safe}))

    def _supersede(self, partition: Partition, error: Exception) -> None:
        """Nothing more can be claimed from what is here; opening anew says where to go on, or why not."""
        if isinstance(error, ClaimedError):
            metrics.CONFLICTS.labels(partition.topic).inc()
        log.warning("dropped what was taken of %s [%d]: %s", partition.topic, partition.index, error)
        self.close(partition)
        self._unreported = self._unreported.merged(Progress(superseded=frozenset({partition})))

    def _report(self) -> Progress:
        progress, self._unreported = self._unreported, Progress()
        return progress

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            metrics.BLOCKED.set(1)
            raise busy(error, self._policy.retry_after_s) from error
        metrics.BLOCKED.set(0)

    def _sweep(self) -> None:
        if self._swept_at is not None and self._now() - self._swept_at < self._policy.stale_after_s / 4:
            return
        self._swept_at = self._now()
        try:
            sweep(self._policy.directory.absolute(), self._disk, time.time() - self._policy.stale_after_s)
        except (OSError, RefusedError) as error:
            log.warning("could not sweep %s: %s", self._policy.directory, error)


def sweep(root: Path, disk: Disk, older_than: float) -> int:
    """Remove passing files last written before `older_than` (seconds since 1970) that no chain's newest entry names; says how many."""
    old = [path for path in (root / TMP).glob("*") if path.stat().st_mtime < older_than]
    if not old:
        return 0
    chains = [ClaimLog(root, Partition(path.parent.name, int(path.name)), disk) for path in (root / LOG).glob("*/*")]
    named = {claim.tmp for chain in chains for claim in chain.tail(1)}
    forgotten = [path for path in old if f"{TMP}/{path.name}" not in named]
    for path in forgotten:
        disk.remove(path)
    return len(forgotten)

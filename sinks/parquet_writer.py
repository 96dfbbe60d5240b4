"""One partition of the lake: what was taken and is not yet in a file, and how a file comes to be."""

import hashlib
import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain as chained
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.failpoints import reach
from sinks import parquet_files as files
from sinks import parquet_metrics as metrics
from sinks.base import Extent, Partition, RefusedError, ResultRun
from sinks.claims import TMP, Claim, ClaimedError, ClaimLog, Genesis
from sinks.disk import Disk
from sinks.parquet_policy import ParquetPolicy
from sinks.recent_ids import RecentIds

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Cut:
    """A file to be: rows of one day, and how far the offsets reach that it settles (up to `next`)."""

    opened_at: float
    next: int
    day: int | None = None
    batches: list[pa.RecordBatch] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    duplicates: int = 0
    sealed: bool = False
    claim: Claim | None = None
    claimed: bool = False
    prepared_at: float = 0.0

    def add(self, batch: pa.RecordBatch, day: int) -> None:
        """Take rows of `day`, which is the cut's day or its first."""
        self.day = day
        self.batches.append(batch)
        self.rows += batch.num_rows
        self.bytes += batch.nbytes


class PartitionWriter:
    """The only way into a partition's files, for one owner; others may try at the same time, and then one of them wins each claim."""

    def __init__(
        self, partition: Partition, policy: ParquetPolicy, disk: Disk, writer_id: str, now: Callable[[], float]
    ) -> None:
        self._partition = partition
        self._policy = policy
        self._disk = disk
        self._writer_id = writer_id
        self._now = now
        self._root = policy.directory.absolute()
        self._log = ClaimLog(self._root, partition, disk)
        self._recent = RecentIds(max(policy.id_window, 1))
        self._cuts: deque[Cut] = deque()
        self._lost = 0
        self.safe = 0
        self.next = 0

    @property
    def buffered_bytes(self) -> int:
        """Arrow bytes taken and not yet in a file."""
        return sum(cut.bytes for cut in self._cuts)

    @property
    def buffered_rows(self) -> int:
        """Rows taken and not yet in a file."""
        return sum(cut.rows for cut in self._cuts)

    def open(self, extent: Extent) -> int:
        """Finish what was claimed, check the chain against itself and the log, and return the next offset wanted."""
        genesis = self._log.begin(Genesis(extent.earliest, extent.topic_id))
        if genesis.topic_id != extent.topic_id:
            raise RefusedError(
                f"{self._log.directory} is about the topic {genesis.topic_id}, and {self._partition.topic} is now {extent.topic_id}: "
                "it was created anew; use another directory"
            )
        chain = self._log.tail(self._policy.audited_entries)
        if chain:
            self._redo(chain[-1])
        self.safe = chain[-1].next if chain else genesis.start
        if self.safe > extent.latest:
            raise RefusedError(
                f"{self._log.directory} reaches up to {self.safe}, but the log ends at {extent.latest}: it was cut short"
            )
        self.next = max(self.safe, extent.earliest)
        self._alarm_loss(extent)
        self._remember(chain)
        return self.next

    def take(self, run: ResultRun) -> None:
        """Buffer what of the run is beyond `next`; touches no disk."""
        if run.next <= self.next:
            return
        begin = int(np.searchsorted(run.offsets, self.next))
        batch = files.to_batch(run).slice(begin)
        new = self._recent.add(batch.column("id")) if self._policy.id_window else np.ones(batch.num_rows, np.bool_)
        for day, rows in _by_day(run.timestamps_ms[begin:]):
            self._take_rows(batch.slice(rows.start, rows.stop - rows.start), new[rows], day)
        cut = self._cuts[-1] if self._cuts and not self._cuts[-1].claim else self._new_cut()
        self.next = cut.next = run.next

    def settle(self, *, force: bool = False) -> None:
        """Turn into files what is full or old enough, or everything; `safe` moves on with each.

        Raises ClaimedError where another writer went ahead, OSError where the storage fails (call again).
        """
        while self._cuts and (force or self._due(self._cuts[0])):
            self._commit(self._cuts[0])
            self._cuts.popleft()

    def _take_rows(self, batch: pa.RecordBatch, new: NDArray[np.bool_], day: int) -> None:
        first = batch.column("kafka_offset")[0].as_py()
        if not new.all():
            batch = batch.filter(pa.array(new))
        cut = self._cuts[-1] if self._cuts else self._new_cut()
        if cut.sealed or (batch.num_rows and cut.day not in (None, day)):
            cut.sealed, cut.next = True, first
            cut = self._new_cut()
        cut.duplicates += len(new) - batch.num_rows
        if batch.num_rows:
            cut.add(batch, day)
        cut.sealed = cut.rows >= self._policy.max_rows or cut.bytes >= self._policy.max_bytes

    def _new_cut(self) -> Cut:
        self._cuts.append(Cut(self._now(), self.next))
        return self._cuts[-1]

    def _due(self, cut: Cut) -> bool:
        return cut.sealed or self._now() - cut.opened_at >= self._policy.max_age_s

    def _commit(self, cut: Cut) -> None:
        abandoned = self._now() - cut.prepared_at > self._policy.stale_after_s / 2
        if cut.claim is None or (abandoned and not cut.claimed):
            cut.claim = self._prepare(cut)
        if not cut.claimed:
            self._claim(cut.claim)
            cut.claimed = True
        self._make_visible(cut.claim)
        self.safe, self._lost = cut.claim.next, 0
        self._count(cut.claim)

    def _prepare(self, cut: Cut) -> Claim:
        """Write the file under a passing name; what the claim will say."""
        base = Claim(start=self.safe, next=cut.next, duplicates=cut.duplicates, lost=self._lost)
        cut.sealed, cut.prepared_at = True, self._now()
        if not cut.rows or cut.day is None:
            return base
        first, last = (cut.batches[at].column("kafka_offset")[at].as_py() for at in (0, -1))
        about = files.footer(
            self._partition, (first, last), cut.rows, duplicates=cut.duplicates, writer_id=self._writer_id
        )
        content = memoryview(files.encode(cut.batches, about))
        # Not *.parquet: a reader's `**/*.parquet` would find it there.
        tmp = f"{TMP}/{uuid.uuid4().hex}.parquet.tmp"
        self._write(self._root / tmp, content)
        return Claim(
            start=base.start,
            next=base.next,
            count=cut.rows,
            duplicates=base.duplicates,
            lost=base.lost,
            first=first,
            last=last,
            sha256=hashlib.sha256(content).hexdigest(),
            tmp=tmp,
            final=files.file_name(self._partition, cut.day, first, last),
        )

    def _write(self, tmp: Path, content: memoryview) -> None:
        reach("parquet.before_tmp_write")
        try:
            self._disk.create(tmp, content, lambda: reach("parquet.after_tmp_write"))
            self._disk.sync(tmp.parent)
        except OSError:
            self._disk.remove(tmp)  # nobody has claimed it, and the disk may be full
            raise
        reach("parquet.after_fsync")

    def _claim(self, claim: Claim) -> None:
        try:
            self._log.append(claim)
        except ClaimedError:
            if claim.tmp:
                self._disk.remove(self._root / claim.tmp)
            raise
        reach("parquet.after_claim")

    def _make_visible(self, claim: Claim) -> None:
        """Give a claimed file its name; doing it again is fine."""
        if claim.tmp is None or claim.final is None:
            return
        tmp, final = self._root / claim.tmp, self._root / claim.final
        self._disk.make_directory(final.parent)
        try:
            self._disk.rename(tmp, final)
        except FileNotFoundError:
            if not final.exists():
                raise RefusedError(
                    f"{self._log.directory}: neither {claim.tmp} nor {claim.final} is there, though claimed"
                ) from None
            self._disk.sync(final.parent)
            self._disk.sync(tmp.parent)
        reach("parquet.after_rename")

    def _redo(self, claim: Claim) -> None:
        """Finish the newest claim: nobody goes on to the next before the one before is visible, so no older can be unfinished."""
        if claim.tmp is None:
            return
        tmp = self._root / claim.tmp
        if tmp.exists():
            if hashlib.sha256(tmp.read_bytes()).hexdigest() != claim.sha256:
                raise RefusedError(f"{tmp} is not what {self._log.directory} claims: damaged")
            metrics.REDONE.labels(self._partition.topic).inc()
        self._make_visible(claim)

    def _remember(self, chain: Sequence[Claim]) -> None:
        """Recover the window of ids from the newest files, reading nothing but their ids."""
        for claim in reversed(self._remembered(chain)):
            path = self._root / str(claim.final)
            try:
                with pq.ParquetFile(path) as file:  # a third of what `read_table` takes for a small file
                    ids = file.read(["id"], use_threads=False).column("id")
            except (FileNotFoundError, pa.ArrowInvalid) as error:
                raise RefusedError(f"{path} was claimed and cannot be read: {error}") from error
            for part in ids.chunks:
                self._recent.add(part)

    def _remembered(self, chain: Sequence[Claim]) -> list[Claim]:
        """Claims with a file, newest first, that hold the window; those before `chain`, the newest, are read as far as needed."""
        found, rows = list[Claim](), 0
        older = self._log.before(chain[0]) if chain else ()
        for number, claim in enumerate(islice(chained(reversed(chain), older), self._policy.remembered_entries)):
            if rows >= self._policy.id_window:
                break
            if claim.final is None:
                continue
            if number >= len(chain) and not (self._root / claim.final).exists():
                log.warning("%s is gone: ids before it are not remembered", claim.final)
                break
            found.append(claim)
            rows += claim.count
        return found

    def _alarm_loss(self, extent: Extent) -> None:
        self._lost = self.next - self.safe
        if self._lost:
            metrics.LOST.labels(self._partition.topic).inc(self._lost)
            log.error(
                "data loss: offsets %d to %d of %s [%d] were deleted from the topic before they were read",
                *(self.safe, extent.earliest - 1, self._partition.topic, self._partition.index),
            )

    def _count(self, claim: Claim) -> None:
        topic = self._partition.topic
        metrics.FILES.labels(topic).inc(claim.final is not None)
        metrics.ROWS.labels(topic).inc(claim.count)
        metrics.DUPLICATES.labels(topic).inc(claim.duplicates)


def _by_day(timestamps_ms: NDArray[np.int64]) -> Iterator[tuple[int, slice]]:
    """Stretches of rows of one day, in order."""
    if not len(timestamps_ms):
        return
    days = files.days(timestamps_ms)
    bounds = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    for start, stop in pairwise(bounds):
        yield int(days[start]), slice(start, stop)

"""Proves what the Parquet sink promises of a lake, by reading all of it: claims, names, footers, checksums, rows and ids."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sinks import parquet_files as files
from sinks.base import Partition, RefusedError
from sinks.claims import LOG, Claim, ClaimLog
from sinks.disk import Disk
from sinks.recent_ids import pack

_PLACE = ("kafka_topic", "kafka_partition", "kafka_offset", "kafka_timestamp")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainReport:
    """One partition's chain: offsets `start` up to `next` are settled by `claims` claims with `rows` rows in `files` files."""

    partition: Partition
    start: int = 0
    next: int = 0
    claims: int = 0
    files: int = 0
    rows: int = 0
    duplicates: int = 0


@dataclass(slots=True)
class LakeReport:
    """What was found. `violations` break a promise; `pending` claims are finished by the partition's next owner."""

    chains: list[ChainReport] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)


def verify(root: Path) -> LakeReport:
    """Check a lake; it may be written to meanwhile. Takes about 16 bytes of memory a row, for the ids."""
    report, ids = LakeReport(), _Ids()
    # Listed before the chains are read: what is visible by now has been claimed before.
    visible = {
        str(path.relative_to(root)) for path in root.glob("*/*.parquet") if not path.parent.name.startswith(("_", "."))
    }
    for directory in sorted((root / LOG).glob("*/*")):
        _verify_chain(root, Partition(directory.parent.name, int(directory.name)), report, ids)
    named = {final for final, _ in ids.files}
    report.violations += [f"{name}: visible, but no claim names it" for name in sorted(visible - named)]
    report.violations += ids.duplicates()
    return report


def _verify_chain(root: Path, partition: Partition, report: LakeReport, ids: "_Ids") -> None:
    log = ClaimLog(root, partition, Disk())
    try:
        genesis, claims = log.genesis(), log.tail()
    except RefusedError as error:
        report.violations.append(str(error))
        return
    if genesis is None:
        report.violations += [f"{log.directory}: claims without a genesis"] if claims else []
        return
    for at, claim in enumerate(claims):
        report.violations += _verify_numbers(partition, claim)
        if claim.final is None:
            continue
        newest = at == len(claims) - 1
        if newest and claim.tmp and (root / claim.tmp).exists() and not (root / claim.final).exists():
            report.pending.append(f"{claim.final}: claimed, not yet visible")
            ids.files.append((claim.final, 0))
            continue
        report.violations += [f"{claim.final}: {problem}" for problem in _verify_file(root, partition, claim, ids)]
    report.chains.append(
        ChainReport(
            partition=partition,
            start=genesis.start,
            next=claims[-1].next if claims else genesis.start,
            claims=len(claims),
            files=sum(claim.final is not None for claim in claims),
            rows=sum(claim.count for claim in claims),
            duplicates=sum(claim.duplicates for claim in claims),
        )
    )


def _verify_numbers(partition: Partition, claim: Claim) -> Iterator[str]:
    about = f"{partition.topic} [{partition.index}], claim {claim.start}"
    if claim.lost:
        yield f"{about}: offsets {claim.start} to {claim.start + claim.lost - 1} were deleted from the topic before they were read"
    if claim.count + claim.duplicates > claim.next - claim.start - claim.lost:
        yield f"{about}: more rows than offsets"
    if (claim.count == 0) != (claim.final is None):
        yield f"{about}: {claim.count} rows and the file {claim.final}"


def _verify_file(root: Path, partition: Partition, claim: Claim, ids: "_Ids") -> Iterator[str]:
    """What is wrong with a claimed file; its ids go to `ids`."""
    name = claim.final or ""
    ids.files.append((name, 0))
    try:
        content = (root / name).read_bytes()
        file = pq.ParquetFile(pa.BufferReader(content))
        table = file.read()
    except FileNotFoundError:
        yield "claimed, and not there"
        return
    except (OSError, pa.ArrowException) as error:
        yield f"torn: {error}"
        return
    if hashlib.sha256(content).hexdigest() != claim.sha256:
        yield "its sha256 is not the claimed one"
    if missing := {"id", *_PLACE} - set(table.schema.names):
        yield f"it has no {', '.join(sorted(missing))}"
        return
    if table.num_rows != claim.count:
        yield f"{table.num_rows} rows, claimed {claim.count}"
    yield from _verify_footer(partition, claim, file.metadata.metadata or {})
    yield from _verify_rows(partition, claim, table)
    ids.files[-1] = (name, table.num_rows)
    ids.add(table.column("id"))


def _verify_footer(partition: Partition, claim: Claim, metadata: dict[bytes, bytes]) -> Iterator[str]:
    expected = {
        "kafka.topic": partition.topic,
        "kafka.partition": partition.index,
        "kafka.first_offset": claim.first,
        "kafka.last_offset": claim.last,
        "kafka.record_count": claim.count,
        "kafka.duplicates": claim.duplicates,
    }
    for key, value in expected.items():
        found = metadata.get(key.encode(), b"nothing").decode()
        if found != str(value):
            yield f"its footer says {key} = {found}, its claim {value}"


def _verify_rows(partition: Partition, claim: Claim, table: pa.Table) -> Iterator[str]:
    offsets = table.column("kafka_offset").to_numpy()
    if len(offsets) and (offsets[0] != claim.first or offsets[-1] != claim.last):
        yield f"its rows are offsets {offsets[0]} to {offsets[-1]}, claimed {claim.first} to {claim.last}"
    if (np.diff(offsets) <= 0).any():
        yield "its offsets do not rise"
    if len(offsets) and not claim.start <= offsets[0] <= offsets[-1] < claim.next:
        yield f"its rows are not within {claim.start} to {claim.next - 1}"
    if table.column("kafka_topic").unique().to_pylist() != [partition.topic]:
        yield f"rows of another topic than {partition.topic}"
    if table.column("kafka_partition").unique().to_pylist() != [partition.index]:
        yield f"rows of another partition than {partition.index}"
    stamps = table.column("kafka_timestamp").cast(pa.int64()).fill_null(-1).to_numpy()
    dates = {files.date_text(int(day)) for day in np.unique(files.days(stamps))}
    names = {
        files.file_name(partition, int(day), claim.first or 0, claim.last or 0) for day in np.unique(files.days(stamps))
    }
    if names != {claim.final}:
        yield f"its rows are of {', '.join(sorted(dates))} and offsets {claim.first} to {claim.last}, which is not its name"


class _Ids:
    """Every id of the lake, to be compared with every other."""

    def __init__(self) -> None:
        self.files: list[tuple[str, int]] = []
        self._packed: list[NDArray[np.uint64]] = [np.empty((0, 2), np.uint64)]
        self._places: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
        self._odd: dict[str, int] = {}
        self._found: list[str] = []

    def add(self, column: pa.ChunkedArray) -> None:
        """The ids of the newest of `files`."""
        at = len(self.files) - 1
        for ids in column.chunks:
            packed, regular = pack(ids)
            self._packed.append(packed[regular])
            self._places.append(np.full(int(regular.sum()), at, np.int32))
            for text in ids.filter(pa.array(~regular)).to_pylist():
                if text and text in self._odd:
                    self._found.append(self._violation(text, self._odd[text], at))
                self._odd[text] = at

    def duplicates(self) -> Sequence[str]:
        """One line for each id that is there again."""
        ids, places = np.concatenate(self._packed), np.concatenate(self._places)
        order = np.lexsort((ids[:, 1], ids[:, 0]))
        ids, places = ids[order], places[order]
        again = np.flatnonzero((ids[1:] == ids[:-1]).all(axis=1))
        return [
            *self._found,
            *(self._violation(ids[at].tobytes().hex(), int(places[at]), int(places[at + 1])) for at in again),
        ]

    def _violation(self, text: str, one: int, other: int) -> str:
        return f"the result {text} is in {self.files[one][0]} and in {self.files[other][0]}"

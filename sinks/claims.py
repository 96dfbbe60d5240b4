"""The claim log: which offsets of a partition are in which file, one exclusive entry after the other.

An entry's name is the offset at which it starts, and creating it is a hard link, which exactly one of many writers can make. It starts
where the entry before ended (not at the first record: two writers may be shown different first records), so there is only one next name.
"""

import json
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sinks.base import Partition, RefusedError
from sinks.disk import Disk

LOG = "_log"
TMP = "_tmp"
_ENTRY = re.compile(r"(\d{20})\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An entry: offsets `start` up to, not including, `next` are settled, and `count` rows of them lie in the file `final`.

    `first` and `last` are the offsets of the first and last row. Offsets without a row are gaps of the log, tombstones, dead letters, or
    one of `duplicates` results that were already there; without any row there is no file. `lost` offsets at the start were deleted from
    the topic before they were read. `tmp` and `final` are relative to the lake; `sha256` is of the file's bytes.
    """

    start: int
    next: int
    count: int = 0
    duplicates: int = 0
    lost: int = 0
    first: int | None = None
    last: int | None = None
    sha256: str | None = None
    tmp: str | None = None
    final: str | None = None


@dataclass(frozen=True, slots=True)
class Genesis:
    """How a chain begins: the first offset wanted, and which topic it is about."""

    start: int
    topic_id: str


class ClaimedError(Exception):
    """Another writer has made the next entry."""


class ClaimLog:
    """The chain of one partition below the lake's `root`. Every write is durable when it returns, or raised an `OSError`."""

    def __init__(self, root: Path, partition: Partition, disk: Disk) -> None:
        self._root = root
        self._disk = disk
        self.directory = root / LOG / partition.topic / str(partition.index)

    def begin(self, genesis: Genesis) -> Genesis:
        """Begin the chain if nobody has; returns the genesis that stands."""
        standing = self.genesis()
        if standing is not None:
            return standing
        self._disk.make_directory(self._root / TMP)
        self._disk.make_directory(self.directory)
        try:
            self._publish(self.directory / "genesis.json", asdict(genesis))
        except FileExistsError:
            return self.begin(genesis)
        return genesis

    def genesis(self) -> Genesis | None:
        """How the chain began, or None if it has not. Raises RefusedError if that cannot be read."""
        path = self.directory / "genesis.json"
        return Genesis(**_read(path)) if path.exists() else None

    def append(self, claim: Claim) -> None:
        """Make `claim` the next entry. Raises ClaimedError if there is another; appending the same again is fine."""
        path = self._entry(claim.start)
        try:
            self._publish(path, asdict(claim))
        except FileExistsError:
            if Claim(**_read(path)) != claim:
                raise ClaimedError(str(path)) from None
            self._disk.sync(self.directory)

    def tail(self, most: int | None = None) -> Sequence[Claim]:
        """The newest entries (all, or at most so many), oldest first. Raises RefusedError if they do not continue each other."""
        starts = self._starts()
        wanted = starts if most is None else starts[-most:]
        claims = [Claim(**_read(self._entry(start))) for start in wanted]
        genesis = self.genesis()
        begin = genesis.start if genesis and len(wanted) == len(starts) else None
        _check_chain(self.directory, begin, wanted, claims)
        return claims

    def before(self, claim: Claim) -> Iterator[Claim]:
        """Entries before this one, newest first, each read when it is asked for. Raises RefusedError like `tail`."""
        for start in reversed([start for start in self._starts() if start < claim.start]):
            older = Claim(**_read(self._entry(start)))
            _check_chain(self.directory, None, [start, claim.start], [older, claim])
            yield older
            claim = older

    def _starts(self) -> list[int]:
        return sorted(int(found[1]) for path in self.directory.iterdir() if (found := _ENTRY.fullmatch(path.name)))

    def _entry(self, start: int) -> Path:
        return self.directory / f"{start:020d}.json"

    def _publish(self, path: Path, content: dict[str, Any]) -> None:
        temporary = self._root / TMP / f"{uuid.uuid4().hex}.json"
        try:
            self._disk.create(temporary, memoryview(json.dumps(content, indent=1).encode()))
            self._disk.link(temporary, path)
        finally:
            self._disk.remove(temporary)


def _check_chain(directory: Path, begin: int | None, starts: Sequence[int], claims: Sequence[Claim]) -> None:
    expected = begin
    for start, claim in zip(starts, claims, strict=True):
        if claim.start != start or claim.next <= start or (expected is not None and start != expected):
            raise RefusedError(
                f"{directory}: the entry {start:020d}.json covers {claim.start}..{claim.next}, expected a start of {expected}"
            )
        expected = claim.next


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise RefusedError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise RefusedError(f"{path} is not an object")
    return content

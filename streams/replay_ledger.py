"""How far a replay has come, reference by reference: pure, and the same whatever was killed on the way."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from schemas.replays import ReplayManifest, ReplayPosition, ReplayProgress, ReplayRange
from streams.replay_selection import link
from streams.replay_source import Span


@dataclass(slots=True)
class _Position:
    next: int
    sent: int = 0
    digest: str = ""


class Ledger:
    """Counts what has been dealt with, from where `progress` says on; None: from the beginning.

    A reference counts once it is entered, in the order of its partition. Whether Kafka has it is the caller's to know.
    """

    def __init__(self, manifest: ReplayManifest, progress: ReplayProgress | None = None) -> None:
        self._ranges = {one.partition: one for one in manifest.ranges}
        self._at = {one.partition: _Position(one.first) for one in manifest.ranges}
        for position in progress.positions if progress else ():
            self._at[position.partition] = _Position(position.next, position.sent, position.digest)

    @property
    def sent(self) -> int:
        """References entered, those of earlier turns included."""
        return sum(position.sent for position in self._at.values())

    def left(self) -> tuple[Span, ...]:
        """What has still to be looked at."""
        spans = (Span(partition, self._at[partition].next, one.end) for partition, one in self._ranges.items())
        return tuple(span for span in spans if span.first < span.end)

    def ahead(self, places: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
        """Of places (partition, offset), those that have still to be looked at."""
        nexts = {span.partition: span for span in self.left()}
        return {
            (partition, offset)
            for partition, offset in places
            if partition in nexts and nexts[partition].first <= offset < nexts[partition].end
        }

    def enter(self, partition: int, offset: int, key: bytes | None, value: bytes) -> None:
        """Count the reference at an offset, the next one of its partition that is taken."""
        position = self._at[partition]
        position.next, position.sent = offset + 1, position.sent + 1
        position.digest = link(position.digest, offset, key, value)

    def pass_to(self, partition: int, behind: int) -> None:
        """Nothing more is taken of what lies before `behind`."""
        self._at[partition].next = max(self._at[partition].next, behind)

    def positions(self) -> tuple[ReplayPosition, ...]:
        """As they are now, for a record of progress."""
        return tuple(
            ReplayPosition(partition=partition, next=one.next, sent=one.sent, digest=one.digest)
            for partition, one in sorted(self._at.items())
        )

    def differences(self) -> tuple[str, ...]:
        """Where what was found is not what the manifest says, of partitions that are done with: the log has changed since."""
        return tuple(
            text for one in self._ranges.values() if (text := _difference(one, self._at[one.partition])) is not None
        )


def whole(manifest: ReplayManifest) -> tuple[Span, ...]:
    """All that a manifest spans."""
    return tuple(Span(one.partition, one.first, one.end) for one in manifest.ranges)


def ranges(spans: Sequence[Span], ledger: Ledger) -> tuple[ReplayRange, ...]:
    """A manifest's ranges, out of a ledger that has seen all of the spans once."""
    seen: Mapping[int, ReplayPosition] = {one.partition: one for one in ledger.positions()}
    return tuple(
        ReplayRange(
            partition=span.partition,
            first=span.first,
            end=span.end,
            references=seen[span.partition].sent,
            digest=seen[span.partition].digest,
        )
        for span in spans
    )


def _difference(wanted: ReplayRange, found: _Position) -> str | None:
    if found.next < wanted.end or (found.sent, found.digest) == (wanted.references, wanted.digest):
        return None
    if found.sent < wanted.references:
        gone = wanted.references - found.sent
        return f"partition {wanted.partition}: {gone} of {wanted.references} references are no longer on the log"
    return f"partition {wanted.partition}: the references are not those of the manifest; was the topic made anew?"

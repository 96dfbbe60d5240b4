"""Makes manifests: reads what is to be replayed once, counts it, and notes where the log ends before anything is sent."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from schemas.replays import ReplayManifest, ReplayMark, ReplayRange
from schemas.topics import Topics
from streams.replay_ledger import Ledger, ranges
from streams.replay_selection import Selection, digest_of
from streams.replay_source import Bound, Source, Span


@dataclass(frozen=True, slots=True)
class Plan:
    """A manifest, the records that its ranges hold, and how many of those nobody can read."""

    manifest: ReplayManifest
    records: int
    unreadable: int


def plan(
    source: Source,
    wanted: ReplayManifest,
    bounds: tuple[Bound, Bound],
    topics: Topics,
    watch: Callable[[int], object] = lambda _: None,
) -> Plan:
    """The plan of what `wanted` names (all but ranges, counts, digest and marks), between two bounds.

    Reads every record between them; `watch` is told how many. Raises like `Source.spans` and `Source.read`.
    """
    marks = _marks(source, wanted, topics)
    spans = source.spans(*bounds)
    ledger = Ledger(replace(wanted, ranges=tuple(_empty(span) for span in spans)))
    unreadable, at = 0, {span.partition: span.first for span in spans}
    for stretch in source.read(spans, Selection.of(wanted)):
        for offset, key, value in zip(stretch.offsets, stretch.keys, stretch.values, strict=True):
            ledger.enter(stretch.partition, offset, key, value)
        unreadable += stretch.unreadable
        watch(stretch.next - at[stretch.partition])
        at[stretch.partition] = stretch.next
    return Plan(_filled(wanted, ranges(spans, ledger), marks), records(spans), unreadable)


def records(spans: Sequence[Span]) -> int:
    """How many offsets that is."""
    return sum(span.end - span.first for span in spans)


def _filled(wanted: ReplayManifest, ranges: tuple[ReplayRange, ...], marks: tuple[ReplayMark, ...]) -> ReplayManifest:
    return replace(
        wanted,
        ranges=ranges,
        references=sum(one.references for one in ranges),
        digest=digest_of(ranges),
        marks=marks,
    )


def _empty(span: Span) -> ReplayRange:
    return ReplayRange(partition=span.partition, first=span.first, end=span.end)


def _marks(source: Source, wanted: ReplayManifest, topics: Topics) -> tuple[ReplayMark, ...]:
    """Where the topics end that the replay, or what comes of it, is written to."""
    names = sorted({topics.bulk, topics.dead_letters, wanted.into or topics.detections})
    ends: Mapping[str, Mapping[int, int]] = {name: source.ends(name) for name in names}
    return tuple(
        ReplayMark(topic=name, partition=partition, offset=offset)
        for name, places in ends.items()
        for partition, offset in sorted(places.items())
    )

"""A replay that is killed anywhere, any number of times, sends each reference exactly once, in order, and its progress is never ahead."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.arrow import IMAGE_REF
from schemas.codec import Codec, PackagedSchemas
from schemas.records import ImageRef
from schemas.replays import ReplayManifest, ReplayMark, ReplayProgress, ReplayRange, ReplayState
from streams.replay import Replay, Turn
from streams.replay_lane import Place
from streams.replay_ledger import Ledger, ranges
from streams.replay_selection import Selection
from streams.replay_source import Span, Stretch

CODEC = Codec(PackagedSchemas())
LANES = 2


class KilledError(Exception):
    """`kill -9`."""


@dataclass
class World:
    """A topic to replay, the bulk lane and the topic of progress; a process is killed when `fuse` operations are done."""

    references: dict[int, list[bytes]]
    chance: Random
    lane: dict[int, list[Place]] = field(default_factory=lambda: {index: [] for index in range(LANES)})
    progress: list[ReplayProgress] = field(default_factory=list)
    fuse: int = 0

    def burn(self) -> None:
        self.fuse -= 1
        if self.fuse < 0:
            raise KilledError

    def read(self, spans: Sequence[Span], selection: Selection, within: Sequence[Span] = ()) -> Iterator[Stretch]:
        """A few records of some partition at a time, as a consumer gives them."""
        left = {span.partition: span for span in spans}
        while left:
            for partition, span in self.chance.sample(list(left.items()), 1):
                behind = min(span.first + 3, span.end)
                values = self.references[partition][span.first : behind]
                refs = CODEC.decode_run(values, ImageRef).batch if values else pa.RecordBatch.from_pylist([], IMAGE_REF)
                offsets = range(span.first, behind)
                yield Stretch(partition, behind, offsets, [f"{at % 3}".encode() for at in offsets], values, refs)
                left[partition] = Span(partition, behind, span.end)
                if behind == span.end:
                    del left[partition]


class UnsafeLane:
    """The lane as one process has it: what was not settled when it dies is there up to a point of each partition."""

    def __init__(self, world: World, marks: Sequence[ReplayMark]) -> None:
        self.world = world
        self.marks = {mark.partition: mark.offset for mark in marks}
        self.on_the_way: list[tuple[int, Place]] = []

    def send(self, place: Place, key: bytes | None, value: bytes) -> None:
        self.world.burn()
        self.on_the_way.append((int(key or b"0") % LANES, place))

    def settle(self) -> tuple[ReplayMark, ...]:
        self.world.burn()
        self.arrive(len(self.on_the_way), len(self.on_the_way))
        return tuple(ReplayMark(partition=index, offset=offset) for index, offset in self.marks.items())

    def arrive(self, *most: int) -> None:
        """The first so many of each partition reach the lane."""
        for index in range(LANES):
            for place in [place for lane, place in self.on_the_way if lane == index][: most[index]]:
                self.world.lane[index].append(place)
                self.marks[index] = len(self.world.lane[index])
        self.on_the_way.clear()


@dataclass
class EveryFew:
    """Checkpoints after every few references."""

    world: World
    asked: int = 0

    def due(self) -> bool:
        self.asked += 1
        return self.asked % 4 == 0

    def save(self, progress: ReplayProgress) -> None:
        self.world.burn()
        self.world.progress.append(progress)


def manifest_of(world: World) -> ReplayManifest:
    spans = [Span(partition, 0, len(values)) for partition, values in world.references.items()]
    empty = ReplayManifest(id="r", ranges=tuple(ReplayRange(partition=span.partition, end=span.end) for span in spans))
    ledger = Ledger(empty)
    for partition, values in world.references.items():
        for offset, value in enumerate(values):
            ledger.enter(partition, offset, f"{offset % 3}".encode(), value)
    found = ranges(spans, ledger)
    return ReplayManifest(id="r", ranges=found, references=sum(one.references for one in found), model="m@1")


def take_a_turn(world: World, manifest: ReplayManifest, arrived: tuple[int, int]) -> bool:
    """Read back, go on, be killed perhaps; what was on the way then arrives in part. Whether it came to its end."""
    last = world.progress[-1] if world.progress else ReplayProgress(id="r")
    marks = {mark.partition: mark.offset for mark in last.marks}
    found = frozenset(place for index, lane in world.lane.items() for place in lane[marks.get(index, 0) :])
    lane = UnsafeLane(world, last.marks)

    turn = Replay(manifest, Turn(last, found), CODEC, lane, EveryFew(world))
    try:
        outcome = turn.run(world, lambda: None, threading.Event())
    except KilledError:
        lane.arrive(*arrived)
        return False
    assert outcome.progress.state is ReplayState.COMPLETED
    assert outcome.differences == ()
    return True


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    kills=st.lists(st.tuples(st.integers(0, 25), st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=6),
    chance=st.randoms(use_true_random=False),
)
def test_each_reference_is_sent_once_and_progress_is_never_ahead(
    sizes: list[int], kills: list[tuple[int, int, int, bool]], chance: Random
) -> None:
    ref = CODEC.encode(ImageRef(id="i", uri="file:///i"))
    world = World({partition: [ref] * size for partition, size in enumerate(sizes)}, chance)
    manifest = manifest_of(world)
    for fuse, *arrived, lost in kills:
        world.fuse = fuse
        before = len(world.progress)
        ended = take_a_turn(world, manifest, (arrived[0], arrived[1]))
        check_progress(world)
        if lost and not ended:  # the last word was on its way, too
            del world.progress[before:]
    world.fuse = 10_000
    assert take_a_turn(world, manifest, (0, 0))
    check_progress(world)
    everything = [place for lane in world.lane.values() for place in lane]
    assert sorted(everything) == [(partition, at) for partition, size in enumerate(sizes) for at in range(size)]
    assert world.progress[-1].sent == manifest.references == sum(sizes)
    for lane in world.lane.values():
        for partition in world.references:
            mine = [offset for index, offset in lane if index == partition]
            assert mine == sorted(mine), "the order of a key is broken"


def check_progress(world: World) -> None:
    """Whatever progress counts is on the lane."""
    there = {place for lane in world.lane.values() for place in lane}
    for progress in world.progress:
        for position in progress.positions:
            assert {(position.partition, offset) for offset in range(position.next)} <= there


def test_a_reference_that_was_changed_or_deleted_meanwhile_is_told() -> None:
    refs = [CODEC.encode(ImageRef(id=f"{at}", uri="file:///i")) for at in range(4)]
    world = World({0: refs}, Random(0))
    manifest = manifest_of(world)
    for changed, text in (
        (refs[:2], "2 of 4 references are no longer on the log"),
        ([*refs[:3], refs[0]], "was the topic made anew"),
    ):
        ledger = Ledger(manifest)
        for offset, value in enumerate(changed):
            assert ledger.differences() == (), "not before it is done with"
            ledger.enter(0, offset, f"{offset % 3}".encode(), value)
        ledger.pass_to(0, 4)
        (difference,) = ledger.differences()
        assert text in difference

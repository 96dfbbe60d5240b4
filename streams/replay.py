"""Sends the references of a manifest onto the bulk lane, each exactly once, however often it is killed on the way.

Kafka has what was sent before the progress that counts it is written, so that progress is never ahead. A process that goes on reads back
what the lane holds behind the last progress, and passes over what it finds there (`streams.replay_lane.sent_behind`).
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

import pyarrow as pa

from schemas import failpoints
from schemas.codec import Codec
from schemas.records import ImageRef
from schemas.replays import ReplayManifest, ReplayMark, ReplayProgress, ReplayState
from streams import metrics
from streams.replay_lane import Place
from streams.replay_ledger import Ledger, whole
from streams.replay_selection import Selection, again
from streams.replay_source import Span, Stretch

Pace = Callable[[], object]
"""Returns when the next reference may go, or the replay is to stop."""

FAILPOINTS = ("replay.sent", "replay.settled", "replay.saved")
"""Every point at which a test lets a replay die, in order."""

_CHUNK = 100  # references that are encoded together, and so submitted at one moment


class Lane(Protocol):
    """`streams.replay_lane.BulkLane`."""

    def send(self, place: Place, key: bytes | None, value: bytes) -> None:
        """Hand over one reference."""

    def settle(self) -> tuple[ReplayMark, ...]:
        """Return when Kafka has all."""


class References(Protocol):
    """`streams.replay_source.Source`."""

    def read(self, spans: Sequence[Span], selection: Selection, within: Sequence[Span] = ()) -> Iterator[Stretch]:
        """What is selected of the spans."""


class Checkpoints(Protocol):
    """Where progress is written down: `Timely`."""

    def due(self) -> bool:
        """Whether it is time to write down how far it has come."""

    def save(self, progress: ReplayProgress) -> None:
        """Write it, in the order of the calls; it need not be there at once."""


class Timely:
    """Checkpoints so many seconds apart."""

    def __init__(
        self, save: Callable[[ReplayProgress], object], every_s: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._save, self._every_s, self._now = save, every_s, now
        self._saved_at = now()

    def due(self) -> bool:
        """See `Checkpoints`."""
        return self._now() - self._saved_at >= self._every_s

    def save(self, progress: ReplayProgress) -> None:
        """See `Checkpoints`."""
        self._save(progress)
        self._saved_at = self._now()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a turn did: `sent` references, and `found` ones that an earlier turn had sent; `differences` from the manifest."""

    progress: ReplayProgress
    sent: int
    found: int
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """Where a turn begins: its first record of progress, and what the lane was found to hold behind that."""

    progress: ReplayProgress
    found: frozenset[Place] = frozenset()


class Replay:
    """One turn at a replay."""

    def __init__(
        self, manifest: ReplayManifest, turn: Turn, codec: Codec, lane: Lane, checkpoints: Checkpoints
    ) -> None:
        self._manifest, self._codec, self._lane, self._checkpoints = manifest, codec, lane, checkpoints
        self._progress, self._marks = turn.progress, turn.progress.marks
        self._ledger = Ledger(manifest, turn.progress)
        self._unmet = self._ledger.ahead(turn.found)
        self._sent = self._found = 0

    def run(
        self,
        source: References,
        pace: Pace,
        stop: threading.Event,
        watch: Callable[[int], object] = lambda _: None,
    ) -> Outcome:
        """Send everything that is left, or until `stop` is set; returns when Kafka has what was sent, and the progress was handed on.

        `watch` is told of each reference dealt with. Raises whatever the parts raise, DeliveryError and BusyError among it: then another
        turn finds out what was sent.
        """
        selection = Selection.of(self._manifest)
        for stretch in source.read(self._ledger.left(), selection, whole(self._manifest)):
            self._send(stretch, pace, stop, watch)
            if stop.is_set():
                break
            self._ledger.pass_to(stretch.partition, stretch.next)
        self._save(ReplayState.STOPPED if self._ledger.left() else ReplayState.COMPLETED)
        return Outcome(self._progress, self._sent, self._found, self._ledger.differences())

    def _send(self, stretch: Stretch, pace: Pace, stop: threading.Event, watch: Callable[[int], object]) -> None:
        for first in range(0, len(stretch.offsets), _CHUNK):
            refs = again(stretch.refs.slice(first, _CHUNK), self._manifest, datetime.now(UTC))
            for row, value in enumerate(self._codec.encode_run(refs, ImageRef), first):
                place = (stretch.partition, stretch.offsets[row])
                if place in self._unmet:
                    self._unmet.discard(place)
                    self._found += 1
                    metrics.REPLAYED.labels("found").inc()
                else:
                    pace()
                    if stop.is_set():
                        return
                    key = stretch.keys[row]
                    self._lane.send(place, _ordering_key(refs, row - first) if key is None else key, value)
                    self._sent += 1
                    metrics.REPLAYED.labels("sent").inc()
                    failpoints.reach("replay.sent")
                self._ledger.enter(*place, stretch.keys[row], stretch.values[row])
                watch(1)
                if self._checkpoints.due():
                    self._save(ReplayState.RUNNING)

    def _save(self, state: ReplayState) -> None:
        settled = self._lane.settle()
        # What an earlier turn sent and this one has not come to yet lies behind the marks with which it began.
        marks = self._marks if self._unmet else settled
        failpoints.reach("replay.settled")
        self._progress = replace(
            self._progress,
            state=state,
            sent=self._ledger.sent,
            positions=self._ledger.positions(),
            marks=marks,
            at=datetime.now(UTC),
        )
        self._checkpoints.save(self._progress)
        failpoints.reach("replay.saved")


def _ordering_key(refs: pa.RecordBatch, row: int) -> bytes:
    """The key of a reference that its producer wrote without one."""
    key: str = refs.column("key")[row].as_py() or refs.column("id")[row].as_py()
    return key.encode()

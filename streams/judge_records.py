"""Records of results and dead letters, as outcomes in the arms of the rollouts that are watched."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.arms import choose, is_shadowed
from schemas.codec import Codec
from schemas.errors import Reason, RejectedError
from schemas.moments import to_us
from schemas.records import DeadLetter, DetectionResult, ImageRef, Lane
from schemas.rollouts import Arm, Rollout
from sinks.diff_core import Seen
from streams.judge_windows import Outcome

# What no other model would have done better: such failures say nothing about an arm.
_BEFORE_ANY_MODEL = frozenset({"decode", "fetch"})
_CORNERS = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True, slots=True)
class Taken:
    """What a run of records says: outcomes by the id of their rollout, and the newest moment (epoch microseconds) in it, 0 for none."""

    newest_us: int
    outcomes: Sequence[tuple[str, Outcome]]


class JudgeReader:
    """Reads for the rollouts that `watched` names by id. What cannot be read is passed over: others dead-letter it.

    `default` is what a reference that asks for no model gets (`models.default`). Both may raise BusyError: the registry does not answer.
    """

    def __init__(self, codec: Codec, watched: Callable[[], Mapping[str, Rollout]], default: str = "") -> None:
        self._codec, self._watched, self._default = codec, watched, default

    def results(self, values: Sequence[bytes | None]) -> Taken:
        """Outcomes of records of `detections` and `detections.shadow`."""
        batch = self._codec.decode_run(values, DetectionResult).batch
        if not batch.num_rows:
            return Taken(0, ())
        newest_us: int = pc.max(batch.column("completed_at").cast(pa.int64())).as_py()
        watched = self._watched()
        ours = batch.filter(pc.is_in(batch.column("rollout"), pa.array(list(watched), pa.string())))
        return Taken(newest_us, list(_outcomes(ours, watched)) if ours.num_rows else ())

    def letters(self, values: Sequence[bytes | None]) -> Taken:
        """Outcomes of records of `dead-letters`: failures for which a model is to blame."""
        letters = [letter for value in values if (letter := self._letter(value))]
        newest_us = max((to_us(letter.failed_at) for letter in letters), default=0)
        blamed = [letter for letter in letters if _is_models(letter)]
        return Taken(newest_us, [failure for letter in blamed for failure in self._failures(letter)])

    def _failures(self, letter: DeadLetter) -> Iterator[tuple[str, Outcome]]:
        """The failure in the arm that the image's key is in, if its reference asked for what a rollout shares."""
        ref = self._ref(letter.value)
        if ref is None:
            return
        asked = ref.model or self._default
        for rollout in self._watched().values():
            if rollout.name == asked:
                arm = choose(rollout, ref.ordering_key).arm
                place = f"{letter.source_topic}/{letter.source_partition}/{letter.source_offset}"
                at_us, image = to_us(letter.failed_at), (ref.tenant, ref.id)
                yield rollout.id, Outcome(arm=arm, id=place, image=image, at_us=at_us, failed=True)

    def _letter(self, value: bytes | None) -> DeadLetter | None:
        try:
            return self._codec.decode(value, DeadLetter)
        except RejectedError:
            return None

    def _ref(self, value: bytes | None) -> ImageRef | None:
        try:
            return self._codec.decode(value, ImageRef)
        except RejectedError:
            return None


def _is_models(letter: DeadLetter) -> bool:
    return letter.code == Reason.MODEL_UNKNOWN or letter.stage not in _BEFORE_ANY_MODEL


def _outcomes(batch: pa.RecordBatch, watched: Mapping[str, Rollout]) -> Iterator[tuple[str, Outcome]]:
    names = ("rollout", "arm", "id", "tenant", "image_id", "key", "lane")
    columns = {name: batch.column(name).to_pylist() for name in names}
    done, begun = (batch.column(name).cast(pa.int64()).to_pylist() for name in ("completed_at", "submitted_at"))
    boxes = _Boxes(batch.column("detections"))
    for row in range(batch.num_rows):
        values = {name: column[row] for name, column in columns.items()}
        if values["arm"] not in frozenset(Arm):
            continue
        rollout, image_id = watched[values["rollout"]], values["image_id"]
        online = values["lane"] == Lane.ONLINE and begun[row] > 0
        yield (
            rollout.id,
            Outcome(
                arm=Arm(values["arm"]),
                id=values["id"],
                image=(values["tenant"], image_id),
                at_us=done[row],
                latency_ms=(done[row] - begun[row]) / 1000 if online else None,
                boxes=boxes.count(row),
                seen=boxes.seen(row) if is_shadowed(rollout, values["key"] or image_id) else None,
            ),
        )


class _Boxes:
    """The boxes of a batch, by row. Copies what it gives, so that a waiting half of a pair keeps no batch in memory."""

    def __init__(self, lists: pa.ListArray) -> None:
        self._ends = np.concatenate(([0], np.cumsum(lists.value_lengths().to_numpy())))
        flat = lists.flatten()
        self._xyxy = np.stack([flat.field(name).to_numpy() for name in _CORNERS], axis=1).astype(np.float32)
        self._scores = flat.field("score").to_numpy().astype(np.float32)
        self._labels = flat.field("label")

    def count(self, row: int) -> int:
        return int(self._ends[row + 1] - self._ends[row])

    def seen(self, row: int) -> Seen:
        span = slice(int(self._ends[row]), int(self._ends[row + 1]))
        labels = np.array(self._labels[span].to_pylist(), np.str_)
        return Seen(self._xyxy[span].copy(), self._scores[span].copy(), labels)

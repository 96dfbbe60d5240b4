"""Counts results by slice, many at once: what a window, or a baseline in the making, holds in memory."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sinks.drift_policy import ATTRIBUTES, KEY, TENANT
from sinks.drift_profile import BINS, OTHER, Profile, Slice, aspect_bins, score_bins, size_bins

_LABELS = 512
_FIRST_SIZE = 16
_NOWHERE, _NO_ROOM = -1, -2


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What is counted of a run of results.

    One entry an image: `event_us` (when it was completed, microseconds since the epoch) and, for each dimension in `slices`, the image's
    slice as an index into `names`, -1 for none. One entry a box: the `rows` of its image, its bin by statistic, and its label as an index
    into `labels`.
    """

    event_us: NDArray[np.int64]
    slices: Sequence[NDArray[np.int64]]
    names: Sequence[Slice]
    rows: NDArray[np.int64]
    bins: Mapping[str, NDArray[np.int64]]
    classes: NDArray[np.int64]
    labels: Sequence[str]


def facts_of(batch: pa.RecordBatch, model: str, dimensions: Sequence[str]) -> Facts:
    """The facts of those results that count: by `model` (`name@version`, empty for all), and not of a replay, whose images were counted.

    `batch`: columns of `schemas.arrow.DETECTION_RESULT`.
    """
    batch = batch.filter(_counting(batch, model))
    names: dict[Slice, int] = {}
    slices = [_slices(batch, dimension, names) for dimension in dimensions]
    column = batch.column("detections")
    boxes, lengths = column.flatten(), column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    rows = np.repeat(np.arange(batch.num_rows), lengths)
    labels = boxes.field("label").dictionary_encode()
    event_us = batch.column("completed_at").cast(pa.int64()).to_numpy(zero_copy_only=False)
    bins = _bins(batch, boxes, rows)
    return Facts(
        event_us, slices, tuple(names), rows, bins, _numbers(labels.indices, np.int64), labels.dictionary.to_pylist()
    )


class Tally:
    """Counts of at most `room` slices, in memory only for those that come.

    `only`: those slices alone, and these `labels` alone (all others as `OTHER`); None: whatever comes. `left_out` images were in a slice
    for which there was no room.
    """

    def __init__(self, room: int, only: Container[Slice] | None = None, labels: Iterable[str] = ()) -> None:
        self.left_out = 0
        self._room, self._only = room, only
        self._slices: dict[Slice, int] = {}
        self._labels = {label: at for at, label in enumerate(dict.fromkeys([OTHER, *labels]))}
        self._images, self._empty = np.zeros(_FIRST_SIZE, np.int64), np.zeros(_FIRST_SIZE, np.int64)
        self._boxes = {name: np.zeros((_FIRST_SIZE, bins), np.int64) for name, bins in BINS.items()}
        self._classes = np.zeros((_FIRST_SIZE, max(len(self._labels), _FIRST_SIZE)), np.int64)

    def add(self, facts: Facts, chosen: NDArray[np.bool_]) -> None:
        """Count the images for which `chosen` is true."""
        places = np.array(
            [*(self._slot(name) for name in facts.names), _NOWHERE], np.int64
        )  # the last for those without a slice
        columns = np.array([self._column(label) for label in facts.labels], np.int64)
        filled = np.zeros(len(chosen), bool)
        filled[facts.rows] = True
        for slices in facts.slices:
            slots = np.where(chosen, places[slices], _NOWHERE)
            self.left_out += int(np.count_nonzero(slots == _NO_ROOM))
            np.add.at(self._images, slots[slots >= 0], 1)
            np.add.at(self._empty, slots[(slots >= 0) & ~filled], 1)
            of_boxes = slots[facts.rows]
            mine = of_boxes >= 0
            for name, counts in self._boxes.items():
                np.add.at(counts, (of_boxes[mine], facts.bins[name][mine]), 1)
            np.add.at(self._classes, (of_boxes[mine], columns[facts.classes[mine]]), 1)

    def put(self, of: Slice, profile: Profile) -> None:
        """Add a profile's counts, where there is room."""
        at = self._slot(of)
        if at < 0:
            return
        self._images[at] += profile.images
        self._empty[at] += profile.empty
        for name, counts in profile.boxes.items():
            self._boxes[name][at] += counts
        for label, count in profile.classes.items():
            self._classes[at, self._column(label)] += count

    def profiles(self) -> Iterator[tuple[Slice, Profile]]:
        """What was counted, of each slice that has an image."""
        labels = list(self._labels)
        for one, at in self._slices.items():
            if self._images[at]:
                boxes = {name: counts[at].copy() for name, counts in self._boxes.items()}
                seen = np.flatnonzero(self._classes[at])
                classes = {labels[column]: int(self._classes[at, column]) for column in seen}
                yield one, Profile(int(self._images[at]), int(self._empty[at]), boxes, classes)

    def _slot(self, name: Slice) -> int:
        """Where a slice is counted, or why it is not."""
        at = self._slices.get(name)
        if at is not None:
            return at
        if self._only is not None and name not in self._only:
            return _NOWHERE
        if len(self._slices) >= self._room:
            return _NO_ROOM
        at = self._slices[name] = len(self._slices)
        if at >= len(self._images):
            self._images, self._empty, self._classes = map(_doubled, (self._images, self._empty, self._classes))
            self._boxes = {name: _doubled(counts) for name, counts in self._boxes.items()}
        return at

    def _column(self, label: str) -> int:
        """Where a label is counted; 0 is `OTHER`."""
        at = self._labels.get(label, 0)
        if at or self._only is not None or label == OTHER or len(self._labels) >= _LABELS:
            return at
        at = self._labels[label] = len(self._labels)
        if at >= self._classes.shape[1]:
            self._classes = _doubled(self._classes.T).T
        return at


def _counting(batch: pa.RecordBatch, model: str) -> pa.Array:
    mask = pc.and_(pc.is_null(batch.column("replay_id")), pc.invert(pc.fill_null(batch.column("silent"), False)))
    if model:
        name, _, version = model.rpartition("@")
        mask = pc.and_(mask, pc.equal(batch.column("model_name"), name))
        mask = pc.and_(mask, pc.equal(batch.column("model_version"), version))
    return mask


def _slices(batch: pa.RecordBatch, dimension: str, names: dict[Slice, int]) -> NDArray[np.int64]:
    """The slice of each image, as an index into `names`, which grows; -1 where it has no such value."""
    tenants = batch.column(TENANT).dictionary_encode()
    values = _values(batch, dimension).dictionary_encode()
    known = _numbers(pc.fill_null(values.indices, -1), np.int64)
    pairs = _numbers(tenants.indices, np.int64) * (len(values.dictionary) + 1) + known + 1
    unique, inverse = np.unique(pairs, return_inverse=True)
    places = np.full(len(unique), -1, np.int64)
    for at, pair in enumerate(unique.tolist()):
        tenant, value = divmod(pair, len(values.dictionary) + 1)
        text = values.dictionary[value - 1].as_py() if value else ""
        if text or dimension == TENANT:
            name = Slice(tenants.dictionary[tenant].as_py(), f"{dimension}={text}" if dimension != TENANT else "")
            places[at] = names.setdefault(name, len(names))
    return places[inverse]


def _values(batch: pa.RecordBatch, dimension: str) -> pa.Array:
    if dimension in (TENANT, KEY):
        return batch.column(dimension)
    return pc.map_lookup(batch.column("attributes"), dimension.removeprefix(ATTRIBUTES), "first")


def _bins(batch: pa.RecordBatch, boxes: pa.StructArray, rows: NDArray[np.int64]) -> Mapping[str, NDArray[np.int64]]:
    score, x1, y1, x2, y2 = (_numbers(boxes.field(name), np.float64) for name in ("score", "x1", "y1", "x2", "y2"))
    width, height = x2 - x1, y2 - y1
    frame = _numbers(batch.column("image_width"), np.float64) * _numbers(batch.column("image_height"), np.float64)
    area = np.maximum(width, 0) * np.maximum(height, 0) / np.maximum(frame, 1.0)[rows]
    return {"score": score_bins(score), "box_size": size_bins(area), "box_aspect": aspect_bins(width, height)}


def _numbers(column: pa.Array, kind: type[np.int64] | type[np.float64]) -> NDArray[Any]:
    numbers: NDArray[Any] = column.to_numpy(zero_copy_only=False).astype(kind)
    return numbers


def _doubled(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([counts, np.zeros_like(counts)])

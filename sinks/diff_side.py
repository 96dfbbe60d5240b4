"""One side of a diff: the newest result of each image among those that were selected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.arrow import DETECTION_RESULT
from schemas.rollouts import Arm
from sinks.diff_core import Seen
from sinks.diff_select import Scope, Selector

_KEYS = ("tenant", "image_id", "completed_at", "id")
NEEDED = (
    *(*_KEYS, "uri", "model_name", "model_version", "model_digest", "image_width", "image_height"),
    *("replay_id", "rollout", "arm", "detections"),
)
"""The columns of `schemas.arrow.DETECTION_RESULT` that a diff asks for."""
_SCHEMA = pa.schema([DETECTION_RESULT.field(name) for name in NEEDED])


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Results by image. `rows`: (tenant, image id) -> row, in the order of these keys; `versions`: which versions made them.

    `superseded`: results that an image had besides the newest one. Boxes of row i are `offsets[i]:offsets[i + 1]`.
    """

    text: str
    rows: Mapping[tuple[str, str], int]
    uris: Sequence[str]
    ids: Sequence[str]
    sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    boxes: Seen
    versions: tuple[str, ...]
    superseded: int

    def seen(self, row: int) -> Seen:
        """The boxes of an image."""
        part = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        return Seen(self.boxes.xyxy[part], self.boxes.scores[part], self.boxes.labels[part])

    def size(self, row: int) -> tuple[int, int]:
        """Width and height, in pixels, of the frame in which the boxes are."""
        width, height = self.sizes[row].tolist()
        return width, height


class SideReader:
    """Takes results as they are read; `finish` gives the side, the same in whatever order they came and however often."""

    def __init__(self, selector: Selector, scope: Scope) -> None:
        self._selector, self._scope = selector, scope
        self._kept: list[pa.RecordBatch] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Results, with the columns `NEEDED` at least; those of a release that did not know one yet may lack it."""
        known = _of_this_release(batch)
        chosen = known.filter(pc.and_(self._selector.mask(known), self._scope.mask(known)))
        if chosen.num_rows:
            self._kept.append(chosen)

    def finish(self) -> Side:
        """What was selected."""
        table = pa.Table.from_batches(self._kept, _SCHEMA)
        if self._selector.arm is not None:
            table = table.filter(pa.array(_of_arm(table, self._selector.arm), pa.bool_()))
        table, superseded = _newest(table)
        detections = table.column("detections").combine_chunks()
        counts = pc.list_value_length(detections).to_numpy(zero_copy_only=False)
        keys = zip(table.column("tenant").to_pylist(), table.column("image_id").to_pylist(), strict=True)
        return Side(
            text=self._selector.text,
            rows={key: row for row, key in enumerate(keys)},
            uris=table.column("uri").to_pylist(),
            ids=table.column("id").to_pylist(),
            sizes=np.stack([table.column(f"image_{name}").to_numpy() for name in ("width", "height")], axis=1),
            offsets=np.concatenate((np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64))),
            boxes=_boxes(detections),
            versions=tuple(sorted(set(_versions(table, with_digest=True)))),
            superseded=superseded,
        )


def _of_this_release(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        batch.column(field.name).cast(field.type) if field.name in batch.schema.names else _missing(batch, field)
        for field in (field.with_type(pa.timestamp("us")) if _is_time(field) else field for field in _SCHEMA)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)


def _is_time(field: pa.Field) -> bool:
    return bool(pa.types.is_timestamp(field.type))


def _missing(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    if not field.nullable:
        raise KeyError(field.name)
    return pa.nulls(batch.num_rows, field.type)


def _newest(table: pa.Table) -> tuple[pa.Table, int]:
    """The newest result of each image, in the order of tenant and image id, and how many others there were."""
    order = pc.sort_indices(table.select(_KEYS), sort_keys=[(name, "ascending") for name in _KEYS]).to_numpy()
    keys = list(zip(*(table.column(name).to_pylist() for name in _KEYS), strict=True))
    ordered = [keys[row] for row in order.tolist()]
    last = [at + 1 == len(ordered) or ordered[at + 1][:2] != key[:2] for at, key in enumerate(ordered)]
    kept = order[np.array(last, np.bool_)]
    # The same result may have been delivered twice: that is no other one.
    distinct = len({(tenant, image, result) for tenant, image, _, result in keys})
    return table.take(pa.array(kept, pa.int64())), distinct - len(kept)


def _of_arm(table: pa.Table, arm: Arm) -> list[bool]:
    """Which results of a rollout are of the version of this arm: users' by their arm, shadows by the version that made them."""
    arms, versions = table.column("arm").to_pylist(), _versions(table)
    own = {version for version, of in zip(versions, arms, strict=True) if of == arm}
    other = {version for version, of in zip(versions, arms, strict=True) if of not in {arm, Arm.SHADOW}}
    return [
        of == arm or (of == Arm.SHADOW and (version in own or (not own and version not in other)))
        for version, of in zip(versions, arms, strict=True)
    ]


def _versions(table: pa.Table, *, with_digest: bool = False) -> list[str]:
    names, versions, digests = (table.column(f"model_{part}").to_pylist() for part in ("name", "version", "digest"))
    if with_digest:
        return [f"{n}@{v} {d}".rstrip() for n, v, d in zip(names, versions, digests, strict=True)]
    return [f"{name}@{version}" for name, version in zip(names, versions, strict=True)]


def _boxes(detections: pa.ListArray) -> Seen:
    found = detections.flatten()
    corners = [found.field(name).to_numpy(zero_copy_only=False) for name in ("x1", "y1", "x2", "y2")]
    return Seen(
        np.stack(corners, axis=1).astype(np.float32, copy=False),
        found.field("score").to_numpy(zero_copy_only=False).astype(np.float32, copy=False),
        np.array(found.field("label").to_pylist(), np.str_),
    )

"""Every object of a diff as a row of a Parquet file, for whoever wants to count differently."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ConfigurationError
from sinks.diff_core import Seen
from sinks.diff_pairs import ImagePair

_BOX = pa.list_(pa.float32(), 4)
_ROWS_AT_ONCE = 20_000

SCHEMA: pa.Schema = pa.schema(
    [
        *((name, pa.string()) for name in ("tenant", "image_id", "uri", "change")),
        *(
            (f"{name}_{side}", kind)
            for side in "ab"
            for name, kind in (("label", pa.string()), ("score", pa.float32()))
        ),
        ("iou", pa.float64()),
        *((f"box_{side}", _BOX) for side in "ab"),
        *((f"result_{side}", pa.string()) for side in "ab"),
        *((name, pa.int32()) for name in ("width", "height")),
    ]
)
"""Columns of the file. `a` is the first side; what an object does not have on a side is null. Boxes are corners in pixels."""


class ObjectsFile:
    """Writes the objects of pairs; a context manager. The file is there, whole, once it is left without an error."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError where there is no such folder."""
        self._path, self._aside = path, path.with_name(f".{path.name}.part")
        self._rows: list[dict[str, Any]] = []
        try:
            self._writer = pq.ParquetWriter(self._aside, SCHEMA, compression="zstd")
        except OSError as error:
            raise ConfigurationError(f"cannot write {path}: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if kind is None:
            self._aside.replace(self._path)
        else:
            self._aside.unlink(missing_ok=True)

    def add(self, pair: ImagePair) -> None:
        """Write the objects of a pair."""
        width, height = pair.size
        for row, change in enumerate(pair.diff.changes):
            labels, scores = pair.labels(row), pair.scores(row)
            self._rows.append(
                {
                    "tenant": pair.tenant,
                    "image_id": pair.image_id,
                    "uri": pair.uri,
                    "change": change.value,
                    "label_a": labels[0],
                    "score_a": scores[0],
                    "label_b": labels[1],
                    "score_b": scores[1],
                    "iou": float(pair.diff.iou[row]) if None not in labels else None,
                    "box_a": _corners(pair.first, int(pair.diff.first[row])),
                    "box_b": _corners(pair.second, int(pair.diff.second[row])),
                    "result_a": pair.results[0],
                    "result_b": pair.results[1],
                    "width": width,
                    "height": height,
                }
            )
        if len(self._rows) >= _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._rows.clear()


def _corners(side: Seen, row: int) -> Sequence[float] | None:
    if row < 0:
        return None
    corners: list[float] = side.xyxy[row].tolist()
    return corners

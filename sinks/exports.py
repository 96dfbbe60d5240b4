"""A batch's images as files that other tools read, written page by page, however many there are."""

import io
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from sinks.results_view import image_json
from sinks.stored import StoredImage

PARQUET_TYPE = "application/vnd.apache.parquet"
_ROWS = 2_000  # of a row group


class Export(Protocol):
    """A file in the making: what each call returns are its next bytes. Not on an event loop: a page takes milliseconds."""

    def begin(self) -> bytes:
        """Its first bytes."""

    def add(self, images: Sequence[StoredImage]) -> bytes:
        """Take the next images."""

    def end(self) -> Iterator[bytes]:
        """All that is left to write."""

    def close(self) -> None:
        """Give back what it holds, whether it is complete or not."""


_BOX = pa.struct(
    [
        ("label", pa.string()),
        ("class_id", pa.int32()),
        ("score", pa.float32()),
        *((corner, pa.float32()) for corner in ("x1", "y1", "x2", "y2")),
    ]
)
_STAGES = ("wait_ms", "fetch_ms", "decode_ms", "inference_ms", "total_ms")

SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("status", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        ("batch_id", pa.string()),
        ("key", pa.string()),
        ("lane", pa.dictionary(pa.int8(), pa.string())),
        ("attributes", pa.map_(pa.string(), pa.string())),
        ("submitted_at", pa.timestamp("us", "UTC")),
        ("completed_at", pa.timestamp("us", "UTC")),
        ("model", pa.struct([("name", pa.string()), ("version", pa.string()), ("digest", pa.string())])),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("detections", pa.list_(_BOX)),
        ("timings", pa.struct([(stage, pa.float64()) for stage in _STAGES])),
        (
            "failure",
            pa.struct(
                [("code", pa.string()), ("message", pa.string()), ("stage", pa.string()), ("attempts", pa.int32())]
            ),
        ),
        ("result_id", pa.string()),
    ]
)
"""Columns of a Parquet export: an image as in JSON; one row each, in every state."""


class ParquetExport:
    """All images of a batch, one row each, zstd, a row group for every 2,000."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self._writer = pq.ParquetWriter(pa.PythonFile(self._out, mode="w"), SCHEMA, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._closed = False

    def begin(self) -> bytes:
        """What tells a Parquet file from others."""
        return self._taken()

    def add(self, images: Sequence[StoredImage]) -> bytes:
        """A row group, whenever one is full."""
        self._rows += [_row(image) for image in images]
        if len(self._rows) >= _ROWS:
            self._flush()
        return self._taken()

    def end(self) -> Iterator[bytes]:
        """What is left, and the footer."""
        self._flush()
        self.close()
        yield self._taken()

    def close(self) -> None:
        """End the file."""
        if not self._closed:
            self._closed = True
            self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, SCHEMA), row_group_size=len(self._rows))
            self._rows = []

    def _taken(self) -> bytes:
        taken = self._out.getvalue()
        self._out.seek(0)
        self._out.truncate()
        return taken


def _row(image: StoredImage) -> dict[str, Any]:
    shown = image_json(image)
    ended = image.result.completed_at if image.result else image.failure.failed_at if image.failure else None
    boxes = [{**box, **dict(zip(("x1", "y1", "x2", "y2"), box["box"], strict=True))} for box in shown["detections"]]
    return {
        **shown,
        "attributes": list(shown["attributes"].items()),
        "submitted_at": image.submitted_at,
        "completed_at": ended,
        "detections": boxes,
    }

"""Results for the two sides of a diff."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa

from schemas.arrow import DETECTION_RESULT
from schemas.records import Detection, DetectionResult
from sinks.diff_select import Scope, Selector
from sinks.diff_side import Side, SideReader
from tests.support.results import CODEC, result

DOG = Detection(label="dog", class_id=16, score=0.875, x1=10, y1=10, x2=110, y2=110)
CAT = replace(DOG, label="cat", class_id=15)
CAR = Detection(label="car", class_id=2, score=0.5, x1=300, y1=200, x2=400, y2=300)


def found(
    image: str, boxes: Sequence[Detection], version: str = "1", *, later_s: float = 0.0, **fields: object
) -> DetectionResult:
    """What a version found in an image, later than the first result by so much."""
    made = result(f"{image}-{version}-{later_s:g}")
    values = {
        "image_id": image,
        "detections": tuple(boxes),
        "model_version": version,
        "model_digest": f"sha256:{version}",
        "completed_at": made.completed_at + timedelta(seconds=later_s),
    }
    return replace(made, **{**values, **fields})  # type: ignore[arg-type]  # as the fields are named


def batch(results: Iterable[DetectionResult]) -> pa.RecordBatch:
    """Results as they come from the codec."""
    values = [CODEC.encode(one) for one in results]
    if not values:
        return pa.RecordBatch.from_pylist([], schema=DETECTION_RESULT)
    return CODEC.decode_run(values, DetectionResult).batch


def side(text: str, results: Iterable[DetectionResult], scope: Scope | None = None) -> Side:
    """What a selector takes of these results."""
    reader = SideReader(Selector.parse(text), scope or Scope())
    reader.add(batch(results))
    return reader.finish()

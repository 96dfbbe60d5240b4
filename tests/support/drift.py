"""Results of cameras as a worker would give them, moment by moment, and the record that a baseline of them is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.arrow import DETECTION_RESULT
from schemas.drift import DriftBaseline
from schemas.records import Detection, DetectionResult
from sinks.base import Partition, ResultRun
from sinks.drift_baseline import BaselineMaker, Reference
from sinks.drift_policy import DriftPolicy

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
_NONE = asdict(DetectionResult(id="", image_id="", uri="file:///shelf.jpg", image_width=640, image_height=480))


@dataclass(frozen=True, slots=True)
class Scene:
    """What a camera sees: how many boxes on average, how sure the model is of them (the mean score), and of which classes."""

    boxes: float = 3.0
    score: float = 0.75
    labels: Mapping[str, float] = field(default_factory=lambda: {"person": 0.7, "dog": 0.3})
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """One camera: an ordering key, a tenant, attributes."""

    key: str
    tenant: str = "acme"
    attributes: Mapping[str, str] = field(default_factory=dict)
    model: str = "yolo@3"

    def results(
        self, start: datetime, end: datetime, images: int, scene: Scene = Scene(), seed: int = 0
    ) -> list[dict[str, Any]]:
        """So many results, evenly over this time, as rows."""
        chance = np.random.default_rng([seed, *self.key.encode()])
        step = (end - start) / images
        name, _, version = self.model.partition("@")
        return [
            {
                **_NONE,
                "id": f"{self.key}-{start.timestamp()}-{at}",
                "image_id": f"{self.key}-{start.timestamp()}-{at}",
                "tenant": self.tenant,
                "key": self.key,
                "attributes": self.attributes,
                "model_name": name,
                "model_version": version,
                "completed_at": start + at * step,
                "detections": list(_boxes(chance, scene)),
            }
            for at in range(images)
        ]


def _boxes(chance: np.random.Generator, scene: Scene) -> Iterator[dict[str, Any]]:
    count = int(chance.poisson(scene.boxes))
    scores = chance.beta(20 * scene.score, 20 * (1 - scene.score), count)
    labels = chance.choice(list(scene.labels), count, p=list(scene.labels.values()))
    sides = scene.scale * np.exp(chance.normal(4, 0.4, (count, 2)))
    for score, label, (width, height) in zip(scores.tolist(), labels.tolist(), sides.tolist(), strict=True):
        yield {
            "label": label,
            "class_id": 0,
            "score": score,
            "x1": 5.0,
            "y1": 5.0,
            "x2": 5.0 + width,
            "y2": 5.0 + height,
        }


def batch_of(rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Rows as they come from the codec."""
    moments = [row["completed_at"].replace(tzinfo=None) for row in rows]
    plain = [{**row, "completed_at": at, "submitted_at": at} for row, at in zip(rows, moments, strict=True)]
    return pa.RecordBatch.from_pylist(plain, schema=DETECTION_RESULT)


def run_of(rows: Sequence[Mapping[str, Any]], partition: int = 0, first: int = 0) -> ResultRun:
    """Rows in the order of their moments, as a run whose records Kafka got when they were completed."""
    ordered = sorted(rows, key=lambda row: row["completed_at"])
    stamps = np.array([int(row["completed_at"].timestamp() * 1000) for row in ordered], np.int64)
    offsets = np.arange(first, first + len(ordered), dtype=np.int64)
    return ResultRun(
        Partition("detections", partition), first, first + len(ordered), batch_of(ordered), offsets, stamps
    )


def result_of(row: Mapping[str, Any]) -> DetectionResult:
    """A row as the record that travels."""
    names = set(DetectionResult.__slots__) - {"detections", "timings"}
    boxes = tuple(Detection(**box) for box in row["detections"])
    return replace(DetectionResult(**{name: row[name] for name in names}), detections=boxes)


def baseline_of(
    rows: Sequence[Mapping[str, Any]], policy: DriftPolicy, slices: tuple[str, ...] = ("tenant", "key"), model: str = ""
) -> DriftBaseline:
    """The baseline of the day before `NOON`, made of these rows."""
    reference = Reference(id="default", start=NOON - timedelta(days=1), end=NOON, model=model, slices=slices)
    maker = BaselineMaker(reference, policy)
    maker.add(batch_of(rows))
    return maker.finish(NOON)[0]

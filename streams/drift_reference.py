"""Makes a baseline of what topics or Parquet files hold, and writes it to its topic."""

from collections.abc import Callable, Iterable

import pyarrow as pa

from producers.publisher import Publisher
from schemas.arrow import DETECTION_RESULT
from schemas.drift import DriftBaseline
from schemas.errors import ConfigurationError, RejectedError
from sinks.drift_baseline import BaselineMaker

NEEDED = (
    *("tenant", "key", "attributes", "completed_at", "model_name", "model_version", "image_width", "image_height"),
    *("image_id", "replay_id", "silent", "detections"),
)
"""The columns of `schemas.arrow.DETECTION_RESULT` that drift asks for."""


def count_results(
    batches: Iterable[pa.RecordBatch], maker: BaselineMaker, told: Callable[[int], object] = lambda _: None
) -> None:
    """Count all of them; what a file of an older release lacks is empty. `told`: how many images belong to the baseline so far."""
    for batch in batches:
        maker.add(_complete(batch))
        told(maker.images)


def publish_baseline(publisher: Publisher, baseline: DriftBaseline, timeout_s: float = 60.0) -> None:
    """Write it; returns once Kafka has confirmed it. Raises ConfigurationError for one that is too large, or DeliveryError."""
    try:
        confirmed = publisher.put(publisher.topics.drift_baselines, baseline.id, baseline)
    except RejectedError as error:
        raise ConfigurationError(
            f"the baseline does not fit into a record: lower drift.max_slices ({error})"
        ) from error
    confirmed.result(timeout_s)


def _complete(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        batch.column(name)
        if name in batch.schema.names
        else pa.nulls(batch.num_rows, DETECTION_RESULT.field(name).type)
        for name in NEEDED
    ]
    return pa.RecordBatch.from_arrays(columns, names=list(NEEDED))

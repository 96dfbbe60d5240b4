"""What the stream processors count; names as in docs/operations.md."""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class RunHistogram(Collector):
    """A histogram that takes a whole batch of values at once; prometheus_client's own takes about a microsecond a value."""

    def __init__(self, name: str, documentation: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0
        self._lock = threading.Lock()
        REGISTRY.register(self)

    def observe(self, values: NDArray[np.float64]) -> None:
        """Count all values of a batch."""
        counts = np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._counts))
        with self._lock:
            self._counts += counts
            self._sum += float(values.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What a scrape sees: cumulative counts, as Prometheus has them."""
        with self._lock:
            cumulative, total = np.cumsum(self._counts), self._sum
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        buckets = [(name, float(count)) for name, count in zip(names, cumulative, strict=True)]
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=total)


CONSUMED = Counter("sightstream_consumed_records_total", "Records taken from a topic.", ["topic", "group"])
PROCESSED = Counter(
    "sightstream_processed_records_total", "Records that left a stage, by what became of them.", ["stage", "outcome"]
)
DEAD_LETTERS = Counter("sightstream_dlq_records_total", "Dead letters written.", ["topic", "error_code"])
RETRIES = Counter("sightstream_retried_records_total", "Records sent to a retry topic.", ["topic", "error_code"])
LAG = Gauge(
    "sightstream_consumer_lag_records", "High watermark minus the next offset to commit.", ["topic", "partition"]
)
OLDEST = Gauge("sightstream_consumer_oldest_unprocessed_seconds", "Age of the oldest record taken and not yet safe.")
REBALANCES = Counter("sightstream_rebalances_total", "Changes of the assignment.", ["kind"])
IN_FLIGHT = Gauge("sightstream_inflight_records", "Records in batches that are not yet safe.")
LAST_PROCESSED = Gauge("sightstream_last_record_processed_timestamp_seconds", "When a batch was last published.")
SHADOWS = Counter(
    "sightstream_shadow_images_total",
    "Images that a shadow saw beside what users got; outcome is result or failed.",
    ["outcome"],
)
STORE_TRANSACTION = Histogram(
    "sightstream_store_transaction_seconds",
    "One transaction of the result store, of up to store.records records.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
REPLAYED = Counter(
    "sightstream_replayed_references_total",
    "References of a replay: sent, or found on the lane where an earlier turn had put them.",
    ["outcome"],
)
REPLAY_RATE = Gauge(
    "sightstream_replay_rate", "References a second that a replay allows itself; 0 while it makes room."
)
END_TO_END = RunHistogram(
    "sightstream_end_to_end_latency_seconds",
    "From submission of an image until Kafka confirmed its outcome.",
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)

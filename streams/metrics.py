"""What the stream processors count; names as in docs/operations.md."""

from prometheus_client import Counter, Gauge, Histogram

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
END_TO_END = Histogram(
    "sightstream_end_to_end_latency_seconds",
    "From submission of an image to its result on the topic's buffer.",
    ["lane"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)

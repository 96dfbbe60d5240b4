"""What a watcher of drift counts; names as in docs/operations.md."""

from prometheus_client import Counter, Gauge

IMAGES = Counter(
    "sightstream_drift_images_total",
    "Results that a watcher of drift read: counted, or why not (late, future, passed_over).",
    ["outcome"],
)
SLICES = Counter(
    "sightstream_drift_slices_total", "Slices of closed windows: judged, or given up with too_few images.", ["outcome"]
)
ALERTS = Counter("sightstream_drift_alerts_total", "Alerts written.", ["statistic", "detector", "state"])
DIFFERING = Gauge(
    "sightstream_drift_value",
    "By how much a slice differs from its baseline; there only while it does.",
    ["tenant", "slice", "statistic", "detector"],
)
CLOSED = Gauge(
    "sightstream_drift_closed_timestamp_seconds", "The end of the newest window that was closed, in event time."
)

"""What the edge tells Prometheus. No label holds a tenant or anything else that a caller chooses."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("sightstream_http_requests", "Requests answered.", ["method", "route", "status"])
DURATION = Histogram(
    "sightstream_http_request_duration_seconds",
    "From the headers of a request until its handler was done.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
IN_FLIGHT = Gauge("sightstream_http_in_flight", "Requests that are being handled, streams included.")
REFUSED = Counter("sightstream_http_refused", "Requests refused, by the problem's code.", ["code"])
STALLED = Counter("sightstream_http_stalled", "Connections ended since their client was too slow.", ["direction"])
AUDIT_DROPPED = Counter("sightstream_audit_dropped", "Audit events that did not get to Kafka.", ["cause"])
LIMITS_ALONE = Counter(
    "sightstream_limits_redis_errors", "Times that limits were counted alone, for want of their Redis."
)

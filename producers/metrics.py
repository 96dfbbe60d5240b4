"""What the producers count."""

from prometheus_client import Counter, Gauge

SENT = Counter("sightstream_sent_records", "Records handed to the Kafka client.", ["topic"])
FED = Counter("sightstream_fed_images", "Images that a feed is done with, by what became of them.", ["outcome"])
FEED_UNCONFIRMED = Gauge("sightstream_feed_unconfirmed_images", "Images published and not yet confirmed by Kafka.")
SUBMITTED = Counter(
    "sightstream_submitted_images",
    "Images that callers brought, by outcome: accepted, known, or a problem's code.",
    ["outcome"],
)
UPLOADED_BYTES = Counter(
    "sightstream_uploaded_bytes", "Bytes of images that callers sent and that passed their checks."
)
ABANDONED = Counter(
    "sightstream_abandoned_batches", "Batches that ended before all of them had come, by reason.", ["reason"]
)

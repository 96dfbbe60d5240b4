"""What the producers count."""

from prometheus_client import Counter, Gauge

SENT = Counter("sightstream_sent_records", "Records handed to the Kafka client.", ["topic"])
FED = Counter("sightstream_fed_images", "Images that a feed is done with, by what became of them.", ["outcome"])
FEED_UNCONFIRMED = Gauge("sightstream_feed_unconfirmed_images", "Images published and not yet confirmed by Kafka.")

"""What the producers count."""

from prometheus_client import Counter

SENT = Counter("sightstream_sent_records_total", "Records handed to the Kafka client.", ["topic"])
